"""The fleet plan: one shape for every tenant, and branches that touch nothing of production."""

from __future__ import annotations

import pytest

from mozart.errors import ConfigurationError
from mozart.fleet.plan import FleetEnvironment, LimitSpec, RunLimit, ScheduleSpec, plan_fleet
from mozart.tenancy.model import IcebergSpec, SourceSpec, StorageSpec, TableSpec, Tenant

BRANCH = FleetEnvironment("branch", "dev")


def tenant(
    tenant_id: str,
    *,
    schedule: str | None = "0 3 * * *",
    zone: str = "UTC",
    schema: str | None = None,
    prefix: str | None = None,
) -> Tenant:
    return Tenant(
        id=tenant_id,
        source=SourceSpec(type="postgresql", connection={"host": "h"}),
        storage=StorageSpec(bucket="landing", prefix=prefix or f"raw/{tenant_id}"),
        iceberg=IcebergSpec(catalog="iceberg", schema_name=schema or tenant_id),
        schedule=schedule,
        timezone=zone,
        tables=(TableSpec(name="cases", source_schema=None, source_table="cases"),),
    )


def test_a_tenant_becomes_one_deployment_and_one_limit() -> None:
    plan = plan_fleet([tenant("acme", zone="Europe/Berlin")])
    (deployment,) = plan.deployments
    assert deployment.full_name == "tenant-pipeline/acme"
    assert deployment.entrypoint == "flows/tenant_pipeline.py:tenant_pipeline"
    assert deployment.parameters == {"tenant": "acme"}
    assert deployment.schedule == ScheduleSpec("0 3 * * *", "Europe/Berlin", active=True)
    assert deployment.tags == ("tenant:acme", "lakehouse")
    assert "acme" in deployment.description
    assert (deployment.work_pool, deployment.job_variables) == ("mozart", {})
    assert deployment.concurrency == RunLimit(limit=1, collision_strategy="CANCEL_NEW", grace_period_seconds=60)
    assert [limit.name for limit in plan.limits] == ["source-acme"]
    assert {automation.kind for automation in plan.automations} == {"crash_zombie_runs", "crash_stuck_runs"}


def test_each_tenant_has_maintenance_of_its_own() -> None:
    plan = plan_fleet([tenant("beta"), tenant("acme", schedule=None)])
    assert [deployment.full_name for deployment in plan.maintenance] == [
        "lake-deletes/acme",
        "lake-maintenance/acme",
        "lake-deletes/beta",
        "lake-maintenance/beta",
    ]
    deletes, maintenance = plan.maintenance[:2]
    assert maintenance.schedule == ScheduleSpec("0 2 * * *", "UTC", active=True)
    assert deletes.schedule == ScheduleSpec("0 1 * * *", "UTC", active=True)
    assert maintenance.tags == ("tenant:acme", "lakehouse", "maintenance")
    assert maintenance.parameters == {"tenant": "acme"} and maintenance.concurrency.limit == 1
    assert len({deployment.full_name for deployment in plan.all_deployments}) == 6


def test_a_branch_maintains_its_own_lake_on_request_only() -> None:
    for deployment in plan_fleet([tenant("acme")], BRANCH).maintenance:
        assert deployment.name == "acme_dev" and deployment.schedule and not deployment.schedule.active
        assert deployment.job_variables == {"env": {"MOZART_ENV": "branch", "MOZART_BRANCH": "dev"}}


def test_the_order_of_the_tenants_does_not_matter() -> None:
    fleet = [tenant(name) for name in ("beta", "acme", "zulu")]
    assert plan_fleet(fleet) == plan_fleet(fleet[::-1])
    assert [deployment.name for deployment in plan_fleet(fleet).deployments] == ["acme", "beta", "zulu"]


def test_another_tenants_change_leaves_a_deployment_alone() -> None:
    before = plan_fleet([tenant("acme"), tenant("beta")])
    after = plan_fleet([tenant("acme"), tenant("beta", schedule="5 5 * * *"), tenant("zulu")])
    assert before.deployments[0] == after.deployments[0]
    assert before.deployments[1] != after.deployments[1]


def test_a_tenant_without_a_schedule_runs_on_request() -> None:
    assert plan_fleet([tenant("acme", schedule=None)]).deployments[0].schedule is None


def test_a_branch_has_a_suffix_no_schedule_and_no_automation() -> None:
    plan = plan_fleet([tenant("acme")], BRANCH)
    (deployment,) = plan.deployments
    assert deployment.name == "acme_dev"
    assert deployment.schedule == ScheduleSpec("0 3 * * *", "UTC", active=False)
    assert deployment.parameters == {"tenant": "acme"}
    assert deployment.job_variables == {"env": {"MOZART_ENV": "branch", "MOZART_BRANCH": "dev"}}
    assert plan.limits == (LimitSpec("source-acme", 4),), "the same source, so the same limit"
    assert plan.automations == ()
    production = plan_fleet([tenant("acme")])
    assert not {d.full_name for d in plan.deployments} & {d.full_name for d in production.deployments}


@pytest.mark.parametrize(
    ("fleet", "branch"),
    [
        ([tenant("acme")], "raw"),
        ([tenant("acme"), tenant("acme_dev")], "dev"),
        ([tenant("acme"), tenant("other", schema="acme_dev")], "dev"),
        ([tenant("acme"), tenant("acme_dev", schema="other")], "dev"),
        ([tenant("acme"), tenant("acme_eu")], "eu_dev"),
        ([tenant("acme"), tenant("other", prefix="raw/acme_dev")], "dev"),
        ([tenant("acme")], "dev_raw"),
    ],
)
def test_a_branch_that_would_write_into_production_is_refused(fleet: list[Tenant], branch: str) -> None:
    assert plan_fleet(fleet).deployments
    with pytest.raises(ConfigurationError, match="choose another branch name"):
        plan_fleet(fleet, FleetEnvironment("branch", branch))


def test_tenants_of_like_names_have_branches() -> None:
    fleet = [tenant("acme"), tenant("acme_eu"), tenant("acmeeu")]
    plan = plan_fleet(fleet, FleetEnvironment("branch", "dev"))
    assert [deployment.name for deployment in plan.deployments] == ["acme_dev", "acme_eu_dev", "acmeeu_dev"]
