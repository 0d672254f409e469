"""Compaction: a table's many small files and its position deletes become few files with the same rows.

Two forms, each one commit with the record carried forward: watermark, details and a published fingerprint stay, the
rows do not change (counted by the commit, and compared by digest before it). A *fold* (`mozart.lake.fold`) takes the
small files alone and costs by them; the *rewriting* of the whole table is a `COPY` of the head's snapshot and a
`replace`, and costs by the table. The old files stay until no snapshot needs them (`mozart.lake.expiry`, then
`mozart.lake.sweep`).

Never in a writer's way: the commit lands only on the head that was read. When a load was first, the compaction is
dropped, not tried again; a load that was planned before a compaction conflicts and plans again.

What is due follows the cost. Deletes are read with every scan, so more than a twentieth of the rows is too many: all is
rewritten, in proportion to the loads that made it due. A file costs a reader a few milliseconds whatever it holds, so
a handful of small ones is folded. A fold writes all position deletes again; so what is borne grows with them.

Does not touch: tables that are partitioned, not of format version 2, or that hold equality deletes (all made by
others), and tables whose columns were changed since the last commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError, TransientError
from mozart.lake import commit, fold
from mozart.lake.catalog_client import describe, translated
from mozart.lake.commit import CommitOutcome, CommitRecord, Identifier, TableHead
from mozart.lake.digest import EMPTY_DIGEST, digest_rows
from mozart.lake.head import has_foreign_rows
from mozart.lake.landing import Landing, discard, land, scan
from mozart.lake.session import LakeSession, bounded_session
from mozart.lake.snapshots import LiveFiles, is_parquet, read_live_files
from mozart.sql import quote_literal, quote_qualified

CompactionStatus = Literal["compacted", "not due", "skipped", "planned"]
Progress = Callable[[str], None]

_MEMORY_FOR_WIDE_ROWS = "1GB"
"""What DuckDB may use when a copy does not fit into the session's own limit."""

_FOLD_BYTES = 32 * 1024 * 1024
"""A fold of more than this is computed within the limits of a compaction."""


@dataclass(frozen=True)
class CompactionPolicy:
    """When a table is due.

    All of it, when more than `deleted_share` of the rows in data files are marked deleted, and more than `deleted_rows`
    of them. Its small files, when more than `small_files` of them or more than `delete_files` are there; one more of
    each is borne for every `rows_per_file` rows marked deleted. `small_bytes`: from here on a data file is never small.
    """

    small_files: int = 4
    delete_files: int = 4
    rows_per_file: int = 50_000
    deleted_share: float = 0.05
    deleted_rows: int = 10_000
    small_bytes: int = 32 * 1024 * 1024


DEFAULT_POLICY = CompactionPolicy()


@dataclass(frozen=True)
class TableFiles:
    """The live files of a snapshot, counted. `rows` are those in data files, `deleted_rows` those marked deleted.

    `small_files` are those that a fold would take.
    """

    data_files: int = 0
    small_files: int = 0
    delete_files: int = 0
    equality_files: int = 0
    rows: int = 0
    deleted_rows: int = 0
    size: int = 0


@dataclass(frozen=True)
class CompactionResult:
    """What became of one table. `after_files` and `after_size` (bytes), 0 unless it was compacted, are what it consists
    of then; a fold left the large ones of them as they were."""

    table: str
    status: CompactionStatus
    reason: str
    before: TableFiles
    after_files: int = 0
    after_size: int = 0
    snapshot_id: int | None = None

    @property
    def line(self) -> str:
        """One line for a log: files and bytes, not what they hold."""
        counts = f"{self.before.data_files} data and {self.before.delete_files} delete files, {self.before.size} bytes"
        after = f" → {self.after_files} files, {self.after_size} bytes" if self.status == "compacted" else ""
        return f"{self.table} {self.status} ({self.reason}): {counts}{after}"


