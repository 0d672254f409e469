"""The OLAP layer's plan and automations: one deployment a view, none in a branch, alerts as code."""

from __future__ import annotations

from uuid import UUID, uuid4

import yaml
from prefect.events.actions import RunDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

from mozart.fleet.olap_automations import (
    AlertTargets,
    alert_automations,
    is_of_olap,
    refresh_automation,
    resume_automation,
)
from mozart.fleet.olap_plan import with_olap
from mozart.fleet.plan import FleetEnvironment, RunLimit, plan_fleet
from mozart.fleet.prefect_yaml import render
from mozart.olap.registry import ViewRegistry, read_views
from tests.projects import PROJECT

VIEWS = read_views(PROJECT)


def test_the_full_sync_is_planned_as_people_know_it() -> None:
    plan = with_olap(plan_fleet([]), VIEWS)
    sync = plan.olap[0]
    assert sync.full_name == "olap-full-sync/daily" and sync.work_pool == "mozart"
    assert sync.description == "Daily full sync of OLAP Materialized Views"
    assert sync.tags == ("vision", "olap", "etl", "owner:axiom-vision")
    assert sync.schedule and (sync.schedule.cron, sync.schedule.timezone) == ("0 3 * * *", "UTC")
    assert sync.concurrency == RunLimit(limit=1, collision_strategy="CANCEL_NEW"), "late runs do not queue up"


def test_a_killed_full_sync_is_gone_on_with_once() -> None:
    resume = with_olap(plan_fleet([]), VIEWS).olap[1]
    assert resume.full_name == "olap-full-sync/resume" and resume.schedule is None
    daily, following = uuid4(), uuid4()
    automation = resume_automation(daily, following)
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger) and trigger.expect == {"prefect.flow-run.Crashed"}
    related = trigger.match_related
    assert not isinstance(related, list) and related["prefect.resource.id"] == [f"prefect.deployment.{daily}"]
    (action,) = automation.actions
    assert isinstance(action, RunDeployment) and action.deployment_id == following


def test_each_view_has_a_deployment_without_a_limit_and_a_limit_for_the_eye() -> None:
    plan = with_olap(plan_fleet([]), VIEWS)
    views = [spec for spec in plan.olap if spec.flow_name == "mv-incremental"]
    assert [spec.name for spec in views] == sorted(view.name for view in VIEWS.views)
    assert all(spec.concurrency is None and spec.work_pool == "mozart-inline" for spec in views)
    assert {limit.name for limit in plan.limits} == {f"olap-refresh-{view.name}" for view in VIEWS.views}


def test_a_branch_and_a_project_without_views_plan_nothing() -> None:
    branch = plan_fleet([], FleetEnvironment("branch", "trial"))
    assert with_olap(branch, VIEWS) == branch
    assert with_olap(plan_fleet([]), ViewRegistry(())) == plan_fleet([])


def test_the_plan_is_in_prefect_yaml() -> None:
    loaded = yaml.safe_load(render(with_olap(plan_fleet([]), VIEWS)))
    entries = {(entry["entrypoint"], entry["name"]): entry for entry in loaded["deployments"]}
    sync = entries["flows/olap_full_sync.py:olap_full_sync", "daily"]
    assert sync["parameters"] == {} and sync["concurrency_limit"]["limit"] == 1
    view = entries["flows/mv_incremental.py:mv_incremental", "mv_business_fact"]
    assert view["concurrency_limit"] is None and view["work_pool"]["name"] == "mozart-inline"


def test_a_changed_view_runs_its_own_deployment() -> None:
    deployment = uuid4()
    automation = refresh_automation("mv_business_fact", deployment)
    (action,) = automation.actions
    assert isinstance(action, RunDeployment) and action.deployment_id == deployment
    assert action.parameters == {"view": "mv_business_fact", "asked_by": "event"}
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger) and trigger.expect == {"mozart.view.changed"}
    assert trigger.match.model_dump() == {"prefect.resource.id": "mozart.view.mv_business_fact"}
    assert is_of_olap(automation.name)


def test_alerts_go_by_mail_and_by_webhook_where_there_is_one() -> None:
    mail, webhook = uuid4(), uuid4()
    failed, late = alert_automations(AlertTargets(mail, webhook), 300)
    assert isinstance(late.trigger, EventTrigger) and late.trigger.posture == Posture.Proactive
    assert late.trigger.within.total_seconds() == 300
    for automation in (failed, late):
        kinds = {type(action): action for action in automation.actions}
        run, notify = kinds[RunDeployment], kinds[SendNotification]
        assert isinstance(run, RunDeployment) and run.deployment_id == mail
        assert isinstance(notify, SendNotification) and notify.block_document_id == webhook
    without: list[tuple[UUID, None]] = [(mail, None)]
    for targets in without:
        assert all(len(each.actions) == 1 for each in alert_automations(AlertTargets(*targets), 300))
