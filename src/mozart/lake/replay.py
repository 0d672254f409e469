"""A raw table as an older snapshot had it, as a new commit: nothing is rolled back, and nothing of the history is lost.

The snapshot's rows are copied into new files and put in the place of what is there, in one `replace`, with the commit
record that was in force at that snapshot: its watermark comes back with its rows, so that the next incremental load
reads again whatever the source changed since. Columns that raw got later read NULL; columns that it has lost since
stay away. The copy is compared with the snapshot before it is committed.

A rollback of the table's branch would do the same to the rows; but the snapshots after it would leave the history that
expiry and the commit record follow.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from duckdb import DuckDBPyConnection
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from mozart.errors import TerminalError
from mozart.lake import commit
from mozart.lake.catalog_client import translated
from mozart.lake.commit import CommitRecord, Identifier, TableHead
from mozart.lake.digest import EMPTY_DIGEST, digest_rows
from mozart.lake.duckdb_errors import duckdb_translated
from mozart.lake.head import CARRIED_LOAD_ID, visible_rows
from mozart.lake.landing import Landing, discard, duckdb_type, land, scan
from mozart.lake.session import LakeSession
from mozart.sql import quote_identifier, quote_qualified

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SnapshotEntry:
    """One snapshot of a table's history, newest first. `mode`, `watermark` and `load_id` are those of its commit
    record; empty or None where another writer made it. `rows` is None where that writer did not count them."""

    snapshot_id: int
    made_at: datetime
    mode: str
    rows: int | None
    watermark: str | None
    load_id: str | None


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did: rows before and after, the watermark that is in force again, and the new snapshot (None: a
    dry run)."""

    table: str
    from_snapshot: int
    rows_before: int
    rows_after: int
    watermark: str | None
    snapshot_id: int | None


def table_history(lake: LakeSession, identifier: Identifier) -> tuple[SnapshotEntry, ...]:
    """The snapshots that a table can still be replayed from. Empty when there is no table."""
    table = commit.read_head(lake.catalog, identifier).table
    return tuple(_entry(snapshot) for snapshot in _ancestry(table)) if table is not None else ()


def replay_table(
    lake: LakeSession,
    identifier: Identifier,
    snapshot_id: int,
    run_id: str,
    progress: Progress = lambda _line: None,
    *,
    dry_run: bool = False,
) -> ReplayResult:
    """Make the table hold the rows of one of its snapshots.

    Raises TerminalError when the snapshot is none of the table's history or the copy differs from it, otherwise as
    `mozart.lake.commit.replace`; the table then is as it was.
    """
    head = commit.read_head(lake.catalog, identifier)
    if head.table is None or head.snapshot_id is None:
        raise TerminalError(f"{head.name} has no rows to replay; load it")
    snapshot = next((found for found in _ancestry(head.table) if found.snapshot_id == snapshot_id), None)
    if snapshot is None:
        raise TerminalError(
            f"{head.name}: snapshot {snapshot_id} is not in its history, or has expired; "
            "`mozart table history` lists those that are"
        )
    record = _record_at(head.table, snapshot)
    with translated(f"replaying {head.name}"), duckdb_translated(f"replaying {head.name}"):
        before, after = (_count(lake, head, number) for number in (head.snapshot_id, snapshot_id))
        result = ReplayResult(head.name, snapshot_id, before, after, record.watermark if record else None, None)
        if dry_run:
            return result
        progress(f"copying {after} rows of snapshot {snapshot_id}")
        landing = _copy(lake, head, head.table, snapshot)
        outcome = commit.replace(
            lake.catalog, head, head.table.schema(), landing.files, _new_record(record, snapshot_id, after, run_id)
        )
    return replace(result, snapshot_id=outcome.snapshot_id)


def _ancestry(table: Table) -> Iterator[Snapshot]:
    return iter(ancestors_of(table.current_snapshot(), table.metadata))


def _entry(snapshot: Snapshot) -> SnapshotEntry:
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    record = CommitRecord.from_properties(properties)
    return SnapshotEntry(
        snapshot_id=snapshot.snapshot_id,
        made_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        mode=record.mode if record else "",
        rows=visible_rows(snapshot),
        watermark=record.watermark if record else None,
        load_id=record.load_id if record else None,
    )


def _record_at(table: Table, snapshot: Snapshot) -> CommitRecord | None:
    """The record that was in force at the snapshot: its own, or that of its newest ancestor that has one."""
    records = (
        CommitRecord.from_properties(found.summary.additional_properties if found.summary else {})
        for found in ancestors_of(snapshot, table.metadata)
    )
    return next((record for record in records if record is not None), None)


def _new_record(record: CommitRecord | None, snapshot_id: int, rows: int, run_id: str) -> CommitRecord:
    load_id, source = secrets.token_hex(16), {"replayed_from": str(snapshot_id)}
    if record is None:
        # Without the columns' detail the next load reads in full.
        return CommitRecord(load_id, None, None, rows, run_id, "replay", source)
    details = {key: text for key, text in record.details.items() if key != CARRIED_LOAD_ID}
    return replace(record, load_id=load_id, rows=rows, run_id=run_id, mode="replay", details={**details, **source})


def _copy(lake: LakeSession, head: TableHead, table: Table, snapshot: Snapshot) -> Landing:
    """The snapshot's rows in new files of today's columns, compared with the snapshot."""
    cursor = lake.cursor()
    folder = f"{lake.lakehouse.landing_uri}/{head.identifier[1]}/{secrets.token_hex(16)}"
    names = [field.name for field in table.schema().fields]
    then = _rows_then(head, table, snapshot)
    try:
        landing = land(cursor, then, table.schema(), names, folder=folder, io=lake.io(folder))
        written = digest_rows(cursor, scan(landing), names) if landing.files else EMPTY_DIGEST
        if written != digest_rows(cursor, then, names):
            discard(landing, lake.io(folder))
            raise TerminalError(
                f"{head.name}: the copy of snapshot {snapshot.snapshot_id} differs from it; report this"
            )
    finally:
        cursor.close()
    return landing


def _rows_then(head: TableHead, table: Table, snapshot: Snapshot) -> str:
    """A FROM item: the snapshot's rows under today's columns, by field id; what came later is NULL."""
    schemas = {schema.schema_id: schema for schema in table.metadata.schemas}
    schema = schemas.get(snapshot.schema_id if snapshot.schema_id is not None else -1, table.schema())
    was = {field.field_id: field.name for field in schema.fields}
    columns = ", ".join(
        f"{quote_identifier(was[field.field_id]) if field.field_id in was else 'NULL'}"
        f"::{duckdb_type(field.field_type)} AS {quote_identifier(field.name)}"
        for field in table.schema().fields
    )
    return f"(SELECT {columns} FROM {_at(head, snapshot.snapshot_id)})"


def _at(head: TableHead, snapshot_id: int) -> str:
    return f"{quote_qualified('lake', *head.identifier)} AT (VERSION => {snapshot_id})"


def _count(lake: LakeSession, head: TableHead, snapshot_id: int) -> int:
    cursor: DuckDBPyConnection = lake.cursor()
    try:
        return int(cursor.execute(f"SELECT count(*) FROM {_at(head, snapshot_id)}").fetchall()[0][0])
    finally:
        cursor.close()
