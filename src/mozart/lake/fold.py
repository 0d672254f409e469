"""Folding: the few small files that loads leave become one data file and one delete file; large files stay as they are.

A merge adds a data file and a delete file, and each costs a reader some milliseconds, whatever it holds. Rewriting the
table for that would cost by its size; folding costs by what the loads since the last one changed. It takes the small
data files, by size (`choose`), with the rows their deletes leave, and all position deletes of the files that stay. One
commit, on the head that was read, with the record carried forward.

Does not decide when it is due, and does not commit: `mozart.lake.compaction` does. Pitfall: every fold writes all
position deletes of the table again, so that what is borne grows with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile

from mozart.engine.duckdb import LAKE
from mozart.errors import TerminalError
from mozart.lake.deltas import write_folded_deletes
from mozart.lake.digest import EMPTY_DIGEST, digest_rows
from mozart.lake.head import TableHead
from mozart.lake.landing import Landing, discard, land, scan
from mozart.lake.snapshots import DeleteFileRef
from mozart.sql import quote_identifier, quote_literal, quote_qualified

_LARGER = 4
"""A file joins those smaller than it when it is at most so many times as large as they are together: what a load
brings is then rewritten a few times, until it is a quarter of the next larger file."""


@dataclass(frozen=True)
class Folded:
    """What a fold has written: the rows of the folded data files, and the deletes of all others. `size` is in bytes."""

    landing: Landing
    deletes: tuple[DeleteFileRef, ...]
    size: int

    @property
    def file_count(self) -> int:
        return len(self.landing.files) + len(self.deletes)


def choose(data: Iterable[DataFile], small_bytes: int) -> tuple[DataFile, ...]:
    """The data files to fold, smallest first: those below `small_bytes` that are not large beside the others."""
    chosen: list[DataFile] = []
    together = 0
    for file in sorted(data, key=lambda file: (file.file_size_in_bytes, file.file_path)):
        size = file.file_size_in_bytes
        if size >= small_bytes or (chosen and size > _LARGER * together):
            break
        chosen.append(file)
        together += size
    return tuple(chosen)


def write(
    cursor: DuckDBPyConnection,
    head: TableHead,
    data: Sequence[DataFile],
    deletes: Sequence[DataFile],
    *,
    stays: Sequence[DataFile],
    folder: str,
    io: FileIO,
) -> Folded:
    """Write what takes the place of `data` and of all position deletes, `deletes`, of the head; `stays` stay.

    Raises TerminalError when the copy does not hold the rows that the head has in `data`; duckdb.Error as it comes.
    """
    folded, marking, kept = ([file.file_path for file in files] for files in (data, deletes, stays))
    landing = _copy_rows(cursor, head, folded, folder, io) if folded else Landing((), 0, 0)
    marks = write_folded_deletes(cursor, head, marking, kept, folder)
    return Folded(landing, tuple(marks), landing.size + sum(len(io.new_input(mark.path)) for mark in marks))


def _copy_rows(cursor: DuckDBPyConnection, head: TableHead, paths: Sequence[str], folder: str, io: FileIO) -> Landing:
    if head.table is None:
        raise ValueError(f"{head.name} does not exist")
    schema = head.table.schema()
    names = [field.name for field in schema.fields]
    # Through the table, not the files: only so are columns matched by their field ids.
    listed = ", ".join(quote_literal(path) for path in paths)
    columns = ", ".join(quote_identifier(name) for name in names)
    now = (
        f"(SELECT {columns} FROM {quote_qualified(LAKE, *head.identifier)} AT (VERSION => {head.snapshot_id}) "
        f"WHERE filename IN ({listed}))"
    )
    landing = land(cursor, now, schema, names, folder=folder, io=io)
    written = digest_rows(cursor, scan(landing), names) if landing.files else EMPTY_DIGEST
    if written != digest_rows(cursor, now, names):
        discard(landing, io)
        raise TerminalError(
            f"folding {head.name}: the copy of {len(paths)} small files holds other rows than snapshot "
            f"{head.snapshot_id}; nothing was committed: report it, and do not compact this table"
        )
    return landing
