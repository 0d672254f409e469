"""What a run tells people: one line a table and a model, artifacts on the run, and the error that ends it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from mozart.engine.dbt_run import ModelResult
from mozart.errors import DataQualityError, MozartError
from mozart.lake.extract import RowsRead
from mozart.lake.load import LoadResult
from mozart.tenancy.model import Tenant


@dataclass(frozen=True)
class LoadReport:
    """One table of the summary. Rows are counts, `seconds` wall time."""

    table: str
    status: str
    mode: str
    read: int
    landed: int
    committed: int
    replaced: int
    watermark: str
    seconds: float
    reason: str
    window: str = ""
    rows_per_second: int = 0
    warnings: str = ""

    @classmethod
    def of(cls, table: str, outcome: LoadResult | MozartError) -> Self:
        if isinstance(outcome, MozartError):
            return cls(table, "failed", "", 0, 0, 0, 0, "", 0.0, str(outcome))
        return cls(
            table=table,
            status=outcome.status,
            mode=outcome.mode,
            read=outcome.rows_read,
            landed=outcome.rows_landed,
            committed=outcome.rows_committed,
            replaced=outcome.rows_replaced,
            watermark=outcome.watermark or "",
            seconds=outcome.seconds,
            reason=outcome.reason or "",
            window=outcome.window,
            rows_per_second=round(outcome.rows_read / outcome.seconds) if outcome.seconds else 0,
            warnings="; ".join(outcome.warnings),
        )

    @property
    def line(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.table} {self.status}{reason}: read {self.read}, landed {self.landed}, committed {self.committed}, "
            f"replaced {self.replaced} rows in {self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class ModelReport:
    """One model of the summary. `merged_rows`: those of an incremental model's delta, None when it was built whole."""

    model: str
    status: str
    rows: int | None
    merged_rows: int | None
    tests_passed: int
    tests_failed: int
    seconds: float
    reason: str

    @classmethod
    def of(cls, result: ModelResult) -> Self:
        return cls(
            model=result.name,
            status=result.status,
            rows=result.rows,
            merged_rows=result.merged_rows,
            tests_passed=result.tests_passed,
            tests_failed=result.tests_failed,
            seconds=round(result.seconds, 2),
            reason=result.reason or "",
        )


@dataclass(frozen=True)
class RunSummary:
    """A run in figures; what the flow returns and what scripts read."""

    tenant: str
    tables: tuple[LoadReport, ...]
    models: tuple[ModelReport, ...]

    @classmethod
    def of(cls, tenant: Tenant, loads: Mapping[str, LoadResult | MozartError], models: Sequence[ModelResult]) -> Self:
        return cls(
            tenant=tenant.id,
            tables=tuple(LoadReport.of(name, outcome) for name, outcome in loads.items()),
            models=tuple(ModelReport.of(result) for result in models),
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """Every table and model that is not as it should be, with the reason."""
        tables = [
            f"table {self.tenant}.{report.table}: {report.reason}"
            for report in self.tables
            if report.status == "failed"
        ]
        bad = ("failed", "skipped", "blocked")
        models = [
            f"model {report.model} {report.status}: {report.reason}" for report in self.models if report.status in bad
        ]
        return (*tables, *models)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def raise_if_failed(self) -> None:
        """DataQualityError naming everything that failed; the caller has already kept what did not."""
        if self.failures:
            raise DataQualityError(f"tenant {self.tenant}: {len(self.failures)} failed:\n" + "\n".join(self.failures))


class TableProgress:
    """How far one table is whose read takes a while: a progress artifact on the task's run, made with the first figure.

    A table read in one stream is told of when it takes longer than the watch's interval. Figures come from another
    thread and may come faster than the API answers: only the newest is written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, table: str) -> None:
        self._loop = loop
        self._key = f"{re.sub('[^a-z0-9]+', '-', table)}-rows"
        self._newest: RowsRead | None = None
        self._writing: asyncio.Task[None] | None = None
        self._artifact: UUID | None = None
        self._is_long = False

    def take(self, figures: RowsRead) -> None:
        """Called by the load, from its thread."""
        self._is_long = self._is_long or figures.of_parts > 1 or not figures.parts
        if self._is_long:
            self._loop.call_soon_threadsafe(self._put, figures)

    def _put(self, figures: RowsRead) -> None:
        self._newest = figures
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while (figures := self._newest) is not None:
            self._newest = None
            if self._artifact is None:
                self._artifact = await acreate_progress_artifact(
                    figures.percent, key=self._key, description=figures.line
                )
            else:
                await aupdate_progress_artifact(self._artifact, figures.percent, description=figures.line)

    async def settle(self) -> None:
        """Wait until the last figure is written."""
        await asyncio.sleep(0)  # a figure already handed over by the load's thread
        if self._writing is not None:
            await self._writing


class LoadProgress:
    """The share of a run's tables that are done, as a progress artifact on the run."""

    def __init__(self, artifact: UUID, tables: int) -> None:
        self._artifact = artifact
        self._tables = tables
        self._done = 0

    @classmethod
    async def begin(cls, tenant: str, tables: int) -> Self:
        """Put the artifact on the run, at nothing done."""
        artifact = await acreate_progress_artifact(
            0.0, key=f"{tenant.replace('_', '-')}-progress", description=f"Tables of {tenant} loaded, of {tables}"
        )
        return cls(artifact, tables)

    async def advance(self) -> None:
        """One table more is done, well or not."""
        self._done += 1
        await aupdate_progress_artifact(self._artifact, 100.0 * self._done / self._tables)


async def publish_summary(tenant: Tenant, summary: RunSummary) -> None:
    """The run's artifacts: a table of tables, a table of models, and the lineage between them."""
    key = tenant.id.replace("_", "-")
    await acreate_table_artifact(
        [asdict(report) for report in summary.tables],
        key=f"{key}-tables",
        description=_description("Tables", summary.tables),
    )
    if summary.models:
        await acreate_table_artifact(
            [asdict(report) for report in summary.models],
            key=f"{key}-models",
            description=_description("Models", summary.models),
        )
    await acreate_markdown_artifact(_headline(summary), key=f"{key}-summary", description=f"Run of tenant {tenant.id}")


def _description(what: str, reports: Sequence[LoadReport] | Sequence[ModelReport]) -> str:
    counts: dict[str, int] = {}
    for report in reports:
        counts[report.status] = counts.get(report.status, 0) + 1
    return f"{what}: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _headline(summary: RunSummary) -> str:
    read = sum(report.read for report in summary.tables)
    committed = sum(report.committed for report in summary.tables)
    built = sum(report.status == "published" for report in summary.models)
    lines = [
        f"# {summary.tenant}",
        "",
        f"{read} rows read, {committed} rows committed, {built} of {len(summary.models)} models published.",
    ]
    warned = [report for report in summary.tables if report.warnings]
    if warned:
        lines += ["", "## To look at", "", *(f"- {report.table}: {report.warnings}" for report in warned)]
    if summary.failures:
        lines += ["", "## Failed", "", *(f"- {failure}" for failure in summary.failures)]
    return "\n".join(lines)
