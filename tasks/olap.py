"""The steps of `olap_full_sync` (validate → dimensions → facts → cache → record) and of `mv_incremental`.

A step awaits core work in a thread, so that the flow's loop stays free. What is true about a view stands in the
database's history; a run repeats nothing of it, and a step's state shows what became of its view. The steps' names
come from the views: a view more is a step more, without a change here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
)
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled
from prefect.tasks import Task

from blocks import OlapCache, OlapDatabase, olap_cache, olap_database
from mozart.errors import ConfigurationError, MozartError, TerminalError
from mozart.olap import database as core
from mozart.olap.cache import ViewCache, invalidate
from mozart.olap.event_names import VIEW_REFRESHED, resource_of
from mozart.olap.full_sync import (
    FullSync,
    ValidationReport,
    begin_full_sync,
    has_unfinished_sync,
    record_full_sync,
    refresh_in_full_sync,
    validate_source,
)
from mozart.olap.health import SyncHealth, get_sync_health
from mozart.olap.model import View
from mozart.olap.redis_server import RedisServer
from mozart.olap.refresh import RefreshKind, SyncResult, refresh_view
from mozart.olap.registry import ViewRegistry, read_views
from mozart.olap.verify import explain_view
from mozart.settings import load_settings
from tasks.step import step

FULL_SYNC_RETRIES = 3


@dataclass(frozen=True)
class OlapPlace:
    """What a run of the OLAP layer works with. `run_id` is the flow run's, and stands in the history."""

    database: core.OlapDatabase
    registry: ViewRegistry
    redis: RedisServer
    run_id: str

    @asynccontextmanager
    async def connected_cache(self) -> AsyncGenerator[ViewCache]:
        """The cache, closed at the end."""
        cache = ViewCache(self.redis)
        try:
            yield cache
        finally:
            cache.close()


async def open_olap() -> OlapPlace:
    """Read `views/` and the blocks. ConfigurationError when one of them is missing or broken."""
    settings = load_settings()
    try:
        database, cache = await asyncio.gather(
            OlapDatabase.aload(olap_database.DOCUMENT), OlapCache.aload(olap_cache.DOCUMENT)
        )
    except (ValueError, RuntimeError) as error:
        # Neither chained nor quoted: a failed validation prints the block's values.
        what = "are missing" if isinstance(error, ValueError) else "have an older shape"
        raise ConfigurationError(f"the blocks of the OLAP layer {what}; run `mozart deploy`") from None
    place = database.database()
    registry = await asyncio.to_thread(read_views, settings.root, default_schema=place.view_schema)
    return OlapPlace(place, registry, cache.server(), str(flow_run.get_id() or "local"))


async def in_shown_slot(view: str, work: Callable[[], SyncResult]) -> SyncResult:
    """Do `work` in a thread and show it by the view's limit meanwhile; the work does not wait for that."""
    working = asyncio.create_task(asyncio.to_thread(work))
    async with _shown_slot(view):
        return await working


@asynccontextmanager
async def _shown_slot(view: str) -> AsyncGenerator[None]:
    """Hold the view's limit if it is free. For the eye only: the database itself lets one refresh at a time."""
    async with AsyncExitStack() as stack:
        try:
            slot = concurrency(
                refresh_limit(view), occupy=1, max_retries=0, lease_duration=300, raise_on_lease_renewal_failure=False
            )
            await stack.enter_async_context(slot)
        except (ConcurrencySlotAcquisitionError, AcquireConcurrencySlotTimeoutError, httpx.HTTPError):
            get_run_logger().info("%s: its limit is held by another run, or not to be had", view)
        yield


def refresh_limit(view: str) -> str:
    """The name of the view's concurrency limit."""
    return f"olap-refresh-{view}"


def refresh_step_name(view: View) -> str:
    """How the full sync calls a view's step: `refresh_dim_org`, `refresh_business_fact`, or as view.yaml says."""
    return view.step_name or f"refresh_{view.name.removeprefix('mv_')}"


# -- the full sync ----------------------------------------------------------------------------------------------------

Outcome = SyncResult | MozartError


@dataclass
class FullSyncRun:
    """A full sync as its steps see it. `outcomes` holds each view's result, or the error that kept it from one."""

    place: OlapPlace
    retry_delay_seconds: float
    sync: FullSync | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    cache_problem: str | None = None

    @property
    def failures(self) -> Mapping[str, str]:
        """Every view that is not refreshed, with the reason."""
        return {name: str(outcome) for name, outcome in self.outcomes.items() if isinstance(outcome, MozartError)}

    @property
    def views(self) -> Sequence[View]:
        return self.place.registry.views


