"""What the Prefect API should hold for the OLAP layer: deployments and limits, as plain data.

Pure, as `mozart.fleet.plan`. One deployment for the full sync, one that goes on with a killed one, one a view, one for
alerts. Going on has a deployment of its own so that a crash there starts nothing: a sync that always crashes ends.

Pitfall: the views live in one database, which a branch would share with production. So a branch plans nothing here:
production's deployments keep the views fresh, and a changed view is tried in a database of its own.
"""

from __future__ import annotations

from dataclasses import replace

from mozart.fleet.plan import OLAP_TAG, DeploymentSpec, FleetPlan, LimitSpec, ScheduleSpec
from mozart.olap.model import View
from mozart.olap.registry import ViewRegistry

INLINE_POOL = "mozart-inline"
FULL_SYNC_FLOW = "olap-full-sync"
FULL_SYNC_DEPLOYMENT = "daily"
RESUME_DEPLOYMENT = "resume"
FULL_SYNC_CRON = "0 3 * * *"
VIEW_FLOW = "mv-incremental"
ALERT_FLOW = "alert"
OLAP_FLOWS = (FULL_SYNC_FLOW, VIEW_FLOW, ALERT_FLOW)
LIMIT_PREFIX = "olap-refresh-"
OWNER_TAG = "owner:axiom-vision"


def with_olap(plan: FleetPlan, registry: ViewRegistry) -> FleetPlan:
    """The plan with what the views need; as it is when there are none, and in a branch."""
    if not registry.views or plan.environment.branch:
        return plan
    views = sorted(registry.views, key=lambda view: view.name)
    limits = tuple(LimitSpec(f"{LIMIT_PREFIX}{view.name}", 1) for view in views)
    return replace(
        plan,
        limits=(*plan.limits, *limits),
        olap=(_full_sync(), _resume(), *(_of_view(view) for view in views), _alert()),
    )


def _full_sync() -> DeploymentSpec:
    """One run at a time, later ones cancelled: after days without a worker one run follows, not one a day."""
    return DeploymentSpec(
        name=FULL_SYNC_DEPLOYMENT,
        flow_name=FULL_SYNC_FLOW,
        entrypoint="flows/olap_full_sync.py:olap_full_sync",
        parameters={},
        schedule=ScheduleSpec(FULL_SYNC_CRON, "UTC", active=True),
        tags=("vision", OLAP_TAG, "etl", OWNER_TAG),
        description="Daily full sync of OLAP Materialized Views",
    )


def _resume() -> DeploymentSpec:
    return replace(
        _full_sync(),
        name=RESUME_DEPLOYMENT,
        parameters={"only_unfinished": True},
        schedule=None,
        description="Goes on with a full sync that was killed; an automation starts it, once a killed sync",
    )


def _of_view(view: View) -> DeploymentSpec:
    """Any number of runs: a second one is skipped by the database and its request kept, not cancelled by Prefect."""
    return DeploymentSpec(
        name=view.name,
        flow_name=VIEW_FLOW,
        entrypoint="flows/mv_incremental.py:mv_incremental",
        parameters={"view": view.name},
        schedule=None,
        tags=("vision", OLAP_TAG, f"view:{view.name}", OWNER_TAG),
        description=f"Refreshes {view.name} when its data changed, or on request. {view.description}",
        work_pool=INLINE_POOL,
        concurrency=None,
    )


def _alert() -> DeploymentSpec:
    return DeploymentSpec(
        name="email",
        flow_name=ALERT_FLOW,
        entrypoint="flows/alert.py:alert",
        parameters={},
        schedule=None,
        tags=(OLAP_TAG, "alert"),
        description="Sends an alert of the OLAP layer by e-mail; automations start it.",
        concurrency=None,
    )
