"""What every source database must offer, in the words the load engine uses.

A connector knows one kind of database: how to log in, how to describe a table with an exact answer for every type,
how to write the SELECT that casts each column to it, and how to give many readers one view of the source. It neither
lands files nor commits. The SELECT runs inside DuckDB, so a reader hands out relations, not rows.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict, SecretStr
from pyiceberg.types import IcebergType

from mozart.connectors.options import ReadLimits, option_mistake, option_names
from mozart.connectors.values import ValueCounts
from mozart.errors import TerminalError

UnfitValues = Literal["fail", "null"]


class SourceConnection(BaseModel):
    """How to reach one source. `options` are the connector's own (TLS, timeouts); unknown ones are refused by it."""

    model_config = ConfigDict(frozen=True)

    type: str
    host: str | None = None
    port: int | None = None
    database: str
    username: str | None = None
    password: SecretStr | None = None
    options: Mapping[str, str] = {}

    @property
    def address(self) -> str:
        """Where it is, for messages: never the login."""
        return f"{self.type}://{self.host or ''}{f':{self.port}' if self.port else ''}/{self.database}"


@dataclass(frozen=True)
class SourceColumn:
    """One column as it will stand in raw.

    `expression` is SQL of the source, giving the value exactly as `iceberg_type` or failing the query; it may not
    change a value silently. `name` is lower case; `source_name` is the source's own spelling. `answer` is the
    connector's own knowledge of the type, for itself alone.
    """

    name: str
    source_name: str
    source_type: str
    iceberg_type: IcebergType
    expression: str
    answer: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class SourceTable:
    """A table as the source's catalog describes it. `unique_keys` are the column sets the source itself keeps unique
    and not null; `identity` changes when the table was dropped and made again, or the server was restored."""

    schema: str | None
    name: str
    columns: tuple[SourceColumn, ...]
    unique_keys: tuple[frozenset[str], ...] = ()
    identity: str = ""
    estimated_rows: int | None = None

    def column(self, name: str) -> SourceColumn:
        for column in self.columns:
            if column.name == name:
                return column
        raise TerminalError(
            f"{self.qualified_name}: no column {name!r}; it has {', '.join(c.name for c in self.columns)}"
        )

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True)
class Window:
    """Which rows to read: `column` above `after` (exclusive) or from `since` to before `until`; texts of the source's
    own literal form. With `after`, rows whose column is NULL are read too: nobody could tell when they changed."""

    column: str
    after: str | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a table: from `low` (inclusive) to `high` (exclusive) of `column`; None is the table's own end.

    `column` is a raw column name whose values stay with their row (a key), or None for the row's place in the table
    (pages of PostgreSQL), which means something within one snapshot only. Ends are texts of the source.
    """

    column: str | None
    low: str | None
    high: str | None


@dataclass(frozen=True)
class TableRead:
    """One table's read: the columns to take, the tenant's filter as column → value, the window, and the part.

    `unfit` says what becomes of a value that its Iceberg type cannot hold: the read fails naming it, or the value is
    NULL and counted in `counts`, which belongs to this one read.
    """

    table: SourceTable
    columns: tuple[SourceColumn, ...]
    equals: Mapping[str, str] = field(default_factory=dict[str, str])
    window: Window | None = None
    chunk: Chunk | None = None
    unfit: UnfitValues = "fail"
    counts: ValueCounts = field(default_factory=ValueCounts, compare=False)


@dataclass(frozen=True)
class SourcePosition:
    """When the source was read, and what may still be committed behind that moment.

    `asked_at` is the source's clock, taken before the snapshot; `oldest_transaction_at` the start of the oldest
    transaction then running (None: none was); `sees_transactions` is False where the login cannot know, and then a
    declared lag is the only safe bound. `time_zone` is the zone in which the source writes naive timestamps.
    """

    asked_at: datetime
    oldest_transaction_at: datetime | None
    sees_transactions: bool
    time_zone: str
    shared_snapshot: bool
    taken: float = field(default_factory=time.monotonic, compare=False, repr=False)

    def now(self) -> datetime:
        """The source's time now, by this machine's steady clock: not before any snapshot taken until now."""
        return self.asked_at + timedelta(seconds=time.monotonic() - self.taken)


class SourceReader(ABC):
    """A source opened for one run. Use as a context manager; safe to share between threads after entering.

    `slots` has one place for each connection that may read at the same time: take one around each statement that reads
    rows. `streams_at_once`: how many parts of one table can be read at the same time with any gain.
    """

    position: SourcePosition
    """Taken before the snapshot; an older one than the read's own is safe, for it only holds a watermark back."""
    limits: ReadLimits = ReadLimits()
    slots: threading.BoundedSemaphore
    streams_at_once: ClassVar[int] = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release the source. Never raises."""

    @abstractmethod
    def describe(self, schema: str | None, table: str) -> SourceTable:
        """The table with its columns; TerminalError naming it when it is missing or may not be read."""

    @abstractmethod
    def attach(self, connection: DuckDBPyConnection) -> None:
        """Make the source known to a DuckDB instance, once; credentials stay in that instance's memory."""

    @abstractmethod
    def begin(self, cursor: DuckDBPyConnection) -> str:
        """Start a transaction of this cursor inside the run's source snapshot, where the source has one.

        Returns the snapshot's name; the empty text where every statement has a snapshot of its own.
        """

    def snapshot_name(self) -> str:
        """The name of the snapshot that `begin` would join now; the empty text where there is none to join."""
        return ""

    def renew(self, since: datetime) -> bool:
        """Let reads from now on show no older state of the source than it had at `since`, by the source's clock.

        Returns whether they are of another snapshot now, in which tables may look otherwise.
        Nothing to do where each statement has a snapshot of its own. A connector that can only hold the one it opened
        with leaves this as it is; then a load may show an older state until the next (docs/guarantees.md).
        """
        return False

    def chunks(self, read: TableRead) -> Sequence[Chunk]:
        """Parts that together are the whole read, by `limits`; none where one stream is all there is or all it needs.

        Only for reads without a window. A connector that cannot divide a table leaves this as it is.
        """
        return ()

    @abstractmethod
    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        """A FROM item that yields the read's columns under their raw names, for one statement on this begun cursor.

        A connector whose rows come through Python registers an Arrow stream with the cursor: it can be read once.
        """

    @abstractmethod
    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        """A FROM item of this cursor with one row, one column `rows`: how many rows the read would yield."""


