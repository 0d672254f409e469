"""The one kind of snapshot Mozart writes: data files in, position deletes in, and what they replace out.

pyiceberg 0.12 can append, but it cannot add delete files and cannot replace files in one snapshot; so its private
producer is subclassed here, and only here (`pyiceberg==0.12.*` is pinned for it). What is overridden: the manifests,
and the summary whose totals readers and planners trust. What is not used: pyiceberg's commit loop, which rebases a
stale plan and deletes manifests after a 409; `mozart.lake.commit` sends the staged updates itself.

Pitfalls: tables are unpartitioned and of format version 2. Data files must carry field ids. When a file's footer has
other rows than the caller said, the load is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV2,
)
from pyiceberg.table import Table, Transaction, _parquet_files_to_data_files
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import EMPTY_DICT, Record

from mozart.errors import TerminalError

FILE_PATH_FIELD_ID = 2147483546
POSITION_FIELD_ID = 2147483545


@dataclass(frozen=True)
class DataFileRef:
    """A Parquet file with field ids, at its full address, and how many rows it holds."""

    path: str
    rows: int


@dataclass(frozen=True)
class DeleteFileRef:
    """A Parquet file of (file_path, pos), sorted by both, at its full address, and how many rows it deletes.

    The positions were found in the snapshot `planned_on` and mean nothing on any other.
    """

    path: str
    rows: int
    planned_on: int


@dataclass(frozen=True)
class LiveFiles:
    """The live entries of one snapshot by manifest, read once for all who plan and commit on it, changed by nobody."""

    snapshot_id: int
    manifests: tuple[tuple[ManifestFile, tuple[ManifestEntry, ...]], ...]

    @property
    def files(self) -> list[DataFile]:
        """Data files and deletes."""
        return [entry.data_file for _, entries in self.manifests for entry in entries]


def read_live_files(io: FileIO, snapshot: Snapshot) -> LiveFiles:
    """What the snapshot consists of; some milliseconds a manifest."""
    manifests = tuple(
        (manifest, tuple(manifest.fetch_manifest_entry(io, discard_deleted=True)))
        for manifest in snapshot.manifests(io)
    )
    return LiveFiles(snapshot.snapshot_id, manifests)


def is_parquet(file: DataFile) -> bool:
    """Whether it is a file as Mozart writes them; other writers may also write ORC or Avro."""
    return file.file_format == FileFormat.PARQUET


@dataclass(frozen=True)
class Change:
    """What one snapshot does: files that come, rows that go, and whether everything older goes.

    `folded`: the addresses of data files that go, and every position delete with them; None: none goes. `keeps_rows`:
    the rows stay the same (compaction), so that the snapshot is marked `replace` and readers of changes may skip it.
    `seen`: what the snapshot before consists of, where the caller has read it.
    """

    files: Sequence[DataFile] = ()
    deletes: Sequence[DataFile] = ()
    replaces_all: bool = False
    folded: frozenset[str] | None = None
    keeps_rows: bool = False
    seen: LiveFiles | None = None
    properties: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class _Parts:
    """The files of the snapshot that a change replaces, wholly or in part: which go, and which stay.

    `stays` are entries that must be written anew, for their manifest loses others; `whole` are manifests that lose
    nothing, and `seen` the files in them.
    """

    goes: list[ManifestEntry] = field(default_factory=list[ManifestEntry])
    stays: list[ManifestEntry] = field(default_factory=list[ManifestEntry])
    whole: list[ManifestFile] = field(default_factory=list[ManifestFile])
    seen: list[DataFile] = field(default_factory=list[DataFile])


class LoadTransaction(Transaction):
    """A transaction on an existing table that works out its metadata once per change.

    pyiceberg's own copies the whole metadata, every snapshot in it, whenever it is looked at: 17 times a commit, 0.06
    CPU s at 60 snapshots. Nobody changes what is handed out, so that before the first change it is the table's own.
    """

    def __init__(self, table: Table) -> None:
        self._worked_out: tuple[int, TableMetadata] | None = None
        super().__init__(table)

    @property
    def table_metadata(self) -> TableMetadata:
        staged = len(self._updates)
        if not staged:
            return self._table.metadata
        if self._worked_out is None or self._worked_out[0] != staged:
            self._worked_out = (staged, super().table_metadata)
        return self._worked_out[1]


class LoadSnapshot(_FastAppendFiles):
    """Produces the snapshot of one change on top of the transaction's current one. `commit()` only stages it."""

    def __init__(self, transaction: Transaction, io: FileIO, change: Change) -> None:
        super().__init__(
            operation=Operation.OVERWRITE if change.replaces_all or change.deletes else Operation.APPEND,
            transaction=transaction,
            io=io,
            snapshot_properties=change.properties,
        )
        self._change = change
        self._added_data_files = list(change.files)

    @property
    def keeps_rows(self) -> bool:
        return self._change.keeps_rows

    @property
    def rows_added(self) -> int:
        return sum(file.record_count for file in self._change.files)

    @property
    def rows_deleted(self) -> int:
        """Rows that readers saw before and that this change takes away (a merge gives some of them back)."""
        return self.rows_marked + sum(_live_rows(entry.data_file) for entry in self._removed)

    @property
    def missing(self) -> list[str]:
        """The data files to be folded that are not there."""
        return sorted((self._change.folded or frozenset()) - {entry.data_file.file_path for entry in self._removed})

    def count_live_rows(self) -> int:
        """The rows that readers see, before this change, of the data files that go, with every position delete read.

        `rows_deleted` trusts the manifests, which is exact for what Mozart writes. Other writers leave deletes behind
        whose data file is gone (pyiceberg's overwrite does), or mark a row twice.
        """
        data = {entry.data_file.file_path: entry.data_file.record_count for entry in self._removed if _is_data(entry)}
        return sum(data.values()) - self._count_marked(list(data))

    @property
    def rows_marked(self) -> int:
        """The rows that the deletes of this change mark."""
        return sum(file.record_count for file in self._change.deletes)

    def count_marked_rows(self) -> int:
        """The rows of the data files that stay that the deletes that go mark, each once; every one of them is read."""
        stays = [*(entry.data_file for entry in self._parts.stays), *self._parts.seen]
        return self._count_marked([file.file_path for file in stays if file.content == DataFileContent.DATA])

    def _count_marked(self, data_files: Sequence[str]) -> int:
        files = [entry.data_file for entry in self._removed]
        positions = [file.file_path for file in files if file.content == DataFileContent.POSITION_DELETES]
        return _count_marked(self._io, positions, data_files) if data_files else 0

    @property
    def _replaces(self) -> bool:
        return self._change.replaces_all or self._change.folded is not None

    @property
    def _removed(self) -> list[ManifestEntry]:
        """Every live entry that goes, data and deletes; none of a change that only adds."""
        return self._parts.goes

    @cached_property
    def _parts(self) -> _Parts:
        parts = _Parts()
        snapshot = self._transaction.table_metadata.current_snapshot()
        if snapshot is None or not self._replaces:
            return parts
        seen = self._change.seen
        live = seen if seen and seen.snapshot_id == snapshot.snapshot_id else read_live_files(self._io, snapshot)
        for manifest, entries in live.manifests:
            gone = [self._goes(entry.data_file) for entry in entries]
            if not any(gone):
                parts.whole.extend([manifest] if entries else [])
                parts.seen.extend(entry.data_file for entry in entries)
                continue
            for entry, goes in zip(entries, gone, strict=True):
                (parts.goes if goes else parts.stays).append(self._marked(entry, goes=goes))
        return parts

    def _goes(self, file: DataFile) -> bool:
        is_folded = file.content == DataFileContent.POSITION_DELETES or file.file_path in (self._change.folded or ())
        return self._change.replaces_all or is_folded

    def _marked(self, entry: ManifestEntry, *, goes: bool) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.DELETED if goes else ManifestEntryStatus.EXISTING,
            snapshot_id=self._snapshot_id if goes else entry.snapshot_id,
            sequence_number=entry.sequence_number,
            file_sequence_number=entry.file_sequence_number,
            data_file=entry.data_file,
        )

    def _existing_manifests(self) -> list[ManifestFile]:
        return self._parts.whole if self._replaces else super()._existing_manifests()

    def _deleted_entries(self) -> list[ManifestEntry]:
        """What the one manifest says that is written anew: the data files that go, and those that stay beside them."""
        return [entry for entry in (*self._removed, *self._parts.stays) if _is_data(entry)]

    def _manifests(self) -> list[ManifestFile]:
        added = [
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED,
                snapshot_id=self._snapshot_id,
                sequence_number=None,
                file_sequence_number=None,
                data_file=file,
            )
            for file in self._change.deletes
        ]
        others = [entry for entry in (*self._removed, *self._parts.stays) if not _is_data(entry)]
        return [*self._delete_manifest([*added, *others]), *super()._manifests()]

    def _delete_manifest(self, entries: Sequence[ManifestEntry]) -> list[ManifestFile]:
        if not entries:
            return []
        metadata = self._transaction.table_metadata
        writer: ManifestWriter = _DeleteManifestWriter(
            metadata.spec(), metadata.schema(), self.new_manifest_output(), self._snapshot_id, self._compression
        )
        with writer:
            for entry in entries:
                writer.add_entry(entry)
        return [writer.to_manifest_file()]

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        metadata = self._transaction.table_metadata
        added = (*self._change.files, *self._change.deletes)
        counted = _count_files(metadata, added, [entry.data_file for entry in self._removed])
        # pyiceberg's totals know no `replace`; a compaction takes the other way
        operation = Operation.REPLACE if self.keeps_rows else self._operation
        summary = Summary(operation, **counted, **snapshot_properties)
        if not self._replaces:
            parent = metadata.current_snapshot()
            return update_snapshot_summaries(summary, parent.summary if parent is not None else None)
        # counted anew, so that totals a foreign writer left out or got wrong are right again
        stay = [*(entry.data_file for entry in self._parts.stays), *self._parts.seen]
        return _with_totals(summary, _count_files(metadata, (*added, *stay), ()))


