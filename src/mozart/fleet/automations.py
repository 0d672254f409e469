"""The automations that free a dead or stuck run's slot, built for the Prefect API.

A run whose process died sends no more heartbeats; a run whose worker died before it started stays Pending. Both would
hold their deployment's only slot. Pitfalls: an automation's window is lost when the server restarts (the deployment's
grace period and the leases end on their own then); the heartbeat must be on in the runs' environment, which the work
pool's template sees to, so only runs of our own tags are watched.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from mozart.fleet.plan import LAKEHOUSE_TAG, OLAP_TAG, AutomationSpec

_FINAL = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Skipped")}
_RESTING = {f"prefect.flow-run.{name}" for name in ("Paused", "Suspended", "AwaitingRetry", "Cancelling")}
_ALIVE = {"prefect.flow-run.heartbeat"}
_STARTED = {"prefect.flow-run.Running", "prefect.flow-run.Retrying"}
_WAITING = {f"prefect.flow-run.{name}" for name in ("Pending", "Submitting", "InfrastructurePending")}


def build_automation(spec: AutomationSpec) -> AutomationCore:
    """The automation of `spec` as the API takes it."""
    after, expect = _watched(spec)
    return AutomationCore(
        name=spec.name,
        description=spec.description,
        enabled=True,
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=ResourceSpecification(root={"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                root={"prefect.resource.id": [f"prefect.tag.{tag}" for tag in (LAKEHOUSE_TAG, OLAP_TAG)]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=spec.seconds),
        ),
        actions=[
            # Never forced: a heartbeat that arrives after the end arms the trigger again, and the ordinary rules are
            # what keeps a finished run from being called Crashed.
            ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=spec.description, force=False)
        ],
    )


def _watched(spec: AutomationSpec) -> tuple[set[str], set[str]]:
    if spec.kind == "crash_zombie_runs":
        return _ALIVE | _STARTED, _ALIVE | _FINAL | _RESTING
    return _WAITING, _STARTED | _ALIVE | _FINAL | _RESTING
