"""Maintenance of tables by Trino: optimize, expire, orphans, statistics; beside loads, and without losing a record.

What is due, how long snapshots and files stay and what is reported is the same as on the embedded engine
(`mozart.lake.maintenance.TableUpkeep`); Trino does the work, on all its workers.

The commit record of a table stands in the summary of a snapshot. Trino's own snapshots have none, and its
`expire_snapshots` looks at age alone. So whatever Trino commits is restamped by a commit of ours before anything is
expired, and the age that it is told spares also the snapshots that stay for their number. A load that commits meanwhile
carries its own record. Trino gives way to a load that was first (`skipped`), and a load that was second plans again, as
after any other writer.

`remove_orphan_files` cleans the table's own folder only. Landed files lie elsewhere: they stay the affair of
`mozart.lake.sweep`, which runs on every engine. Needs the operator's login: raw is read-only for tenants.
Pitfall: Trino refuses a retention below its own `ICEBERG_MIN_RETENTION`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from pyiceberg.catalog import Catalog
from pyiceberg.table.metadata import TableMetadata

from mozart.engine.trino_client import TrinoAddress, TrinoSession, open_trino, retrying
from mozart.errors import CommitConflictError, TransientError
from mozart.lake.commit import Identifier, TableHead, read_head, restamp
from mozart.lake.compaction import CompactionPolicy, CompactionResult, compact_table
from mozart.lake.expiry import ExpiryPolicy, ExpiryResult, plan_expiry
from mozart.lake.session import LakeSession
from mozart.sql import quote_qualified

Progress = Callable[[str], None]

LEAST_RETENTION = timedelta(hours=1)
"""Below it a running load could lose files that it has not committed yet, a reader the snapshot that it reads."""
_STAMP_ATTEMPTS = 5


class TrinoUpkeep:
    """The distributed engine's way to keep a table small (see `mozart.lake.maintenance.TableUpkeep`).

    `address` is the operator's; a connection is made for each table.
    """

    def __init__(self, address: TrinoAddress) -> None:
        self._address = address

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
        """Optimize a table that is due, and give Trino its statistics anew.

        A table that is not due gets statistics when it has none. Raises TransientError or TerminalError when Trino, the
        catalog or the store refuse; the table has its rows and its record in any case.
        """
        plan = partial(compact_table, lake, identifier, run_id=run_id, policy=policy, dry_run=True)
        result = plan(force=force)
        if dry_run:
            return result
        if result.status != "planned":
            if _lacks_statistics(read_head(lake.catalog, identifier)):
                self._analyze(identifier)
            return result
        progress(f"Trino optimizes {result.table}: {result.reason}")
        try:
            self._optimize(lake.catalog, identifier, run_id)
        except CommitConflictError as error:
            return replace(result, status="skipped", reason=str(error))
        self._analyze(identifier)
        after = plan().before
        head = read_head(lake.catalog, identifier)
        return replace(
            result,
            status="compacted",
            after_files=after.data_files + after.delete_files,
            after_size=after.size,
            snapshot_id=head.snapshot_id,
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
        """Forget old snapshots, with the files that only they need, and remove orphans older than `grace`.

        Errors as for `compact`.
        """
        head = read_head(catalog, identifier)
        if head.table is None:
            return ExpiryResult(head.name, 0, 0)
        now, total = datetime.now(UTC), len(head.table.metadata.snapshots)
        going = plan_expiry(head.table.metadata, policy, now)
        if dry_run:
            return ExpiryResult(head.name, len(going), total - len(going))
        is_restamped = False
        try:
            if going:
                is_restamped = keep_record(catalog, identifier, run_id)
                age = _retention(head.table.metadata, policy, now)
                self._execute(identifier, f"EXECUTE expire_snapshots(retention_threshold => '{_seconds(age)}s')")
            orphans = max(grace, LEAST_RETENTION)
            self._execute(identifier, f"EXECUTE remove_orphan_files(retention_threshold => '{_seconds(orphans)}s')")
        except CommitConflictError as error:
            return ExpiryResult(head.name, 0, total, is_restamped, str(error))
        left = read_head(catalog, identifier).table
        kept = len(left.metadata.snapshots) if left else 0
        return ExpiryResult(head.name, max(0, total + is_restamped - kept), kept, is_restamped)

    def _optimize(self, catalog: Catalog, identifier: Identifier, run_id: str) -> None:
        try:
            with open_trino(self._address) as session:
                session.execute(f"ALTER TABLE {self._name(identifier)} EXECUTE optimize")
        except TransientError as error:
            if "ICEBERG_COMMIT_ERROR" in str(error):
                raise CommitConflictError("another writer was first") from error
            raise
        keep_record(catalog, identifier, run_id)

    def _analyze(self, identifier: Identifier) -> None:
        with open_trino(self._address) as session:
            retrying(lambda: session.execute(f"ANALYZE {self._name(identifier)}"))

    def _execute(self, identifier: Identifier, action: str) -> None:
        with open_trino(self._address) as session:
            _retried(session, f"ALTER TABLE {self._name(identifier)} {action}")

    def _name(self, identifier: Identifier) -> str:
        return quote_qualified(self._address.catalog, *identifier)


def keep_record(catalog: Catalog, identifier: Identifier, run_id: str) -> bool:
    """Restamp until the head is ours or another commit with a record; whether it had to be.

    Raises CommitConflictError when others keep winning.
    """
    for attempt in range(1, _STAMP_ATTEMPTS + 1):
        head = read_head(catalog, identifier)
        if head.record is None or not head.is_foreign:
            return False
        try:
            restamp(catalog, head, run_id=run_id)
        except CommitConflictError:
            if attempt == _STAMP_ATTEMPTS:
                raise
        else:
            return True
    return False


def _lacks_statistics(head: TableHead) -> bool:
    return head.table is not None and head.snapshot_id is not None and not head.table.metadata.statistics


def _retention(metadata: TableMetadata, policy: ExpiryPolicy, now: datetime) -> timedelta:
    """The age that spares what `policy` keeps: what is younger than its age, and the newest by number.

    An hour more than the latter need: Trino counts from the moment at which it works on the statement.
    """
    newest = sorted((snapshot.timestamp_ms for snapshot in metadata.snapshots), reverse=True)[: policy.snapshots]
    oldest_kept = datetime.fromtimestamp(min(newest) / 1000, UTC)
    return max(policy.age, now - oldest_kept + LEAST_RETENTION)


def _retried(session: TrinoSession, sql: str) -> None:
    retrying(lambda: session.execute(sql))


def _seconds(age: timedelta) -> int:
    return math.ceil(age.total_seconds())
