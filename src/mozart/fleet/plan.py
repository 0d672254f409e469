"""What the Prefect API should hold for a fleet: deployments, limits and automations, as plain data.

Pure: no Prefect, no files, no environment. `prefect_yaml` renders a plan, `mozart deploy` applies one. Every tenant
gets the same shape; what differs is its id, its schedule and its description.

Pitfalls: limits and automations belong to the server, not to an environment. A branch shares the limits (they protect
the same source) and plans no automations, so that trying a change cannot alter production's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mozart.errors import ConfigurationError
from mozart.settings import Environment, Settings
from mozart.tenancy import names
from mozart.tenancy.footprint import branch_collisions, declared_footprint
from mozart.tenancy.model import Tenant

WORK_POOL = "mozart"
TENANT_FLOW = "tenant-pipeline"
TENANT_ENTRYPOINT = "flows/tenant_pipeline.py:tenant_pipeline"
MAINTENANCE_FLOW = "lake-maintenance"
MAINTENANCE_ENTRYPOINT = "flows/lake_maintenance.py:lake_maintenance"
MAINTENANCE_CRON = "0 2 * * *"
DELETES_FLOW = "lake-deletes"
DELETES_ENTRYPOINT = "flows/lake_deletes.py:lake_deletes"
DELETES_CRON = "0 1 * * *"
"""An hour before maintenance, which then compacts what the deletes leave."""
TENANT_FLOWS = (TENANT_FLOW, MAINTENANCE_FLOW, DELETES_FLOW)
"""The flows of which every tenant has a deployment, all called by its id."""
LAKEHOUSE_TAG = "lakehouse"
"""The tag of every tenant's deployment; automations watch the runs that have it."""
OLAP_TAG = "olap"
"""The tag of every deployment of the OLAP layer; its runs are watched as well."""
MAINTENANCE_TAG = "maintenance"
SOURCE_READERS = 4
"""How many tables are read from one source at once, over all its runs."""

AutomationKind = Literal["crash_zombie_runs", "crash_stuck_runs"]


@dataclass(frozen=True)
class FleetEnvironment:
    """For whom the plan is made. `branch` is given in a branch environment only."""

    name: Environment = "prod"
    branch: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> FleetEnvironment:
        return cls(settings.environment, settings.branch)

    @property
    def tags(self) -> tuple[str, ...]:
        """What marks a deployment as a branch's: the name alone could be another tenant's."""
        return (f"branch:{self.branch}",) if self.branch else ()

    @property
    def suffix(self) -> str:
        """What namespaces and deployment names end in; empty outside a branch."""
        return names.branch_suffix(self.branch)


@dataclass(frozen=True)
class ScheduleSpec:
    """Five cron fields in a time zone; an inactive one is kept to be seen and switched on by hand."""

    cron: str
    timezone: str
    active: bool


@dataclass(frozen=True)
class RunLimit:
    """How many runs of a deployment may be in flight, and what happens to the next one.

    `grace_period_seconds`: how long a slot is held for a run whose worker never comes up.
    """

    limit: int = 1
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "CANCEL_NEW"
    grace_period_seconds: int = 60


@dataclass(frozen=True)
class DeploymentSpec:
    """One deployment. `job_variables` go to the work pool's template; without `concurrency`, any number of runs."""

    name: str
    flow_name: str
    entrypoint: str
    parameters: Mapping[str, str]
    schedule: ScheduleSpec | None
    tags: tuple[str, ...]
    description: str
    work_pool: str = WORK_POOL
    concurrency: RunLimit | None = RunLimit()
    job_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])

    @property
    def full_name(self) -> str:
        """As `prefect deployment run` takes it: `tenant-pipeline/acme`."""
        return f"{self.flow_name}/{self.name}"


@dataclass(frozen=True)
class LimitSpec:
    """A global concurrency limit: `limit` slots under `name`."""

    name: str
    limit: int


@dataclass(frozen=True)
class AutomationSpec:
    """An automation as data; `mozart deploy` knows how each kind is built. `seconds` is the time it waits."""

    name: str
    kind: AutomationKind
    seconds: int
    description: str


@dataclass(frozen=True)
class FleetPlan:
    """Everything the Prefect API should hold, in a stable order.

    `deployments` are the tenants' pipelines, one each; `maintenance` what keeps each tenant's lake in order; `olap`
    what keeps the views fresh (see `mozart.fleet.olap_plan`).
    """

    environment: FleetEnvironment
    deployments: tuple[DeploymentSpec, ...]
    limits: tuple[LimitSpec, ...]
    automations: tuple[AutomationSpec, ...]
    maintenance: tuple[DeploymentSpec, ...] = ()
    olap: tuple[DeploymentSpec, ...] = ()

    @property
    def all_deployments(self) -> tuple[DeploymentSpec, ...]:
        """Every deployment; a name is unique within its flow only."""
        return (*self.deployments, *self.maintenance, *self.olap)


