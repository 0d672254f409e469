"""The automations of the OLAP layer: a changed view is refreshed, a killed full sync goes on, a failed one is told of.

Built for the Prefect API, from ids that exist only there: apply them after the deployments. Slack is told by the server
itself (SendNotification), e-mail by a run of the flow `alert`, for no notification block sends e-mail of ours.

Pitfall: a window (`within`) is lost when the server restarts, and events sent while it is down are lost. Freshness does
not hang on these automations, the sweep does the work without them; alerts do, and `mozart olap health` is the check
that does not need a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.events.actions import ActionTypes, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from mozart.fleet.olap_plan import FULL_SYNC_FLOW
from mozart.olap.event_names import VIEW_CHANGED, resource_of

_PREFIX = "mozart olap: "
_ENDED_BADLY = {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}
_ENDED = _ENDED_BADLY | {f"prefect.flow-run.{name}" for name in ("Completed", "Cancelled", "Skipped")}
_STARTED = {"prefect.flow-run.Running"}

_SUBJECT_FAILED = "Mozart: the OLAP full sync {{ flow_run.state.name | lower }}"
_SUBJECT_LATE = "Mozart: the OLAP full sync takes too long"
_BODY = (
    "Run {{ flow_run.name }} of {{ deployment.name }}: {{ flow_run.state.name }}\n"
    "{{ flow_run.state.message }}\n"
    "Started: {{ flow_run.start_time }}\n"
    "{{ flow_run | ui_url }}\n"
    "What to do: look at the run, then `mozart olap health`; a new run goes on where this one ended."
)


@dataclass(frozen=True)
class AlertTargets:
    """Where alerts go: the deployment of the flow `alert`, and the document of a webhook block (None: no Slack)."""

    mail_deployment: UUID
    webhook: UUID | None


def refresh_automation(view: str, deployment: UUID) -> AutomationCore:
    """Runs the view's deployment when somebody says that its data changed."""
    return AutomationCore(
        name=f"{_PREFIX}refresh {view} when its data changed",
        description=f"Answers the event {VIEW_CHANGED} with a run of mv-incremental/{view}.",
        enabled=True,
        trigger=EventTrigger(
            expect={VIEW_CHANGED},
            match=ResourceSpecification(root={"prefect.resource.id": resource_of(view)["prefect.resource.id"]}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_run(deployment, {"view": view, "asked_by": "event"})],
    )


def resume_automation(full_sync: UUID, resume: UUID) -> AutomationCore:
    """Goes on with a crashed run of the deployment `full_sync` by one of `resume`, which nothing follows."""
    return AutomationCore(
        name=f"{_PREFIX}go on with a killed full sync",
        description="A crashed run of the daily sync is followed by one of olap-full-sync/resume.",
        enabled=True,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=ResourceSpecification(root={"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                root={
                    "prefect.resource.role": ["deployment"],
                    "prefect.resource.id": [f"prefect.deployment.{full_sync}"],
                }
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_run(resume, {})],
    )


def alert_automations(targets: AlertTargets, longest_seconds: int) -> list[AutomationCore]:
    """Tell people when a full sync ended badly for good, or has not ended after `longest_seconds`."""
    failed = AutomationCore(
        name=f"{_PREFIX}alert when the full sync failed",
        description="Tells Slack (if a webhook is set) and the alert mail's recipients.",
        enabled=True,
        trigger=_of_full_sync(expect=_ENDED_BADLY, posture=Posture.Reactive, within=timedelta(0)),
        actions=_tell(targets, _SUBJECT_FAILED),
    )
    late = AutomationCore(
        name=f"{_PREFIX}alert when the full sync takes too long",
        description=f"Tells the same when a full sync has not ended {longest_seconds} seconds after its start.",
        enabled=True,
        trigger=_of_full_sync(
            after=_STARTED, expect=_ENDED, posture=Posture.Proactive, within=timedelta(seconds=longest_seconds)
        ),
        actions=_tell(targets, _SUBJECT_LATE),
    )
    return [failed, late]


def is_of_olap(name: str) -> bool:
    """Whether an automation of this name is one of ours."""
    return name.startswith(_PREFIX)


def _of_full_sync(
    *,
    expect: set[str],
    posture: Literal[Posture.Reactive, Posture.Proactive],
    within: timedelta,
    after: set[str] | None = None,
) -> EventTrigger:
    return EventTrigger(
        after=after or set(),
        expect=expect,
        match=ResourceSpecification(root={"prefect.resource.id": ["prefect.flow-run.*"]}),
        match_related=ResourceSpecification(
            root={"prefect.resource.role": ["flow"], "prefect.resource.name": [FULL_SYNC_FLOW]}
        ),
        for_each={"prefect.resource.id"},
        posture=posture,
        threshold=1,
        within=within,
    )


def _tell(targets: AlertTargets, subject: str) -> list[ActionTypes]:
    actions = [_run(targets.mail_deployment, {"subject": _template(subject), "body": _template(_BODY)})]
    if targets.webhook is not None:
        actions.append(SendNotification(block_document_id=targets.webhook, subject=subject, body=_BODY))
    return actions


def _run(deployment: UUID, parameters: dict[str, Any]) -> ActionTypes:
    return RunDeployment(source="selected", deployment_id=deployment, parameters=parameters, job_variables=None)


def _template(text: str) -> dict[str, str]:
    """A parameter that the server renders when the automation acts."""
    return {"__prefect_kind": "jinja", "template": text}