class BaseConnector(ABC):
    """One kind of source database."""

    type: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]] = ()
    default_port: ClassVar[int | None] = None

    def __init__(self, connection: SourceConnection, *, application: str = "mozart") -> None:
        known = option_names(self.type)
        for name, value in connection.options.items():
            if name not in known:
                raise TerminalError(
                    f"{connection.address}: unknown option {name!r}; {self.type} knows {', '.join(sorted(known))}"
                )
            mistake = option_mistake(self.type, name, value)
            if mistake:
                raise TerminalError(f"{connection.address}: option {name} {mistake}; correct source.options")
        self.connection = connection
        self.application = application
        self.limits = ReadLimits.of(connection.options)

    @abstractmethod
    def check(self) -> None:
        """Log in and out. TransientError when the server cannot be reached, TerminalError when it refuses."""

    def open(self) -> SourceReader:
        """Open the source for one run, holding one snapshot where the database can."""
        reader = self.open_reader()
        reader.limits = self.limits
        reader.slots = threading.BoundedSemaphore(self.limits.max_connections)
        return reader

    @abstractmethod
    def open_reader(self) -> SourceReader:
        """The connector's own reader, opened; `open` gives it its limits."""


def reject_case_collisions(table: str, names: Sequence[str]) -> None:
    """Raise when two columns differ only by case: no engine of the lake can tell them apart."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise TerminalError(
                f"{table}: columns {other!r} and {name!r} differ only by case; list `columns` to choose"
            )