def compact_table(
    lake: LakeSession,
    identifier: Identifier,
    *,
    run_id: str,
    policy: CompactionPolicy | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda _line: None,
) -> CompactionResult:
    """Compact a table when it is due, or, with `force`, whenever it has more than one file or any delete.

    `skipped` when another writer was first or the table is not for us. Raises TransientError when the store or the
    catalog fails, TerminalError when the copy does not hold the same rows; the table then is as it was.
    """
    head = commit.read_head(lake.catalog, identifier)
    snapshot = head.table.current_snapshot() if head.table else None
    if head.table is None or snapshot is None:
        return CompactionResult(head.name, "not due", "the table is empty", TableFiles())
    return compact_head(
        lake, head, run_id=run_id, policy=policy or DEFAULT_POLICY, force=force, dry_run=dry_run, progress=progress
    )


def compact_after_load(
    lake: LakeSession, identifier: Identifier, *, run_id: str, policy: CompactionPolicy, progress: Progress
) -> CompactionResult | None:
    """Compact a table that a load has just committed, when it is due. Never raises: the load has done its work.

    None when nothing was due; what kept it from compacting is told by `progress`.
    """
    try:
        head = commit.read_head(lake.catalog, identifier)
        if not may_be_due(head, policy):
            return None
        result = compact_head(lake, head, run_id=run_id, policy=policy, progress=progress)
    except Exception as error:  # noqa: BLE001 - the rows are committed: nothing may make this load a failed one
        progress(f"the load is committed; compacting {'.'.join(identifier)} was left to the next: {describe(error)}")
        return None
    if result.status != "not due":
        progress(result.line)
    return result


def may_be_due(head: TableHead, policy: CompactionPolicy) -> bool:
    """Whether the summaries of the head and its history give reason to look at its manifests; costs nothing."""
    if head.table is None or head.snapshot_id is None:
        return False
    counts = _totals(head.table.current_snapshot())
    if counts is None:
        return True  # a foreign writer left them out: look
    files, deletes, rows, deleted = counts
    if _is_mostly_deleted(rows, deleted, policy):
        return True
    # one file may be what is left of small ones before
    small = 1 + max(0, files - _files_written_at_once(head.table))
    return _are_many(small, deletes, deleted, policy)


def _totals(snapshot: Snapshot | None) -> tuple[int, int, int, int] | None:
    """Data files, delete files, rows in data files, rows marked deleted, as the summary says; None if it does not."""
    properties = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    try:
        files, deletes, rows, deleted = (
            int(properties[f"total-{what}"]) for what in ("data-files", "delete-files", "records", "position-deletes")
        )
    except (KeyError, ValueError):
        return None
    return files, deletes, rows, deleted


def _files_written_at_once(table: Table) -> int:
    """The data files right after the newest commit that wrote them together: a compaction or a full refresh; else 0."""
    for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
        record = CommitRecord.from_properties(snapshot.summary.additional_properties) if snapshot.summary else None
        if record is not None and record.mode in ("maintenance", "full_refresh", "publish"):
            counts = _totals(snapshot)
            return counts[0] if counts else 0
    return 0


def reason_to_rewrite(files: TableFiles, policy: CompactionPolicy) -> str | None:
    """Why all of a table with these files is due; None when it is not."""
    if _is_mostly_deleted(files.rows, files.deleted_rows, policy):
        return f"{files.deleted_rows} of {files.rows} rows are marked deleted"
    return None


def reason_to_fold(files: TableFiles, policy: CompactionPolicy) -> str | None:
    """Why the small files of a table with these files are due; None when they are not."""
    if not _are_many(files.small_files, files.delete_files, files.deleted_rows, policy):
        return None
    return f"{files.small_files} small data files, {files.delete_files} delete files"


def _is_mostly_deleted(rows: int, deleted: int, policy: CompactionPolicy) -> bool:
    return deleted > max(rows * policy.deleted_share, policy.deleted_rows)


def _are_many(small: int, deletes: int, deleted_rows: int, policy: CompactionPolicy) -> bool:
    borne = deleted_rows // policy.rows_per_file
    # a single small file without a delete has nothing to be joined with
    return (small > max(policy.small_files, borne) and small + deletes > 1) or deletes > max(policy.delete_files, borne)


