"""Compaction: a table's many small files and its position deletes become few large files with the same rows.

`COPY` of the head's snapshot into new files, streamed, then one `replace` with the record carried forward: watermark,
details and a published fingerprint stay, the rows do not change (counted by the commit, and compared by digest before
it). The old files stay until no snapshot needs them (`mozart.lake.expiry`, then `mozart.lake.sweep`).

Never in a writer's way: the commit lands only on the head that was read. When a load was first, the compaction is
dropped, not tried again; a load that was planned before a compaction conflicts and plans again.

What is due follows the cost. Deletes are read with every scan, so more than a tenth of the rows is too many. A file
costs a reader a few milliseconds, and rewriting costs by the row; so the number of small files and delete files that
is borne grows with the rows, and rewriting stays in proportion to the loads that made it due.

Does not touch: tables that are partitioned, not of format version 2, or that hold equality deletes (all made by
others), and tables whose columns were changed since the last commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError, TransientError
from mozart.lake import commit
from mozart.lake.catalog_client import describe, translated
from mozart.lake.commit import CommitRecord, Identifier, TableHead
from mozart.lake.digest import EMPTY_DIGEST, digest_rows
from mozart.lake.head import has_foreign_rows
from mozart.lake.landing import Landing, discard, land, scan
from mozart.lake.session import LakeSession
from mozart.sql import quote_literal, quote_qualified

CompactionStatus = Literal["compacted", "not due", "skipped", "planned"]
Progress = Callable[[str], None]

_LARGEST_FILE = "40GB"
"""DuckDB uploads in parts of a 10,000th of the largest file it prepares for, 5 MB at least. At its default of 800 GB
the parts of one file take 80 MB each, several at a time, and not all of it counts against its memory limit."""

_MEMORY_FOR_WIDE_ROWS = "1GB"
"""What DuckDB may use when a copy does not fit into the session's own limit."""


@dataclass(frozen=True)
class CompactionPolicy:
    """When a table is due. `small_bytes`: a data file below it is small. One row stands for `1 / rows_per_file` files
    that are borne where that is more than `small_files` or `delete_files`. `deleted_share` is of the rows in data
    files; fewer than `deleted_rows` of them are no reason by themselves."""

    small_files: int = 32
    delete_files: int = 8
    rows_per_file: int = 50_000
    deleted_share: float = 0.10
    deleted_rows: int = 10_000
    small_bytes: int = 32 * 1024 * 1024


DEFAULT_POLICY = CompactionPolicy()


@dataclass(frozen=True)
class TableFiles:
    """The live files of a snapshot, counted. `rows` are those in data files, `deleted_rows` those marked deleted."""

    data_files: int = 0
    small_files: int = 0
    delete_files: int = 0
    equality_files: int = 0
    rows: int = 0
    deleted_rows: int = 0
    size: int = 0


@dataclass(frozen=True)
class CompactionResult:
    """What became of one table. `after_files` and `after_size` (bytes) are 0 unless it was compacted."""

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
    """Whether the head's summary gives reason to look at its manifests; costs nothing."""
    snapshot = head.table.current_snapshot() if head.table else None
    if snapshot is None:
        return False
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    try:
        files, deletes, rows, deleted = (
            int(properties[f"total-{what}"]) for what in ("data-files", "delete-files", "records", "position-deletes")
        )
    except (KeyError, ValueError):
        return True  # a foreign writer left them out: look
    seen = TableFiles(files, files, deletes, 0, rows, deleted)
    return reason_to_compact(seen, policy) is not None


def reason_to_compact(files: TableFiles, policy: CompactionPolicy) -> str | None:
    """Why a table with these files is due; None when it is not."""
    borne = files.rows // policy.rows_per_file
    if files.deleted_rows > max(files.rows * policy.deleted_share, policy.deleted_rows):
        return f"{files.deleted_rows} of {files.rows} rows are marked deleted"
    if files.delete_files > max(policy.delete_files, borne):
        return f"{files.delete_files} delete files"
    if files.small_files > max(policy.small_files, borne):
        return f"{files.small_files} small data files"
    return None


def count_files(table: Table, snapshot: Snapshot, policy: CompactionPolicy) -> TableFiles:
    """The live files of `snapshot`, read from its manifests."""
    with translated(f"reading the manifests of {'.'.join(table.name())}"):
        files = [
            entry.data_file
            for manifest in snapshot.manifests(table.io)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        ]
    data = [file for file in files if file.content == DataFileContent.DATA]
    positions = [file for file in files if file.content == DataFileContent.POSITION_DELETES]
    return TableFiles(
        data_files=len(data),
        small_files=sum(file.file_size_in_bytes < policy.small_bytes for file in data),
        delete_files=len(files) - len(data),
        equality_files=len(files) - len(data) - len(positions),
        rows=_rows(data),
        deleted_rows=_rows(positions),
        size=sum(file.file_size_in_bytes for file in files),
    )


