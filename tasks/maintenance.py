"""The steps of `lake_maintenance` (open → compact and expire each table → sweep → report) and of `lake_deletes`.

What fails is named and does not stop the rest: a table that cannot be compacted is expired all the same, and the sweep
decides for itself whether it knows enough to delete anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.concurrency.asyncio import concurrency
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import Task

from mozart.engine.upkeep import create_upkeep
from mozart.errors import ConfigurationError, DataQualityError, MozartError, Problem
from mozart.lake.commit import Identifier
from mozart.lake.compaction import CompactionResult
from mozart.lake.delete_pass import DeleteOptions, DeleteResult
from mozart.lake.expiry import ExpiryResult
from mozart.lake.load_plan import LoadRequest
from mozart.lake.maintenance import MaintenanceOptions, TenantDeletePass, TenantMaintenance
from mozart.lake.sweep import SweepResult
from mozart.settings import load_settings
from mozart.tenancy import names
from mozart.tenancy.load import load_tenant
from tasks.lake import load_place
from tasks.step import step

R = TypeVar("R")

TABLES_AT_ONCE = 2
"""How many tables one delete pass compares at the same time."""


@step("open {tenant}")
async def open_maintenance(tenant: str, options: MaintenanceOptions) -> TenantMaintenance:
    """Read the tenant's file and blocks, and open its lake."""
    settings = load_settings()
    description = await asyncio.to_thread(load_tenant, settings.tenants_folder / tenant)
    place = await load_place(tenant, settings.suffix)
    upkeep = create_upkeep(settings, place.namespaces.catalog)
    run = TenantMaintenance(description, place, options, _run_id(), settings.state, upkeep=upkeep)
    return await asyncio.to_thread(run.__enter__)


@asynccontextmanager
async def opened_maintenance(tenant: str, options: MaintenanceOptions) -> AsyncGenerator[TenantMaintenance]:
    """An open maintenance run, closed at the end whatever happens."""
    run = await open_maintenance(tenant, options)
    try:
        yield run
    finally:
        await asyncio.to_thread(run.__exit__, None, None, None)


@step("compact {name}")
async def compact(run: TenantMaintenance, name: str, identifier: Identifier) -> CompactionResult:
    """Turn one table's many files into few, if it is due."""
    log = get_run_logger()
    result = await asyncio.to_thread(run.compact, identifier, log.info)
    log.info(result.line)
    return result


@step("expire {name}")
async def expire(run: TenantMaintenance, name: str, identifier: Identifier) -> ExpiryResult:
    """Forget one table's old snapshots."""
    result = await asyncio.to_thread(run.expire, identifier)
    get_run_logger().info(result.line)
    return result


@step("sweep {tenant}")
async def sweep(run: TenantMaintenance, tenant: str) -> SweepResult:
    """Delete the files that no snapshot of the tenant's tables can reach."""
    log = get_run_logger()
    result = await asyncio.to_thread(run.sweep, log.info)
    log.info("%s: %s", tenant, result.line)
    for note in result.notes:
        log.warning(note)
    return result


@dataclass(frozen=True)
class MaintenanceSummary:
    """A maintenance run in figures. A value is the step's result, or the error that ended it."""

    tenant: str
    compactions: Mapping[str, CompactionResult | MozartError]
    expiries: Mapping[str, ExpiryResult | MozartError]
    sweep: SweepResult | MozartError

    @property
    def failures(self) -> tuple[str, ...]:
        """Every step that failed, with the reason; objects that the store did not let go count as one."""
        steps: dict[str, object] = {
            **{f"compact {name}": outcome for name, outcome in self.compactions.items()},
            **{f"expire {name}": outcome for name, outcome in self.expiries.items()},
            f"sweep {self.tenant}": self.sweep,
        }
        found = [f"{name}: {outcome}" for name, outcome in steps.items() if isinstance(outcome, MozartError)]
        if isinstance(self.sweep, SweepResult) and self.sweep.failed:
            path, reason = next(iter(self.sweep.failed.items()))
            found.append(f"sweep {self.tenant}: {len(self.sweep.failed)} files stayed, such as {path} ({reason})")
        return tuple(found)

    def rows(self) -> list[dict[str, Any]]:
        """One row a table: files, deletes, bytes, snapshots."""
        return [self._row(name) for name in self.expiries]

    def _row(self, name: str) -> dict[str, Any]:
        compaction, expiry = self.compactions[name], self.expiries[name]
        row: dict[str, Any] = {"table": name}
        if isinstance(compaction, CompactionResult):
            before = compaction.before
            row |= {"compaction": compaction.status, "reason": compaction.reason, "data_files": before.data_files}
            row |= {"delete_files": before.delete_files, "deleted_rows": before.deleted_rows, "bytes": before.size}
            row |= {"files_after": compaction.after_files or "", "bytes_after": compaction.after_size or ""}
        else:
            row |= {"compaction": "failed", "reason": str(compaction)}
        if isinstance(expiry, ExpiryResult):
            return row | {"expired": expiry.expired, "kept": expiry.kept, "restamped": expiry.restamped}
        return row | {"expired": "failed", "kept": str(expiry)}

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        swept = asdict(self.sweep) if isinstance(self.sweep, SweepResult) else {"error": str(self.sweep)}
        return {"tenant": self.tenant, "tables": self.rows(), "sweep": swept}

    def raise_if_failed(self) -> None:
        """DataQualityError naming every step that failed; the others have done their work."""
        if self.failures:
            raise DataQualityError(f"maintenance of {self.tenant}: " + "; ".join(self.failures))


