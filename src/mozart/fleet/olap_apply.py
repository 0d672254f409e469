"""The OLAP layer's part of a deploy: its blocks before the deployments, its automations after them, and what left.

The deployments and limits themselves are applied with all others by `mozart.fleet.apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID, uuid4

from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect_email import EmailServerCredentials
from pydantic import SecretStr

from blocks import AlertMail, OlapCache, OlapDatabase, alert_mail, olap_cache, olap_database
from mozart.errors import ConfigurationError, Problem
from mozart.fleet.apply import put_automation, save_block
from mozart.fleet.changes import Applied
from mozart.fleet.olap_automations import (
    AlertTargets,
    alert_automations,
    is_of_olap,
    refresh_automation,
    resume_automation,
)
from mozart.fleet.olap_plan import (
    ALERT_FLOW,
    FULL_SYNC_DEPLOYMENT,
    FULL_SYNC_FLOW,
    LIMIT_PREFIX,
    OLAP_FLOWS,
    RESUME_DEPLOYMENT,
    VIEW_FLOW,
)
from mozart.fleet.plan import OLAP_TAG, FleetPlan
from mozart.olap import database as core
from mozart.olap.redis_server import RedisServer, redis_from_settings
from mozart.settings import Settings

WEBHOOK = "olap-alert-webhook"
DEFAULT_RECIPIENTS = "ops@axipient.com"
LONGEST_SYNC_SECONDS = 300

_PAGE = 200
_SLACK = "https://hooks.slack.com/"

Report = Callable[[Applied], None]


@dataclass(frozen=True)
class OlapAccess:
    """What goes into the OLAP blocks. `webhook` is None where alerts go by e-mail alone."""

    database: core.OlapDatabase
    redis: RedisServer
    mail: AlertMail
    webhook: Block | None
    longest_sync_seconds: int


def olap_access_from_settings(settings: Settings) -> OlapAccess:
    """Everything from MOZART_OLAP_*, MOZART_REDIS_* and MOZART_ALERT_*; defaults are the local stack's."""
    values = settings.values
    url = values.get("MOZART_ALERT_SLACK_URL", "")
    longest = values.get("MOZART_OLAP_SYNC_SECONDS") or str(LONGEST_SYNC_SECONDS)
    if not longest.isdigit() or int(longest) < 1:
        raise ConfigurationError(Problem(".env", "MOZART_OLAP_SYNC_SECONDS", f"{longest!r} is not a number of seconds"))
    return OlapAccess(
        database=core.olap_database_from_settings(settings),
        redis=redis_from_settings(settings),
        mail=_mail(settings),
        webhook=_webhook(url) if url else None,
        longest_sync_seconds=int(longest),
    )


def _mail(settings: Settings) -> AlertMail:
    values = settings.values
    recipients = values.get("MOZART_ALERT_EMAIL_TO") or DEFAULT_RECIPIENTS
    security = (values.get("MOZART_ALERT_SMTP_SECURITY") or "INSECURE").upper()
    if security not in ("SSL", "STARTTLS", "INSECURE"):
        message = f"{security!r} is not one of SSL, STARTTLS, INSECURE"
        raise ConfigurationError(Problem(".env", "MOZART_ALERT_SMTP_SECURITY", message))
    has_port = bool(values.get("MOZART_ALERT_SMTP_PORT"))
    server = EmailServerCredentials(
        username=values.get("MOZART_ALERT_SMTP_USERNAME") or None,
        password=SecretStr(values.get("MOZART_ALERT_SMTP_PASSWORD") or ""),
        smtp_server=values.get("MOZART_ALERT_SMTP_HOST") or "localhost",
        smtp_type=security,
        smtp_port=settings.port("MOZART_ALERT_SMTP_PORT") if has_port else None,
    )
    return AlertMail(
        server=server, sender=values.get("MOZART_ALERT_EMAIL_FROM") or "mozart@localhost", recipients=recipients
    )


def _webhook(url: str) -> Block:
    """Slack's own block for Slack's own address; any other gets the same message as a JSON post."""
    if url.startswith(_SLACK):
        return SlackWebhook(url=SecretStr(url))
    return CustomWebhookNotificationBlock(
        name="mozart", url=url, method="POST", json_data={"text": "{{subject}}\n{{body}}"}, headers=None, cookies=None
    )


