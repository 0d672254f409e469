"""The delete pass: rows that are gone at the source leave raw, in one commit of position deletes and no data.

Which rows are gone is found in one of two ways.
- *By keys* (the default): the keys of one source snapshot, and no other column, are read into DuckDB; a row of raw
  whose key is not among them is gone.
- *By a column* (`soft_delete` in tenant.yaml): a row whose column says deleted is gone; the source is not read.

Why no living row is removed. Raw is read at a head that was known *before* the source's snapshot was taken, so each of
its rows was seen at the source earlier than the snapshot; if its key is not there, it was deleted or its key changed.
Rows that came since are in neither. Beyond that, only rows at or below the safe bound of the snapshot are compared, so
a lagging replica behind the same address does not look like a deletion. The commit lands on that very head: a load
running at the same time conflicts with the pass or the pass with it, and one of the two plans again.

By a column, only rows at or below the watermark go: those above it, and those without a value there, are read again by
the next load and would return. A full refresh brings soft-deleted rows back until the next
pass.

The guard: a pass that would take more than a share of the rows is refused until someone agrees, for an emptied or
half-restored source looks like one whose rows were deleted. The watermark and the source's identity are carried; the
load that a record carried is not, for the rows are no longer its own and marts must be built again.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb
from duckdb import DuckDBPyConnection
from pyiceberg.types import (
    BooleanType,
    DateType,
    IcebergType,
    IntegerType,
    LongType,
    TimestampType,
    TimestamptzType,
)

from mozart.connectors.base import BaseConnector, SourceReader, SourceTable, TableRead
from mozart.connectors.errors import end_read, read_error
from mozart.errors import (
    CommitConflictError,
    CommitInDoubtError,
    DataQualityError,
    MozartError,
    TerminalError,
    TransientError,
)
from mozart.lake import commit
from mozart.lake.catalog_client import describe
from mozart.lake.commit import CommitRecord, TableHead
from mozart.lake.deltas import write_position_deletes
from mozart.lake.head import CARRIED_LOAD_ID
from mozart.lake.landing import duckdb_type
from mozart.lake.load_plan import LoadPlan, LoadRequest, plan_load
from mozart.lake.session import LakeSession
from mozart.sql import quote_identifier, quote_literal, quote_qualified

DeleteStatus = Literal["removed", "unchanged", "skipped", "planned"]
Progress = Callable[[str], None]
SessionFactory = Callable[[], AbstractContextManager[LakeSession]]

_ATTEMPTS = 6
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class DeleteOptions:
    """`max_share`: how much of a table a pass may take unasked, of 1. `consent`: whatever the share."""

    max_share: float = 0.2
    consent: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"max_share is a share of 1, not {self.max_share}")


@dataclass(frozen=True)
class DeleteResult:
    """What a pass did to one table. `rows_compared` are raw's; `rows_removed` those gone (`planned`: that would go)."""

    table: str
    status: DeleteStatus
    found_by: Literal["keys", "column", "none"]
    reason: str = ""
    rows_compared: int = 0
    rows_removed: int = 0
    snapshot_id: int | None = None
    attempts: int = 1

    @property
    def line(self) -> str:
        """One line for a log."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.table} {self.status}{reason}: {self.rows_removed} of {self.rows_compared} rows are gone"


def remove_deleted_rows(
    request: LoadRequest,
    connector: BaseConnector,
    open_session: SessionFactory,
    options: DeleteOptions | None = None,
    progress: Progress = lambda _line: None,
) -> DeleteResult:
    """Take from raw what is gone at the source. `open_session` gives a new lake session for every attempt.

    Raises DataQualityError when more than the allowed share would go, TransientError or TerminalError when source,
    store or catalog fail; raw then is as it was.
    """
    options = options or DeleteOptions()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with open_session() as lake:
                return replace(_Pass(request, connector, lake, options, progress).run(), attempts=attempt)
        except (CommitConflictError, CommitInDoubtError) as error:
            if attempt == _ATTEMPTS:
                raise
            progress(f"comparing again, {attempt} of {_ATTEMPTS - 1}: {error}")
            time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**attempt))  # noqa: S311 - so that no writer starves
    raise MozartError(f"{request.name}: unreachable")


class _Pass:
    """One attempt on one head."""

    def __init__(
        self,
        request: LoadRequest,
        connector: BaseConnector,
        lake: LakeSession,
        options: DeleteOptions,
        progress: Progress,
    ) -> None:
        self.request = request
        self.connector = connector
        self.lake = lake
        self.options = options
        self.progress = progress
        # Before the source's snapshot, always: see the module's documentation.
        self.head: TableHead = commit.read_head(lake.catalog, (request.namespace, request.spec.name))

    def run(self) -> DeleteResult:
        if self.request.spec.mode != "incremental":
            return self._skipped("a full refresh replaces all rows")
        if self.head.table is None or self.head.record is None:
            return self._skipped("raw has no commit record; the next load reads in full")
        if self.request.spec.soft_delete:
            return self._by_column(self.head.record, self.request.spec.soft_delete.column.lower())
        return self._by_keys()

    # -- finding what is gone -----------------------------------------------------------------------------------

    def _by_keys(self) -> DeleteResult:
        with self.connector.open() as reader:
            table = reader.describe(self.request.spec.source_schema, self.request.spec.source_table)
            plan = plan_load(replace(self.request, since=None, until=None), self.head, table, reader.position)
            if plan.mode == "full_refresh":
                return self._skipped(f"the next load is a full refresh: {plan.reason}")
            reader.attach(self.lake.connection)
            self._read_keys(reader, table)
        self.progress(f"read the keys of {table.qualified_name}")
        matches = " AND ".join(
            f"raw.{quote_identifier(key)} IS NOT DISTINCT FROM source.{quote_identifier(key)}"
            for key in self.request.key
        )
        bound = self._bound(plan)
        where = f"WHERE {bound} AND NOT EXISTS (SELECT 1 FROM {self._keys} AS source WHERE {matches})"
        return self._remove("keys", where, reader.position.asked_at.isoformat())

    def _by_column(self, record: CommitRecord, column: str) -> DeleteResult:
        condition = _says_deleted(self.request.name, column, self._type_of(column))
        if record.watermark is None:
            return self._skipped("no watermark is safe yet")
        mark = self._at_most(record.watermark)
        return self._remove("column", f"WHERE {condition} AND {mark}", column)

    def _read_keys(self, reader: SourceReader, table: SourceTable) -> None:
        cursor = self.lake.cursor()
        read = TableRead(table, tuple(table.column(name) for name in self.request.key), self._equals(), None)
        casts = ", ".join(
            f"{quote_identifier(name)}::{duckdb_type(self._type_of(name))} AS {quote_identifier(name)}"
            for name in self.request.key
        )
        reader.begin(cursor)
        try:
            relation = reader.relation(cursor, read)
            cursor.execute(f"CREATE OR REPLACE TABLE {self._keys} AS SELECT {casts} FROM {relation}")
            cursor.execute("COMMIT")
        except Exception as error:
            raise read_error(self.request.name, error) from error
        finally:
            end_read(cursor)

    def _equals(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self.request.equals.items()}

    def _bound(self, plan: LoadPlan) -> str:
        """Which rows of raw the snapshot can speak of: every transaction that wrote at or below it had ended."""
        if plan.safe is None:
            return "TRUE"
        return f"(raw.{quote_identifier(self._incremental)} IS NULL OR {self._at_most(plan.safe)})"

    def _at_most(self, value: str) -> str:
        kind = duckdb_type(self._type_of(self._incremental))
        return f"raw.{quote_identifier(self._incremental)} <= CAST({quote_literal(value)} AS {kind})"

    @property
    def _incremental(self) -> str:
        return (self.request.spec.incremental_column or "").lower()

    # -- removing it --------------------------------------------------------------------------------------------

    def _remove(self, found_by: Literal["keys", "column"], where: str, moment: str) -> DeleteResult:
        cursor = self.lake.cursor()
        with self._translated():
            compared = int(_scalar(cursor, f"SELECT count(*) FROM {self._raw()}"))
            keys = ", ".join(f"raw.{quote_identifier(key)}" for key in self.request.key)
            cursor.execute(f"CREATE OR REPLACE TABLE {self._gone} AS SELECT {keys} FROM {self._raw()} AS raw {where}")
            gone = int(_scalar(cursor, f"SELECT count(*) FROM {self._gone}"))
        result = DeleteResult(self.request.name, "unchanged", found_by, "", compared, gone, self.head.snapshot_id)
        self.progress(f"compared {compared} rows of raw: {gone} are gone")
        if gone == 0:
            return result
        self._guard(gone, compared)
        if self.options.dry_run:
            return replace(result, status="planned")
        return self._commit(cursor, replace(result, status="removed"), moment)

    def _guard(self, gone: int, compared: int) -> None:
        share = gone / compared
        if share <= self.options.max_share or self.options.consent:
            return
        raise DataQualityError(
            f"{self.request.name}: {gone} of {compared} rows ({share:.0%}) of raw are gone at the source, more than "
            f"the {self.options.max_share:.0%} that a pass may take unasked; nothing was removed. Look at the source; "
            "if they were deleted on purpose, run the pass for this table with consent"
        )

    def _commit(self, cursor: DuckDBPyConnection, result: DeleteResult, moment: str) -> DeleteResult:
        table, record = self.head.table, self.head.record
        if table is None or record is None:
            raise ValueError(f"{self.head.name} has no record")
        load_id = self._load_id(moment)
        folder = f"{self.lake.lakehouse.landing_uri}/{self.request.spec.name}/{load_id}"
        deletes = write_position_deletes(cursor, self.head, self._gone, self.request.key, folder)
        outcome = commit.merge(self.lake.catalog, self.head, table.schema(), (), deletes, self._record(record, load_id))
        return replace(result, rows_removed=sum(file.rows for file in deletes), snapshot_id=outcome.snapshot_id)

    def _record(self, record: CommitRecord, load_id: str) -> CommitRecord:
        details = {name: text for name, text in record.details.items() if name != CARRIED_LOAD_ID}
        run_id = self.request.run_id
        return replace(record, load_id=load_id, run_id=run_id, rows=0, mode="delete_pass", details=details)

    def _load_id(self, moment: str) -> str:
        parts = ("delete pass", self.head.name, self.request.run_id, str(self.head.snapshot_id), moment)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    # -- names --------------------------------------------------------------------------------------------------

    @property
    def _keys(self) -> str:
        return quote_qualified("memory", "main", "source_keys")

    @property
    def _gone(self) -> str:
        return quote_qualified("memory", "main", "gone_keys")

    def _raw(self) -> str:
        table = quote_qualified("lake", self.request.namespace, self.request.spec.name)
        return f"(SELECT * FROM {table} AT (VERSION => {self.head.snapshot_id}))"

    def _type_of(self, name: str) -> IcebergType:
        fields = self.head.table.schema().fields if self.head.table else ()
        for each in fields:
            if each.name == name:
                return each.field_type
        raise TerminalError(
            f"{self.request.name}: raw has no column {name!r}; correct tenant.yaml, or load the table with it first"
        )

    def _skipped(self, reason: str) -> DeleteResult:
        return DeleteResult(self.request.name, "skipped", "none", reason, snapshot_id=self.head.snapshot_id)

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise TransientError(f"{self.request.name}: comparing keys: {describe(error)}") from error
        except duckdb.Error as error:
            raise TerminalError(f"{self.request.name}: comparing keys: {describe(error)}") from error


def _says_deleted(table: str, column: str, kind: IcebergType) -> str:
    """The condition under which a row is deleted: true, another number than 0, or any moment."""
    name = f"raw.{quote_identifier(column)}"
    if isinstance(kind, BooleanType):
        return name
    if isinstance(kind, IntegerType | LongType):
        return f"{name} <> 0"
    if isinstance(kind, TimestampType | TimestamptzType | DateType):
        return f"{name} IS NOT NULL"
    raise TerminalError(
        f"{table}: soft_delete names {column!r}, which is {kind}; it must be a boolean, a whole number (0: alive) or "
        "the moment of the deletion"
    )


def _scalar(cursor: DuckDBPyConnection, statement: str) -> Any:
    return cursor.execute(statement).fetchall()[0][0]