@dataclass(frozen=True)
class _Live:
    """The live files of a snapshot, and those data files among them that a fold would take."""

    seen: LiveFiles
    data: tuple[DataFile, ...]
    positions: tuple[DataFile, ...]
    others: tuple[DataFile, ...]
    small: tuple[DataFile, ...]

    @property
    def counts(self) -> TableFiles:
        files = (*self.data, *self.positions, *self.others)
        return TableFiles(
            data_files=len(self.data),
            small_files=len(self.small),
            delete_files=len(files) - len(self.data),
            equality_files=len(self.others),
            rows=_rows(self.data),
            deleted_rows=_rows(self.positions),
            size=_size(files),
        )

    @property
    def is_all_small(self) -> bool:
        return len(self.small) == len(self.data)


def _read_files(table: Table, snapshot: Snapshot, policy: CompactionPolicy) -> _Live:
    """The live files of `snapshot`, read from its manifests."""
    with translated(f"reading the manifests of {'.'.join(table.name())}"):
        seen = read_live_files(table.io, snapshot)
    files = seen.files
    data, positions = (
        tuple(file for file in files if file.content == content)
        for content in (DataFileContent.DATA, DataFileContent.POSITION_DELETES)
    )
    others = tuple(file for file in files if file.content == DataFileContent.EQUALITY_DELETES)
    return _Live(seen, data, positions, others, fold.choose(data, policy.small_bytes))


def _rows(files: Iterable[DataFile]) -> int:
    return sum(file.record_count for file in files)


def _size(files: Iterable[DataFile]) -> int:
    return sum(file.file_size_in_bytes for file in files)


def compact_head(
    lake: LakeSession,
    head: TableHead,
    *,
    run_id: str,
    policy: CompactionPolicy,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda _line: None,
) -> CompactionResult:
    """As `compact_table`, on a head that was read already and has a snapshot."""
    table = head.table
    snapshot = table.current_snapshot() if table else None
    if table is None or snapshot is None:
        raise ValueError(f"{head.name} has no snapshot")
    live = _read_files(table, snapshot, policy)
    before = live.counts
    whole, part = reason_to_rewrite(before, policy), reason_to_fold(before, policy)
    if force and (before.data_files > 1 or before.delete_files):
        whole = whole or "asked for"
    reason = whole or part
    if reason is None:
        return CompactionResult(head.name, "not due", "few files, few deletes", before)
    hindrance = _hindrance(table, snapshot, live)
    if hindrance:
        return CompactionResult(head.name, "skipped", hindrance, before)
    if dry_run:
        return CompactionResult(head.name, "planned", reason, before)
    progress(f"compacting {head.name}: {reason}")
    # small files that are all there is: to fold them is to rewrite the table
    task = _Task(head, table, run_id, CompactionResult(head.name, "compacted", reason, before))
    return _rewrite(lake, task) if whole or live.is_all_small else _fold(lake, task, live)


def _hindrance(table: Table, snapshot: Snapshot, live: _Live) -> str | None:
    metadata = table.metadata
    if metadata.format_version != 2 or not all(spec.is_unpartitioned() for spec in metadata.partition_specs):
        return "it is or was partitioned or is not of format version 2: made by others"
    if live.others:
        return "it has equality deletes of another writer"
    if not all(is_parquet(file) for file in live.seen.files):
        return "it has files of another writer that are not Parquet"
    if snapshot.schema_id is not None and snapshot.schema_id != metadata.current_schema_id:
        return "its columns were changed since the last commit; the next load writes them"
    return None


@dataclass(frozen=True)
class _Task:
    """One compaction: of which head, and its result if all goes well but for what it has written."""

    head: TableHead
    table: Table
    run_id: str
    result: CompactionResult
    load_id: str = field(default_factory=lambda: secrets.token_hex(16))

    def folder(self, lake: LakeSession) -> str:
        return f"{lake.lakehouse.landing_uri}/{self.head.identifier[1]}/{self.load_id}"


