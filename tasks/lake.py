"""The steps of `tenant_pipeline` in the order data passes: open → load each table → build each model → summarise.

A step awaits core work in a thread, so that the flow's loop stays free. The state of a table's or a model's task is
its true state: what was not done is never shown as Completed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import concurrency
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import Task

from blocks.tenant_place import load_place
from mozart.engine.dbt_run import ModelEvent, ModelRequest, ModelResult, RawInput, build_models
from mozart.errors import MozartError
from mozart.lake.load import LoadResult
from mozart.lake.load_plan import LoadRequest
from mozart.lake.tenant_run import RunOptions, TenantRun
from mozart.settings import Settings, load_settings
from mozart.tenancy import names
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import Tenant
from mozart.tenancy.product_schema import load_product_schema
from tasks.report import LoadProgress, LoadReport, RunSummary, TableProgress, publish_summary
from tasks.step import step

TABLES_AT_ONCE = 4
"""How many tables one run loads at the same time."""

DBT_TARGETS = {"local": "dev", "branch": "branch", "prod": "prod"}


@step("open {tenant}")
async def open_tenant(tenant: str, options: RunOptions) -> TenantRun:
    """Read the tenant's file and blocks, log in to its source, take its snapshot, open the lake."""
    settings = load_settings()
    description = await asyncio.to_thread(load_tenant, settings.tenants_folder / tenant)
    place = await load_place(tenant, settings.suffix)
    run_id = str(flow_run.get_id() or "local")
    run = TenantRun(description, place, options, run_id, settings.state)
    return await asyncio.to_thread(run.__enter__)


@asynccontextmanager
async def opened_tenant(tenant: str, options: RunOptions) -> AsyncGenerator[TenantRun]:
    """An open run, closed at the end whatever happens: the source's snapshot must not outlive it."""
    run = await open_tenant(tenant, options)
    try:
        yield run
    finally:
        await asyncio.to_thread(run.__exit__, None, None, None)


@step("load {request.name}")
async def load_table(run: TenantRun, request: LoadRequest) -> LoadResult:
    """Extract, land and commit one table; exactly once, whatever fails on the way."""
    log = get_run_logger()
    rows = TableProgress(asyncio.get_running_loop(), request.name)
    async with concurrency(names.source_limit(request.tenant), occupy=1, strict=False):
        result = await asyncio.to_thread(run.load, request, log.info, rows.take)
    await rows.settle()
    log.info(LoadReport.of(request.name, result).line)
    for warning in result.warnings:
        log.warning("%s: %s", request.name, warning)
    if result.status == "committed":
        emit_event(
            event="mozart.table.loaded",
            resource={
                "prefect.resource.id": names.raw_asset(request.tenant, request.spec.name),
                "prefect.resource.name": request.name,
            },
            payload={
                "rows": result.rows_committed,
                "watermark": result.watermark,
                "snapshot_id": str(result.snapshot_id),
                "load_id": result.load_id,
            },
        )
    return result


@step("compact {run.tenant.id}")
async def compact_tables(run: TenantRun) -> int:
    """Let go of the source, then compact the tables of this run whose files have piled up; how many were."""
    log = get_run_logger()
    results = await asyncio.to_thread(run.compact_loaded, log.info)
    return sum(result.status == "compacted" for result in results)


async def _state_of(step: Task[..., Any], *parameters: Any) -> State[Any]:
    """The final state of a step's run; its failure is in the state, not raised."""
    answer: Any = step(*parameters, return_state=True)
    return await answer


async def load_tables(run: TenantRun) -> dict[str, LoadResult | MozartError]:
    """Load every table of the run, some at once. A table that fails is in the answer with its error; others go on."""
    slots = asyncio.Semaphore(TABLES_AT_ONCE)
    progress = await LoadProgress.begin(run.tenant.id, len(run.requests))

    async def load_one(request: LoadRequest) -> LoadResult | MozartError:
        async with slots:
            state = await _state_of(load_table, run, request)
        await progress.advance()
        outcome = await state.aresult(raise_on_failure=False)
        return outcome if isinstance(outcome, LoadResult | MozartError) else MozartError(str(outcome or state.message))

    outcomes = await asyncio.gather(*(load_one(request) for request in run.requests))
    await _state_of(compact_tables, run)  # its own state tells how it went; the tables are loaded either way
    return {request.spec.name: outcome for request, outcome in zip(run.requests, outcomes, strict=True)}