@step("validate_source_data")
async def validate_source_data(place: OlapPlace) -> ValidationReport:
    """Look at the OLTP tables before anything is touched."""
    return await asyncio.to_thread(validate_source, place.database, place.registry)


@step("{name}")
async def refresh_in_sync(name: str, view: str, run: FullSyncRun, blocked_by: str | None) -> SyncResult | State[Any]:
    """Refresh one view in the sync, unless the sync has done it before it was killed."""
    if blocked_by is not None:
        return Cancelled(name="Skipped", message=blocked_by)
    place, sync = run.place, run.sync
    if sync is None:
        raise TerminalError("the full sync was not begun")
    result = await in_shown_slot(
        view,
        lambda: refresh_in_full_sync(place.database, place.registry, sync.id, view, run_id=place.run_id),
    )
    get_run_logger().info(result_line(result))
    return result


@step("invalidate_redis_cache")
async def invalidate_redis_cache(place: OlapPlace) -> list[str]:
    """After the commits: readers stop getting what was kept of the views as they were; the views that changed."""
    async with place.connected_cache() as cache:
        changed = await asyncio.to_thread(_invalidate, place, cache)
    get_run_logger().info("new generations of %s", ", ".join(changed) or "no view")
    return changed


@step("record_sync_completion")
async def record_sync_completion(run: FullSyncRun, reason: str | None) -> SyncHealth:
    """Close the sync in the history, completed or (with a reason) failed, and show the health on the run."""
    if run.sync is None:
        raise TerminalError("the full sync was not begun")
    status = "failed" if reason else "completed"
    await asyncio.to_thread(
        record_full_sync, run.place.database, run.sync.id, status=status, reason=reason, run_id=run.place.run_id
    )
    results = [outcome for outcome in run.outcomes.values() if isinstance(outcome, SyncResult)]
    if results:
        rows = [result_row(result) for result in results]
        await acreate_table_artifact(rows, key="olap-full-sync", description=f"Full sync: {reason or status}")
    return await publish_health(run.place)


def _invalidate(place: OlapPlace, cache: ViewCache) -> list[str]:
    with place.database.connect() as connection:
        return invalidate(cache, connection)


async def is_unfinished(run: FullSyncRun) -> bool:
    """Whether there is a killed sync to go on with."""
    return await asyncio.to_thread(has_unfinished_sync, run.place.database)


async def begin_sync(run: FullSyncRun) -> None:
    """Validate, then open the sync or go on with a killed one. A failed validation is recorded, and raised."""
    place = run.place
    state = await _state_of(run, validate_source_data, place)
    report = await state.aresult(raise_on_failure=False)
    valid = report if isinstance(report, ValidationReport) else None
    run.sync = await asyncio.to_thread(begin_full_sync, place.database, report=valid, run_id=place.run_id)
    if valid is None:
        problem = report if isinstance(report, MozartError) else TerminalError(str(report or state.message))
        await _state_of(run, record_sync_completion, run, f"validation: {problem}")
        raise problem
    if run.sync.resumed:
        get_run_logger().info("going on with sync %s; done before: %s", run.sync.id, ", ".join(run.sync.done) or "-")


async def refresh_all(run: FullSyncRun) -> None:
    """Dimensions side by side, then facts, each after the views it depends on; what failed stops what needs it."""
    registry = run.place.registry
    await _refresh_side_by_side(run, registry.dimensions, blocked_by=None)
    failed = ", ".join(run.failures)
    await _refresh_side_by_side(run, registry.facts, blocked_by=f"not refreshed: {failed} failed" if failed else None)


async def finish_sync(run: FullSyncRun) -> dict[str, Any]:
    """Invalidate the cache of what was refreshed, record the sync, and raise what failed of it."""
    state = await _state_of(run, invalidate_redis_cache, run.place)
    if not state.is_completed():
        run.cache_problem = state.message
        get_run_logger().warning("the cache was not invalidated, the sweep will: %s", state.message)
    failures = run.failures
    reason = "; ".join(f"{view}: {text}" for view, text in failures.items()) or None
    state = await _state_of(run, record_sync_completion, run, reason)
    if failures:
        raise TerminalError(f"the full sync failed: {reason}")
    health = await state.aresult()
    return {
        "status": "completed",
        "sync_id": run.sync.id if run.sync else None,
        "views": {
            name: result_row(outcome) for name, outcome in run.outcomes.items() if isinstance(outcome, SyncResult)
        },
        "cache_problem": run.cache_problem,
        "health": health.health,
    }