def _rows(files: list[DataFile]) -> int:
    return sum(file.record_count for file in files)


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
    before = count_files(table, snapshot, policy)
    reason = reason_to_compact(before, policy)
    if reason is None and force and (before.data_files > 1 or before.delete_files):
        reason = "asked for"
    if reason is None:
        return CompactionResult(head.name, "not due", "few files, few deletes", before)
    hindrance = _hindrance(table, snapshot, before)
    if hindrance:
        return CompactionResult(head.name, "skipped", hindrance, before)
    if dry_run:
        return CompactionResult(head.name, "planned", reason, before)
    progress(f"compacting {head.name}: {reason}")
    return _compact(lake, head, table, CompactionResult(head.name, "compacted", reason, before), run_id)


def _hindrance(table: Table, snapshot: Snapshot, files: TableFiles) -> str | None:
    if table.metadata.format_version != 2 or not table.metadata.spec().is_unpartitioned():
        return "it is partitioned or not of format version 2: made by others"
    if files.equality_files:
        return "it has equality deletes of another writer"
    if snapshot.schema_id is not None and snapshot.schema_id != table.metadata.current_schema_id:
        return "its columns were changed since the last commit; the next load writes them"
    return None


def _compact(
    lake: LakeSession, head: TableHead, table: Table, result: CompactionResult, run_id: str
) -> CompactionResult:
    load_id = secrets.token_hex(16)
    folder = f"{lake.lakehouse.landing_uri}/{head.identifier[1]}/{load_id}"
    landing = _copy(lake, head, table, folder)
    record = _record(head, load_id, run_id)
    try:
        outcome = commit.replace(lake.catalog, head, table.schema(), landing.files, record)
    except CommitConflictError:
        # the files are left to the sweep, as after every commit that was sent
        return replace(result, status="skipped", reason="another writer was first")
    except CommitInDoubtError as error:
        return replace(result, status="skipped", reason=f"whether it was committed is unknown: {error}")
    return replace(result, after_files=len(landing.files), after_size=landing.size, snapshot_id=outcome.snapshot_id)


def _record(head: TableHead, load_id: str, run_id: str) -> CommitRecord:
    if head.record is None:
        return CommitRecord(load_id, None, None, 0, run_id, "maintenance")
    return head.record.carry_forward(load_id=load_id, run_id=run_id, rows_changed=has_foreign_rows(head))


def _copy(lake: LakeSession, head: TableHead, table: Table, folder: str) -> Landing:
    """The head's rows in new files, compared with the head before anything is committed."""
    cursor = lake.cursor()
    try:
        try:
            return _copy_once(lake, cursor, head, table, folder)
        except duckdb.OutOfMemoryException:
            # A row group of very wide rows. What was written is nobody's, and the sweep's.
            cursor.execute(f"SET memory_limit = {quote_literal(_MEMORY_FOR_WIDE_ROWS)}")
            return _copy_once(lake, cursor, head, table, folder)
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise TransientError(f"compacting {head.name}: {describe(error)}; nothing was committed") from error
    except duckdb.Error as error:
        raise TerminalError(f"compacting {head.name}: {describe(error)}; nothing was committed") from error
    finally:
        cursor.close()


def _copy_once(lake: LakeSession, cursor: DuckDBPyConnection, head: TableHead, table: Table, folder: str) -> Landing:
    names = [field.name for field in table.schema().fields]
    now = f"(SELECT * FROM {quote_qualified('lake', *head.identifier)} AT (VERSION => {head.snapshot_id}))"
    io = lake.io(folder)
    cursor.execute(f"SET s3_uploader_max_filesize = {quote_literal(_LARGEST_FILE)}")
    landing = land(cursor, now, table.schema(), names, folder=folder, io=io)
    written = digest_rows(cursor, scan(landing), names) if landing.files else EMPTY_DIGEST
    expected = digest_rows(cursor, now, names)
    if written != expected:
        discard(landing, io)
        raise TerminalError(
            f"compacting {head.name}: the copy holds other rows ({written[0]}) than snapshot {head.snapshot_id} "
            f"({expected[0]}); nothing was committed: report it, and do not compact this table"
        )
    return landing
