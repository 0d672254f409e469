"""Maintenance of one tenant's tables, opened: which tables there are, and what is done to each.

The order is compaction, expiry, sweep: a compaction leaves files that only older snapshots need, expiry forgets those
snapshots, and the sweep deletes what is then reachable from nowhere. Each may run beside loads and at any time; each
is right without the others. The delete pass has a schedule of its own and is opened here for its namespaces and
sessions alike. Knows no Prefect; nothing here commits or deletes by itself.

Compaction and expiry are done by the engine of the project (`TableUpkeep`), the sweep and the delete pass by the same
code on every engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pyiceberg.catalog import Catalog

from mozart.connectors.registry import create_connector
from mozart.lake.commit import Identifier
from mozart.lake.compaction import DEFAULT_POLICY, CompactionPolicy, CompactionResult, compact_table
from mozart.lake.delete_pass import DeleteOptions, DeleteResult, remove_deleted_rows
from mozart.lake.expiry import ExpiryPolicy, ExpiryResult, expire_snapshots
from mozart.lake.load_plan import LoadRequest
from mozart.lake.references import list_tables
from mozart.lake.session import COMPACTION_MEMORY, LakeSession, open_lake
from mozart.lake.sweep import Sweep, SweepPolicy, SweepResult
from mozart.lake.tenant_run import RunOptions, TenantPlace, load_requests
from mozart.tenancy.model import Tenant

Progress = Callable[[str], None]


@dataclass(frozen=True)
class MaintenanceOptions:
    """What the operator asked for. `compact_all`: every table with more than one file, due or not."""

    compact_all: bool = False
    dry_run: bool = False
    compaction: CompactionPolicy = DEFAULT_POLICY
    expiry: ExpiryPolicy = field(default_factory=ExpiryPolicy)
    sweep: SweepPolicy = field(default_factory=SweepPolicy)


class TableUpkeep(Protocol):
    """How an engine keeps one table small, beside loads and without losing its commit record.

    Both raise TransientError or TerminalError when store, catalog or engine refuse; the table then is as it was, or
    holds the same rows in other files.
    """

    def compact(
        self,
        lake: LakeSession,
        identifier: Identifier,
        *,
        run_id: str,
        policy: CompactionPolicy,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress = ...,
    ) -> CompactionResult:
        """Turn many files into few when that is due, or, with `force`, when there is more than one."""
        ...

    def expire(
        self,
        catalog: Catalog,
        identifier: Identifier,
        *,
        run_id: str,
        policy: ExpiryPolicy,
        grace: timedelta,
        dry_run: bool = False,
    ) -> ExpiryResult:
        """Forget the snapshots that `policy` lets go; unneeded files may go when they are older than `grace`."""
        ...


class EmbeddedUpkeep:
    """DuckDB copies, `mozart.lake.commit` commits; files that nobody needs are left to the sweep."""

    def compact(
        self,
        lake: LakeSession,
        identifier: Identifier,
        *,
        run_id: str,
        policy: CompactionPolicy,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress = lambda _line: None,
    ) -> CompactionResult:
        """Compact one table if it is due."""
        return compact_table(
            lake, identifier, run_id=run_id, policy=policy, force=force, dry_run=dry_run, progress=progress
        )

    def expire(
        self,
        catalog: Catalog,
        identifier: Identifier,
        *,
        run_id: str,
        policy: ExpiryPolicy,
        grace: timedelta,
        dry_run: bool = False,
    ) -> ExpiryResult:
        """Forget the old snapshots of one table."""
        return expire_snapshots(catalog, identifier, run_id=run_id, policy=policy, dry_run=dry_run)


class TenantMaintenance:
    """One maintenance run of one tenant. Use as a context manager; its calls may come from several threads."""

    def __init__(
        self,
        tenant: Tenant,
        place: TenantPlace,
        options: MaintenanceOptions,
        run_id: str,
        state: Path,
        *,
        upkeep: TableUpkeep | None = None,
    ) -> None:
        self.tenant = tenant
        self.place = place
        self.options = options
        self.run_id = run_id
        self._state = state
        self._upkeep = upkeep or EmbeddedUpkeep()
        self._stack = ExitStack()
        self._lake: LakeSession | None = None

    def __enter__(self) -> Self:
        """Open the lake. Raises TransientError or TerminalError when it refuses."""
        scratch = self._state / "scratch" / f"{self.run_id}-maintenance"
        self._lake = self._stack.enter_context(
            open_lake(self.place.lakehouse, scratch=scratch, memory=COMPACTION_MEMORY, threads=1)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def lake(self) -> LakeSession:
        """The open session."""
        if self._lake is None:
            raise RuntimeError("the maintenance run is not open")
        return self._lake

    def tables(self) -> tuple[Identifier, ...]:
        """Every table of the tenant: raw, staging and marts, also those its file does not name any more."""
        spaces = (self.place.namespaces.raw, self.place.namespaces.core)
        return tuple(identifier for space in spaces for identifier in list_tables(self.lake.catalog, space))

    def compact(self, identifier: Identifier, progress: Progress) -> CompactionResult:
        """Compact one table if it is due."""
        return self._upkeep.compact(
            self.lake,
            identifier,
            run_id=self.run_id,
            policy=self.options.compaction,
            force=self.options.compact_all,
            dry_run=self.options.dry_run,
            progress=progress,
        )

    def expire(self, identifier: Identifier) -> ExpiryResult:
        """Forget the old snapshots of one table."""
        return self._upkeep.expire(
            self.lake.catalog,
            identifier,
            run_id=self.run_id,
            policy=self.options.expiry,
            grace=self.options.sweep.grace,
            dry_run=self.options.dry_run,
        )

    def sweep(self, progress: Progress) -> SweepResult:
        """Delete what no snapshot of any of the tenant's tables can reach."""
        sweep = Sweep(
            self.place.lakehouse,
            self.lake.catalog,
            self.place.namespaces,
            policy=self.options.sweep,
            progress=progress,
        )
        return sweep.run(dry_run=self.options.dry_run)


class TenantDeletePass:
    """One delete pass over a tenant's tables; each table is compared in a source snapshot and a session of its own."""

    def __init__(
        self,
        tenant: Tenant,
        place: TenantPlace,
        options: DeleteOptions,
        run_id: str,
        state: Path,
        *,
        tables: tuple[str, ...] | None = None,
    ) -> None:
        self.tenant = tenant
        self.place = place
        self.options = options
        self.run_id = run_id
        self.requests = load_requests(tenant, place, RunOptions(tables), run_id)
        self._state = state
        self._connector = create_connector(place.connection, application=f"mozart/{tenant.id}")

    def remove_deleted(self, request: LoadRequest, progress: Progress) -> DeleteResult:
        """Take from one raw table what is gone at the source. Raises as `remove_deleted_rows`."""
        return remove_deleted_rows(request, self._connector, self._session, self.options, progress)

    @contextmanager
    def _session(self) -> Generator[LakeSession]:
        with open_lake(
            self.place.lakehouse,
            scratch=self._state / "scratch" / f"{self.run_id}-{secrets.token_hex(4)}",
            extensions=self._connector.extensions,
            extension_folder=self._state / "extensions",
        ) as lake:
            yield lake