@step("model {name}")
async def build_model(name: str, result: asyncio.Future[ModelResult]) -> State[Any]:
    """Show one model as it is computed, tested and published; its state is what really became of it."""
    outcome = await result
    log = get_run_logger()
    detail = outcome.reason or _published_detail(outcome)
    log.log(40 if outcome.status == "failed" else 20, "%s %s: %s", name, outcome.status, detail)
    return _model_state(outcome, detail)


def _published_detail(result: ModelResult) -> str:
    merged = "" if result.merged_rows is None else f", {result.merged_rows} of them merged"
    return f"{result.rows} rows{merged}, {result.tests_passed} tests passed"


def _model_state(result: ModelResult, detail: str) -> State[Any]:
    if result.status == "published":
        return Completed(message=detail, data=None)
    if result.status == "unchanged":
        return Completed(name="Unchanged", message=detail, data=None)
    if result.status == "failed":
        return Failed(message=detail)
    return Cancelled(name="Skipped", message=f"{detail}; the last good version stays")


class ModelBoard:
    """Turns the engine's events, which come from another thread, into one task run a model."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._results: dict[str, asyncio.Future[ModelResult]] = {}
        self._shown: list[asyncio.Task[Any]] = []

    def on_event(self, event: ModelEvent) -> None:
        """Called by the engine, from any thread."""
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: ModelEvent) -> None:
        if event.kind in ("started", "finished") and event.unique_id not in self._results:
            future = self._results[event.unique_id] = self._loop.create_future()
            self._shown.append(self._loop.create_task(_state_of(build_model, event.name, future)))
        if event.kind == "finished" and event.result and not self._results[event.unique_id].done():
            self._results[event.unique_id].set_result(event.result)

    async def settle(self, results: Sequence[ModelResult], error: BaseException | None) -> None:
        """Give every shown model its end, also those of a run that broke off, and wait for their task runs."""
        await asyncio.sleep(0)  # events already handed over by the engine's thread
        for result in results:
            self._take(ModelEvent("finished", result.unique_id, result.name, result.layer, result))
        for future in self._results.values():
            if not future.done():
                future.set_exception(error or MozartError("the run of the models broke off"))
        await asyncio.gather(*self._shown, return_exceptions=True)


async def build_all_models(run: TenantRun, loads: Mapping[str, LoadResult | MozartError]) -> list[ModelResult]:
    """Run dbt for this tenant and publish what passed, one task run a model. Raises only when dbt itself cannot run."""
    settings = load_settings()
    request = _model_request(run, loads, settings)
    board = ModelBoard(asyncio.get_running_loop())
    results: list[ModelResult] = []
    error: BaseException | None = None
    try:
        results = await asyncio.to_thread(build_models, request, run.place.lakehouse, board.on_event)
    except BaseException as raised:
        error = raised
        raise
    finally:
        await board.settle(results, error)
    return results


def _model_request(run: TenantRun, loads: Mapping[str, LoadResult | MozartError], settings: Settings) -> ModelRequest:
    spaces = run.place.namespaces
    return ModelRequest(
        tenant=run.tenant.id,
        run_id=run.run_id,
        root=settings.root,
        state=settings.state,
        namespace=spaces.core,
        raw_namespace=spaces.raw,
        catalog=spaces.catalog,
        product=load_product_schema(settings.root),
        environment=settings.suffix.lstrip("_") or "default",
        target=DBT_TARGETS[settings.environment],
        inputs={name: _raw_input(outcome) for name, outcome in loads.items()},
        full_refresh=run.options.full_refresh,
    )


def _raw_input(outcome: LoadResult | MozartError) -> RawInput:
    if isinstance(outcome, MozartError):
        return RawInput(None, "failed")
    return RawInput(outcome.snapshot_id, "loaded" if outcome.status == "committed" else "unchanged")


@step("summarise {tenant.id}")
async def summarise(
    tenant: Tenant, loads: Mapping[str, LoadResult | MozartError], models: Sequence[ModelResult]
) -> RunSummary:
    """Put what happened into artifacts: tables, models, lineage."""
    summary = RunSummary.of(tenant, loads, models)
    await publish_summary(tenant, summary)
    return summary
