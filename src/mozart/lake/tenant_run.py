"""One run of one tenant, opened: its source in one snapshot, its lake, and a load request for each table.

Everything a run needs is decided here, before anything is read: which tables, which filters, which namespaces. A table
name that the tenant does not have is refused with the names it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mozart.connectors.base import SourceConnection, SourceReader
from mozart.connectors.registry import create_connector
from mozart.errors import ConfigurationError, Problem
from mozart.lake.catalog_client import translated
from mozart.lake.commit import Identifier
from mozart.lake.compaction import DEFAULT_POLICY, CompactionResult, compact_after_load
from mozart.lake.extract import OnRows
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import LoadResult, Progress, load_table
from mozart.lake.load_plan import LoadRequest
from mozart.lake.session import COMPACTION_MEMORY, LakeSession, open_lake
from mozart.tenancy.model import TableSpec, Tenant
from mozart.tenancy.names import Namespaces


@dataclass(frozen=True)
class RunOptions:
    """What the operator asked of this run. `tables` None means all; `since`/`until` ask for a backfill of a window."""

    tables: tuple[str, ...] | None = None
    full_refresh: bool = False
    since: str | None = None
    until: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class TenantPlace:
    """Where a tenant's data comes from and goes to, with credentials; what the blocks hold."""

    connection: SourceConnection
    params: Mapping[str, str]
    lakehouse: Lakehouse
    namespaces: Namespaces


class TenantRun:
    """A run's open ends. Use as a context manager; tables may be loaded from several threads."""

    def __init__(self, tenant: Tenant, place: TenantPlace, options: RunOptions, run_id: str, state: Path) -> None:
        self.tenant = tenant
        self.place = place
        self.options = options
        self.run_id = run_id
        self.requests = load_requests(tenant, place, options, run_id)
        self._state = state
        self._stack = ExitStack()
        self._reader: SourceReader | None = None
        self._lake: LakeSession | None = None
        self._committed: dict[Identifier, None] = {}

    def __enter__(self) -> Self:
        """Open the source and the lake. Raises TransientError or TerminalError naming the one that refuses."""
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _open(self) -> None:
        connector = create_connector(self.place.connection, application=f"mozart/{self.tenant.id}")
        extension_folder = self._state / "extensions"
        self._lake = self._stack.enter_context(
            open_lake(
                self.place.lakehouse,
                scratch=self._state / "scratch" / self.run_id,
                extensions=connector.extensions,
                extension_folder=extension_folder,
            )
        )
        with translated(f"making namespace {self.place.namespaces.raw}"):
            self._lake.catalog.create_namespace_if_not_exists(self.place.namespaces.raw)
        self._reader = self._stack.enter_context(connector.open())
        self._reader.attach(self._lake.connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._reader = self._lake = None
        self._stack.close()

    def load(self, request: LoadRequest, progress: Progress, on_rows: OnRows | None = None) -> LoadResult:
        """Load one table of this run; `on_rows` is told how far a table is whose read takes a while."""
        if self._reader is None or self._lake is None:
            raise RuntimeError("the run is not open")
        result = load_table(request, self._reader, self._lake, progress, on_rows=on_rows, compaction=None)
        if result.status == "committed":
            self._committed[request.namespace, request.spec.name] = None
        return result

    def compact_loaded(self, progress: Progress) -> tuple[CompactionResult, ...]:
        """Compact the tables this run committed whose files have piled up; call it when the last one is loaded.

        The source and its snapshot are let go before, and so is the memory of loading: no table can be loaded after
        it. Never raises for a table; what kept one from compacting is told by `progress`.
        """
        self._close()
        if not self._committed:
            return ()
        scratch = self._state / "scratch" / f"{self.run_id}-compaction"
        with open_lake(self.place.lakehouse, scratch=scratch, memory=COMPACTION_MEMORY, threads=1) as lake:
            results = [
                compact_after_load(lake, table, run_id=self.run_id, policy=DEFAULT_POLICY, progress=progress)
                for table in self._committed
            ]
        return tuple(result for result in results if result is not None)


def load_requests(tenant: Tenant, place: TenantPlace, options: RunOptions, run_id: str) -> tuple[LoadRequest, ...]:
    """One request a table, in the file's order. ConfigurationError for a table or parameter that is not there."""
    return tuple(
        LoadRequest(
            tenant=tenant.id,
            namespace=place.namespaces.raw,
            spec=spec,
            run_id=run_id,
            equals=_equals(tenant, spec, place.params),
            full_refresh=options.full_refresh,
            since=options.since,
            until=options.until,
            dry_run=options.dry_run,
        )
        for spec in _chosen(tenant, options.tables)
    )


def _chosen(tenant: Tenant, names: Sequence[str] | None) -> tuple[TableSpec, ...]:
    if names is None:
        return tenant.tables
    known = {spec.name for spec in tenant.tables}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ConfigurationError(
            Problem(tenant.file, "tables", f"no table {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        )
    return tuple(spec for spec in tenant.tables if spec.name in set(names))


def _equals(tenant: Tenant, spec: TableSpec, params: Mapping[str, str]) -> dict[str, str]:
    if spec.tenant_filter is None:
        return {}
    if spec.tenant_filter.param not in params:
        # Never read without the filter: the rows of another customer would come along.
        raise ConfigurationError(
            Problem(
                tenant.file, f"params.{spec.tenant_filter.param}", "is not in the source's block; run `mozart deploy`"
            )
        )
    return {spec.tenant_filter.column: params[spec.tenant_filter.param]}