async def apply_olap_blocks(access: OlapAccess, report: Report, *, is_rehearsal: bool = False) -> list[Applied]:
    """Save the blocks that the OLAP flows and automations use; a rehearsal only says what would be saved."""
    wanted: dict[str, Block] = {
        olap_database.DOCUMENT: OlapDatabase.of(access.database),
        olap_cache.DOCUMENT: OlapCache.of(access.redis),
        alert_mail.DOCUMENT: access.mail,
    }
    if access.webhook is not None:
        wanted[WEBHOOK] = access.webhook
    done = [
        Applied("block", name, await save_block(name, block, is_rehearsal=is_rehearsal))
        for name, block in wanted.items()
    ]
    for applied in done:
        report(applied)
    return done


async def apply_olap_automations(
    client: PrefectClient,
    plan: FleetPlan,
    access: OlapAccess | None,
    report: Report,
    *,
    is_rehearsal: bool = False,
) -> list[Applied]:
    """Create or update the automations, whose deployments must be there, and remove what left the plan.

    In a branch nothing is planned and nothing removed: the OLAP layer is production's.
    """
    if plan.environment.branch:
        return []
    webhook = await _webhook_id(access, is_rehearsal) if access else None
    wanted = await _automations(client, plan, access, webhook) if access else []
    done = [await put_automation(client, automation) for automation in wanted]
    done += await _prune(client, plan, {automation.name for automation in wanted})
    for applied in done:
        report(applied)
    return done


async def _automations(
    client: PrefectClient, plan: FleetPlan, access: OlapAccess, webhook: UUID | None
) -> list[AutomationCore]:
    ids = {spec.full_name: (await client.read_deployment_by_name(spec.full_name)).id for spec in plan.olap}
    mail = next(ids[spec.full_name] for spec in plan.olap if spec.flow_name == ALERT_FLOW)
    daily, resume = (ids[f"{FULL_SYNC_FLOW}/{name}"] for name in (FULL_SYNC_DEPLOYMENT, RESUME_DEPLOYMENT))
    return [
        resume_automation(daily, resume),
        *(refresh_automation(spec.name, ids[spec.full_name]) for spec in plan.olap if spec.flow_name == VIEW_FLOW),
        *alert_automations(AlertTargets(mail, webhook), access.longest_sync_seconds),
    ]


async def _webhook_id(access: OlapAccess, is_rehearsal: bool) -> UUID | None:
    if access.webhook is None:
        return None
    try:
        block = await type(access.webhook).aload(WEBHOOK)
    except ValueError:
        if is_rehearsal:  # it is not there yet
            return uuid4()
        raise
    return cast(UUID, block._block_document_id)


async def _prune(client: PrefectClient, plan: FleetPlan, automations: set[str]) -> list[Applied]:
    """Remove deployments, automations and limits of views that left, found by what they say of themselves."""
    done: list[Applied] = []
    kept = {spec.full_name for spec in plan.olap}
    for automation in await client.read_automations():
        if is_of_olap(automation.name) and automation.name not in automations:
            await client.delete_automation(automation.id)
            done.append(Applied("automation", automation.name, "removed"))
    for flow_name in OLAP_FLOWS:
        flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
        for deployment in await _all_deployments(client, flow):
            full_name = f"{flow_name}/{deployment.name}"
            if OLAP_TAG in deployment.tags and full_name not in kept:
                await client.delete_deployment(deployment.id)
                done.append(Applied("deployment", full_name, "removed"))
    limits = {limit.name for limit in plan.limits}
    for limit in await _all_limits(client):
        if limit.startswith(LIMIT_PREFIX) and limit not in limits:
            await client.delete_global_concurrency_limit_by_name(limit)
            done.append(Applied("limit", limit, "removed"))
    return done


async def _all_deployments(client: PrefectClient, flow: FlowFilter) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while True:
        page = await client.read_deployments(flow_filter=flow, limit=_PAGE, offset=len(found))
        found.extend(page)
        if len(page) < _PAGE:
            return found


async def _all_limits(client: PrefectClient) -> list[str]:
    found: list[Any] = []
    while True:
        page = await client.read_global_concurrency_limits(limit=_PAGE, offset=len(found))
        found.extend(page)
        if len(page) < _PAGE:
            return [limit.name for limit in found]