AUTOMATIONS = (
    AutomationSpec(
        name="mozart: crash runs whose heartbeat stopped",
        kind="crash_zombie_runs",
        seconds=75,
        description="A running flow run that sent no heartbeat for this long lost its process: mark it Crashed.",
    ),
    AutomationSpec(
        name="mozart: crash runs that never started",
        kind="crash_stuck_runs",
        seconds=300,
        description="A pending or submitted run that is not running after this long holds a slot: mark it Crashed.",
    ),
)


def plan_fleet(tenants: Sequence[Tenant], environment: FleetEnvironment | None = None) -> FleetPlan:
    """The plan for `tenants`; without `environment`, production's.

    ConfigurationError when what a branch makes could be taken for another tenant's.
    """
    target = environment or FleetEnvironment()
    ordered = sorted(tenants, key=lambda tenant: tenant.id)
    _refuse_branch_collisions(ordered, target)
    return FleetPlan(
        environment=target,
        deployments=tuple(_tenant_deployment(tenant, target) for tenant in ordered),
        limits=tuple(LimitSpec(names.source_limit(tenant.id), SOURCE_READERS) for tenant in ordered),
        automations=() if target.name == "branch" else AUTOMATIONS,
        maintenance=tuple(spec for tenant in ordered for spec in _maintenance_deployments(tenant, target)),
    )


def _tenant_deployment(tenant: Tenant, environment: FleetEnvironment) -> DeploymentSpec:
    schedule = None
    if tenant.schedule is not None:
        schedule = ScheduleSpec(tenant.schedule, tenant.timezone, active=environment.name != "branch")
    return DeploymentSpec(
        name=names.deployment_name(tenant.id, environment.suffix),
        flow_name=TENANT_FLOW,
        entrypoint=TENANT_ENTRYPOINT,
        parameters={"tenant": tenant.id},
        schedule=schedule,
        tags=(names.tenant_tag(tenant.id), LAKEHOUSE_TAG, *environment.tags),
        description=_describe(tenant, environment),
        job_variables=_job_variables(environment),
    )


def _maintenance_deployments(tenant: Tenant, environment: FleetEnvironment) -> tuple[DeploymentSpec, ...]:
    where = f" in branch {environment.branch}" if environment.branch else ""
    return (
        _maintenance(
            tenant,
            environment,
            flow=(DELETES_FLOW, DELETES_ENTRYPOINT, DELETES_CRON),
            description=f"Removes from raw what was deleted at the source of {tenant.id}{where}.",
        ),
        _maintenance(
            tenant,
            environment,
            flow=(MAINTENANCE_FLOW, MAINTENANCE_ENTRYPOINT, MAINTENANCE_CRON),
            description=f"Compacts the tables of {tenant.id}, expires snapshots, removes orphaned files{where}.",
        ),
    )


def _maintenance(
    tenant: Tenant, environment: FleetEnvironment, *, flow: tuple[str, str, str], description: str
) -> DeploymentSpec:
    """One of a tenant's own: a broken tenant must not keep the others' lakes from being maintained."""
    flow_name, entrypoint, cron = flow
    return DeploymentSpec(
        name=names.deployment_name(tenant.id, environment.suffix),
        flow_name=flow_name,
        entrypoint=entrypoint,
        parameters={"tenant": tenant.id},
        schedule=ScheduleSpec(cron, "UTC", active=environment.name != "branch"),
        tags=(names.tenant_tag(tenant.id), LAKEHOUSE_TAG, MAINTENANCE_TAG, *environment.tags),
        description=description,
        job_variables=_job_variables(environment),
    )


def _describe(tenant: Tenant, environment: FleetEnvironment) -> str:
    count = len(tenant.tables)
    tables = f"{count} table{'' if count == 1 else 's'}"
    where = f" in branch {environment.branch}" if environment.branch else ""
    return f"Loads {tables} of {tenant.id} ({tenant.source.type}) into the lakehouse and builds its marts{where}."


def _job_variables(environment: FleetEnvironment) -> Mapping[str, Mapping[str, str]]:
    """Only a branch tells its runs where they are; elsewhere the worker's own environment says it."""
    if environment.branch is None:
        return {}
    return {"env": {"MOZART_ENV": "branch", "MOZART_BRANCH": environment.branch}}


def _refuse_branch_collisions(tenants: Sequence[Tenant], environment: FleetEnvironment) -> None:
    problems = branch_collisions([declared_footprint(tenant) for tenant in tenants], environment.suffix)
    if problems:
        raise ConfigurationError(problems)