async def _refresh_side_by_side(run: FullSyncRun, views: Sequence[View], *, blocked_by: str | None) -> None:
    """The views of one kind; one that depends on another of them waits for it."""
    started: dict[str, asyncio.Task[None]] = {}

    async def refresh(view: View) -> None:
        needed = [started[name] for name in view.depends_on if name in started]
        await asyncio.gather(*needed)
        broken = [name for name in view.depends_on if name in run.failures]
        blocked = blocked_by or (f"not refreshed: {', '.join(broken)} failed" if broken else None)
        run.outcomes[view.name] = await _refresh_one(run, view, blocked)

    for view in views:  # in dependency order
        started[view.name] = asyncio.create_task(refresh(view))
    await asyncio.gather(*started.values())


async def _refresh_one(run: FullSyncRun, view: View, blocked_by: str | None) -> Outcome:
    name = refresh_step_name(view)
    state = await _state_of(run, refresh_in_sync.with_options(name=name), name, view.name, run, blocked_by)
    if blocked_by is not None:
        return MozartError(blocked_by)
    outcome = await state.aresult(raise_on_failure=False)
    return outcome if isinstance(outcome, SyncResult | MozartError) else MozartError(str(outcome or state.message))


async def _state_of(run: FullSyncRun, task: Task[..., Any], *parameters: Any) -> State[Any]:
    """The final state of a step's run, with the sync's retries; its failure is in the state, not raised."""
    retried = task.with_options(retries=FULL_SYNC_RETRIES, retry_delay_seconds=run.retry_delay_seconds)
    answer: Any = retried(*parameters, return_state=True)
    return await answer


# -- one view ---------------------------------------------------------------------------------------------------------


@step("refresh {view}")
async def refresh_one_view(place: OlapPlace, view: str, kind: RefreshKind, force: bool) -> SyncResult:
    """Refresh the view now, or say why not; a request that is skipped stays marked in the database.

    A run that an event asked for is skipped when the sweep was there first.
    """
    asked_at = flow_run.get_scheduled_start_time() if kind == "event" else None
    result = await in_shown_slot(
        view,
        lambda: refresh_view(
            place.database, place.registry, view, kind=kind, force=force, run_id=place.run_id, asked_at=asked_at
        ),
    )
    get_run_logger().info(result_line(result))
    return result


@step("explain {view}")
async def explain_one_view(place: OlapPlace, view: str) -> dict[str, Any]:
    """Say what a refresh of the view would do now, on the run and as plain data; touches nothing."""
    found = await asyncio.to_thread(explain_view, place.database, place.registry, view)
    await acreate_markdown_artifact(
        f"{found.plan}\n\n```sql\n{found.full_query}\n```", key=artifact_key(view), description=f"Refresh of {view}"
    )
    return asdict(found)


async def report_refresh(place: OlapPlace, result: SyncResult) -> None:
    """Invalidate the cache, tell of the refresh, and show it on the run. Without Redis the sweep does the first."""
    if result.status == "completed":
        try:
            async with place.connected_cache() as cache:
                await asyncio.to_thread(_invalidate, place, cache)
        except MozartError as error:
            get_run_logger().warning("the cache was not invalidated, the sweep will: %s", error)
        emit_event(VIEW_REFRESHED, resource=resource_of(result.view), payload=result_row(result))
    await acreate_table_artifact([result_row(result)], key=artifact_key(result.view), description=result_line(result))


async def publish_health(place: OlapPlace) -> SyncHealth:
    """The health of all views, as an artifact of the run."""
    health = await asyncio.to_thread(get_sync_health, place.database, place.registry)
    rows = [view.model_dump(mode="json") for view in health.views]
    await acreate_table_artifact(rows, key="olap-health", description=f"OLAP views: {health.health}")
    if health.problems:
        text = "\n".join(f"- {problem}" for problem in health.problems)
        await acreate_markdown_artifact(text, key="olap-problems", description="Why the OLAP layer is stale")
    return health


def artifact_key(view: str) -> str:
    """The key of a view's artifacts: Prefect takes letters, digits and dashes."""
    return f"{view.replace('_', '-')}-sync"


def result_row(result: SyncResult) -> dict[str, Any]:
    """A result as plain data."""
    return result.model_dump(mode="json")


def result_line(result: SyncResult) -> str:
    """A result in one line."""
    reason = f" ({result.reason})" if result.reason else ""
    rows = "" if result.rows is None else f", {result.rows} rows"
    changed = "" if result.changed_rows is None else f", {result.changed_rows} changed"
    return f"{result.view} {result.status}{reason} in {result.duration_seconds:.2f} s{rows}{changed}"
