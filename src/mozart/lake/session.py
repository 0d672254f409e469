"""What one run holds open towards the lake: a catalog client and one DuckDB instance that computes for it.

One session serves all tables of a run; cursors of the instance share its memory limit, so the run's memory is bounded
however many tables load at once. Cursors are cheap and belong to one thread each.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO, load_file_io

from mozart.engine.duckdb import Limits, connect
from mozart.lake.duckdb_errors import duckdb_translated
from mozart.lake.lakehouse import Lakehouse
from mozart.sql import quote_literal

_LARGEST_FILE = "50GB"
"""DuckDB uploads in parts of a 10,000th of it. At its default of 800 GB each part takes 80 MB, several at a time,
beside its memory limit; landing files are 256 MB. GLOBAL, for cursors do not take over what is set for their connection
alone: a compaction then held 828 MB instead of 370."""

_UPLOADS_AT_ONCE = 2
"""Parts of one file on their way, 5 MB each. With DuckDB's default of 50 a slow store fills the memory."""

_THREADS = 1
"""How many threads work at one statement. Tables and parts of tables are read at the same time all the same: each has
a statement of its own. A read from a source is one stream, hence one task; with a second thread that takes it, DuckDB's
client looks for further tasks without a pause until it is done: up to half of a load's CPU was that (ADR 22)."""

COMPACTION_MEMORY = "128MB"
"""DuckDB's own limit in a process that compacts, on one thread: 5M rows of 17 columns then took 380 MB in all. With
more, or on two threads, the process passed 400 MB; what is buffered for reading and writing comes on top of it."""

_ONE_AT_A_TIME = threading.Lock()
"""Held by who computes beside a session: the tables of a run that are due at once take their memory one by one."""


@dataclass(frozen=True)
class LakeSession:
    """A lakehouse, its catalog, and a DuckDB instance with the lake attached for reading."""

    lakehouse: Lakehouse
    catalog: Catalog
    connection: DuckDBPyConnection
    limits: Limits

    def cursor(self) -> DuckDBPyConnection:
        """A cursor for one thread, in UTC like its instance."""
        cursor = self.connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        return cursor

    def io(self, location: str) -> FileIO:
        """File access for paths under `location`, with the lake's own credentials."""
        return load_file_io(properties=self.lakehouse.catalog_properties(), location=location)


@contextmanager
def open_lake(
    lakehouse: Lakehouse,
    *,
    scratch: Path,
    extensions: Sequence[str] = (),
    extension_folder: Path | None = None,
    memory: str = "1GB",
    threads: int = _THREADS,
) -> Generator[LakeSession]:
    """Open a session whose spilled data lives in `scratch`, a folder of this run alone, removed at the end.

    Raises TransientError when the catalog cannot be reached, TerminalError when it refuses.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    limits = Limits(memory=memory, threads=threads, spill_folder=scratch)
    opening = f"opening the lake at {lakehouse.catalog_uri}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        with duckdb_translated(opening):
            connection = connect(
                lakehouse=lakehouse, extensions=extensions, extension_folder=extension_folder, limits=limits
            )
        stack.callback(connection.close)
        _bound_uploads(connection)
        yield LakeSession(lakehouse, lakehouse.catalog(), connection, limits)


@contextmanager
def bounded_session(lake: LakeSession) -> Generator[LakeSession]:
    """The session within a compaction's limits: itself, or the same lake with a DuckDB instance of its own beside it.

    Others may compute in `lake` meanwhile, so its own limits cannot be lowered for it.
    """
    limits = Limits(COMPACTION_MEMORY, 1, lake.limits.spill_folder)
    if lake.limits == limits:
        yield lake
        return
    if limits.spill_folder is not None:
        limits = replace(limits, spill_folder=limits.spill_folder / f"bounded-{secrets.token_hex(4)}")
    with _ONE_AT_A_TIME, connect(lakehouse=lake.lakehouse, limits=limits) as connection:
        _bound_uploads(connection)
        yield replace(lake, connection=connection, limits=limits)


def _bound_uploads(connection: DuckDBPyConnection) -> None:
    connection.execute(f"SET GLOBAL s3_uploader_max_filesize = {quote_literal(_LARGEST_FILE)}")
    connection.execute(f"SET GLOBAL s3_uploader_thread_limit = {_UPLOADS_AT_ONCE}")