def _rewrite(lake: LakeSession, task: _Task) -> CompactionResult:
    """All rows into new files."""
    with _translated(task.head), bounded_session(lake) as session:
        landing = _copy(session, task)
    return _send(
        task,
        lambda record: commit.replace(lake.catalog, task.head, task.table.schema(), landing.files, record),
        len(landing.files),
        landing.size,
    )


def _fold(lake: LakeSession, task: _Task, live: _Live) -> CompactionResult:
    """The small files and all position deletes into one of each; the other data files stay."""
    folded = (*live.small, *live.positions)
    paths = [file.file_path for file in live.small]
    stays = [file for file in live.data if file.file_path not in set(paths)]
    # what loads left in a few merges needs no memory of its own; a backlog might
    bounded = bounded_session(lake) if _size(folded) > _FOLD_BYTES else nullcontext(lake)
    with _translated(task.head), bounded as session:
        cursor, folder = session.cursor(), task.folder(session)
        written = fold.write(
            cursor, task.head, live.small, live.positions, stays=stays, folder=folder, io=session.io(folder)
        )
        cursor.close()
    return _send(
        task,
        lambda record: commit.fold(
            lake.catalog, task.head, written.landing.files, written.deletes, paths, record, seen=live.seen
        ),
        len(stays) + written.file_count,
        task.result.before.size - _size(folded) + written.size,
    )


def _send(task: _Task, commit_it: Callable[[CommitRecord], CommitOutcome], files: int, size: int) -> CompactionResult:
    try:
        outcome = commit_it(_record(task.head, task.load_id, task.run_id))
    except CommitConflictError:
        # the files are left to the sweep, as after every commit that was sent
        return replace(task.result, status="skipped", reason="another writer was first")
    except CommitInDoubtError as error:
        return replace(task.result, status="skipped", reason=f"whether it was committed is unknown: {error}")
    return replace(task.result, after_files=files, after_size=size, snapshot_id=outcome.snapshot_id)


def _record(head: TableHead, load_id: str, run_id: str) -> CommitRecord:
    if head.record is None:
        return CommitRecord(load_id, None, None, 0, run_id, "maintenance")
    return head.record.carry_forward(load_id=load_id, run_id=run_id, rows_changed=has_foreign_rows(head))


@contextmanager
def _translated(head: TableHead) -> Generator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise TransientError(f"compacting {head.name}: {describe(error)}; nothing was committed") from error
    except duckdb.Error as error:
        raise TerminalError(f"compacting {head.name}: {describe(error)}; nothing was committed") from error


def _copy(lake: LakeSession, task: _Task) -> Landing:
    """The head's rows in new files, compared with the head before anything is committed."""
    cursor = lake.cursor()
    try:
        return _copy_once(lake, cursor, task)
    except duckdb.OutOfMemoryException:
        # A row group of very wide rows. What was written is nobody's, and the sweep's.
        cursor.execute(f"SET memory_limit = {quote_literal(_MEMORY_FOR_WIDE_ROWS)}")
        return _copy_once(lake, cursor, task)
    finally:
        cursor.close()


def _copy_once(lake: LakeSession, cursor: DuckDBPyConnection, task: _Task) -> Landing:
    head, schema, folder = task.head, task.table.schema(), task.folder(lake)
    names = [column.name for column in schema.fields]
    now = f"(SELECT * FROM {quote_qualified('lake', *head.identifier)} AT (VERSION => {head.snapshot_id}))"
    io = lake.io(folder)
    landing = land(cursor, now, schema, names, folder=folder, io=io)
    written = digest_rows(cursor, scan(landing), names) if landing.files else EMPTY_DIGEST
    expected = digest_rows(cursor, now, names)
    if written != expected:
        discard(landing, io)
        raise TerminalError(
            f"compacting {head.name}: the copy holds other rows ({written[0]}) than snapshot {head.snapshot_id} "
            f"({expected[0]}); nothing was committed: report it, and do not compact this table"
        )
    return landing