async def maintain(run: TenantMaintenance, tables: Sequence[str] | None) -> MaintenanceSummary:
    """Compact and expire each table (those of raw can be chosen by name), then sweep; a table at a time.

    ConfigurationError when the lake has no table of a name; what else fails is in the summary.
    """
    found = await asyncio.to_thread(run.tables)
    unknown = sorted(set(tables or ()) - {identifier[1] for identifier in found})
    if unknown:
        raise ConfigurationError(Problem(run.tenant.file, "tables", f"the lake has no table {', '.join(unknown)}"))
    chosen = [identifier for identifier in found if tables is None or identifier[1] in tables]
    compactions: dict[str, CompactionResult | MozartError] = {}
    expiries: dict[str, ExpiryResult | MozartError] = {}
    for identifier in chosen:
        name = ".".join(identifier)
        compactions[name] = await _outcome(compact, CompactionResult, run, name, identifier)
        expiries[name] = await _outcome(expire, ExpiryResult, run, name, identifier)
    swept = await _outcome(sweep, SweepResult, run, run.tenant.id)
    return MaintenanceSummary(run.tenant.id, compactions, expiries, swept)


async def _outcome(step_task: Task[..., Any], kind: type[R], *parameters: Any) -> R | MozartError:
    """A step's result, or the error in its final state."""
    answer: Any = step_task(*parameters, return_state=True)
    state = await answer
    outcome = await state.aresult(raise_on_failure=False)
    return outcome if isinstance(outcome, (kind, MozartError)) else MozartError(str(outcome or state.message))


async def report_maintenance(summary: MaintenanceSummary) -> None:
    """The run's artifacts: a table of tables, and what the sweep found."""
    key = summary.tenant.replace("_", "-")
    await acreate_table_artifact(summary.rows(), key=f"{key}-maintenance", description=f"Tables of {summary.tenant}")
    await acreate_markdown_artifact(
        _sweep_page(summary), key=f"{key}-sweep", description=f"Files of {summary.tenant} that nothing reaches"
    )


def _sweep_page(summary: MaintenanceSummary) -> str:
    swept = summary.sweep
    lines = [f"# {summary.tenant}", ""]
    if isinstance(swept, SweepResult):
        lines += [swept.line, "", f"{swept.young} files are younger than the grace period."]
        lines += ["", *(f"- `{path}`" for path in swept.examples)]
        lines += ["", *(f"- {note}" for note in swept.notes)]
    if summary.failures:
        lines += ["", "## Failed", "", *(f"- {failure}" for failure in summary.failures)]
    return "\n".join(lines)


# -- the delete pass --------------------------------------------------------------------------------------------------


@step("open {tenant}")
async def open_delete_pass(tenant: str, tables: tuple[str, ...] | None, options: DeleteOptions) -> TenantDeletePass:
    """Read the tenant's file and blocks."""
    settings = load_settings()
    description = await asyncio.to_thread(load_tenant, settings.tenants_folder / tenant)
    place = await load_place(tenant, settings.suffix)
    return TenantDeletePass(description, place, options, _run_id(), settings.state, tables=tables)


@step("deletes {request.name}")
async def remove_deleted(run: TenantDeletePass, request: LoadRequest) -> DeleteResult:
    """Take from one raw table what is gone at the source."""
    log = get_run_logger()
    async with concurrency(names.source_limit(request.tenant), occupy=1, strict=False):
        result = await asyncio.to_thread(run.remove_deleted, request, log.info)
    log.info(result.line)
    return result


async def remove_all_deleted(run: TenantDeletePass) -> dict[str, DeleteResult | MozartError]:
    """The pass over every table of the run, some at once; a table that fails is in the answer with its error."""
    slots = asyncio.Semaphore(TABLES_AT_ONCE)

    async def remove_one(request: LoadRequest) -> DeleteResult | MozartError:
        async with slots:
            return await _outcome(remove_deleted, DeleteResult, run, request)

    outcomes = await asyncio.gather(*(remove_one(request) for request in run.requests))
    return {request.spec.name: outcome for request, outcome in zip(run.requests, outcomes, strict=True)}


async def report_deletes(tenant: str, outcomes: Mapping[str, DeleteResult | MozartError]) -> list[dict[str, Any]]:
    """The run's artifact; its rows are the answer. DataQualityError naming every table that failed."""
    rows = [
        asdict(outcome)
        if isinstance(outcome, DeleteResult)
        else {"table": f"{tenant}.{name}", "status": "failed", "reason": str(outcome)}
        for name, outcome in outcomes.items()
    ]
    await acreate_table_artifact(
        rows, key=f"{tenant.replace('_', '-')}-deletes", description=f"Rows of {tenant} that are gone at the source"
    )
    failed = [str(outcome) for outcome in outcomes.values() if isinstance(outcome, MozartError)]
    if failed:
        raise DataQualityError(f"tenant {tenant}: {len(failed)} delete passes failed:\n" + "\n".join(failed))
    return rows


def _run_id() -> str:
    return str(flow_run.get_id() or "local")