class _DeleteManifestWriter(ManifestWriterV2):
    """A manifest of delete files; pyiceberg only writes those of data files."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _count_files(metadata: TableMetadata, added: Iterable[DataFile], removed: Iterable[DataFile]) -> dict[str, str]:
    collector = SnapshotSummaryCollector()
    for file in added:
        collector.add_file(file, schema=metadata.schema(), partition_spec=metadata.spec())
    for file in removed:
        collector.remove_file(file, schema=metadata.schema(), partition_spec=metadata.spec())
    return collector.build()


def _with_totals(summary: Summary, live: Mapping[str, str]) -> Summary:
    """The summary with the totals of a snapshot whose files, all of them, `live` counts as additions."""
    for total, added in (
        ("total-data-files", "added-data-files"),
        ("total-delete-files", "added-delete-files"),
        ("total-records", "added-records"),
        ("total-files-size", "added-files-size"),
        ("total-position-deletes", "added-position-deletes"),
        ("total-equality-deletes", "added-equality-deletes"),
    ):
        summary[total] = live.get(added, "0")
    return summary


def _is_data(entry: ManifestEntry) -> bool:
    return entry.data_file.content == DataFileContent.DATA


def _live_rows(file: DataFile) -> int:
    """How a removed file counts: data gives rows back, a position delete takes a row that was already gone."""
    if file.content == DataFileContent.DATA:
        return file.record_count
    return -file.record_count if file.content == DataFileContent.POSITION_DELETES else 0


def _count_marked(io: FileIO, delete_files: Sequence[str], data_files: Sequence[str]) -> int:
    """How many rows of `data_files` the position deletes in `delete_files` name, each once."""
    kinds = pa.schema([("file_path", pa.string()), ("pos", pa.int64())])
    marked = [kinds.empty_table()]
    for path in delete_files:
        with io.new_input(path).open() as stream:
            found = pq.read_table(cast(Any, stream), columns=kinds.names)
        marked.append(found.cast(kinds).filter(pc.field("file_path").isin(list(data_files))))
    return pa.concat_tables(marked).group_by(kinds.names).aggregate([]).num_rows


def describe_data_files(transaction: Transaction, io: FileIO, refs: Iterable[DataFileRef]) -> list[DataFile]:
    """Data files with sizes, counts and bounds from their footers; files without rows are left out.

    Raises TerminalError when a file's columns do not fit the transaction's schema or it holds other rows than said.
    """
    filled = [ref for ref in refs if ref.rows > 0]
    _check_distinct([ref.path for ref in filled])
    try:
        files = list(_parquet_files_to_data_files(transaction.table_metadata, [ref.path for ref in filled], io))
    except (ValueError, KeyError) as error:
        raise TerminalError(f"a data file does not fit the planned schema of the table: {error}") from error
    for ref, file in zip(filled, files, strict=True):
        _check_rows(ref.path, ref.rows, file.record_count)
    return files


def describe_delete_files(io: FileIO, refs: Iterable[DeleteFileRef], spec_id: int) -> list[DataFile]:
    """Position-delete files, with the range of data files each one speaks of, so that readers can skip it."""
    filled = [ref for ref in refs if ref.rows > 0]
    _check_distinct([ref.path for ref in filled])
    return [_describe_delete_file(io, ref, spec_id) for ref in filled]


def _describe_delete_file(io: FileIO, ref: DeleteFileRef, spec_id: int) -> DataFile:
    source = io.new_input(ref.path)
    with source.open() as stream:
        footer = pq.read_metadata(cast(Any, stream))
    _check_rows(ref.path, ref.rows, footer.num_rows)
    lower, upper = _path_bounds(footer)
    described = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=ref.path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=footer.num_rows,
        file_size_in_bytes=len(source),
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds=lower,
        upper_bounds=upper,
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    described.spec_id = spec_id
    return described


def _path_bounds(footer: pq.FileMetaData) -> tuple[dict[int, bytes], dict[int, bytes]]:
    if footer.schema.names != ["file_path", "pos"]:
        raise TerminalError(f"not a position-delete file: its columns are {footer.schema.names}")
    statistics = [footer.row_group(group).column(0).statistics for group in range(footer.num_row_groups)]
    if not all(part is not None and part.has_min_max for part in statistics):
        return {}, {}
    lower = min(cast(str, part.min) for part in statistics)
    upper = max(cast(str, part.max) for part in statistics)
    return {FILE_PATH_FIELD_ID: lower.encode()}, {FILE_PATH_FIELD_ID: upper.encode()}


def _check_distinct(paths: Sequence[str]) -> None:
    repeated = {path for path, times in Counter(paths).items() if times > 1}
    if repeated:
        raise TerminalError(f"a load names a file twice and would double its rows: {', '.join(sorted(repeated))}")


def _check_rows(path: str, said: int, found: int) -> None:
    if said != found:
        raise TerminalError(
            f"{path} holds {found} rows and the load counted {said}; the file was rewritten after it was counted: "
            "plan the load again under a new path"
        )
