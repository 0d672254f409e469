"""The load protocol of one raw table: exactly once, whatever happens between its steps.

1. Read the table's head and its commit record. 2. Plan. 3. Read inside the run's source snapshot: a full refresh
streams into files (`mozart.lake.extract`; large tables in parts); an incremental load stages its delta in DuckDB
(spilled to disk when large), keeps one row a key, drops rows that equal what raw has, and lands the rest. 4. One
conditional commit of schema, data and record. 5. A conflict or a lost answer: look for the load id, else plan again on
the new head, after a random pause.

A load that finds nothing new commits nothing. It never deletes a file that was handed to a commit. One that sees its
table's files pile up compacts it after its own commit, where no other writer is in the way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from duckdb import DuckDBPyConnection
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema

from mozart.connectors.base import SourceReader, SourceTable, TableRead, Window
from mozart.connectors.errors import end_read, read_error
from mozart.connectors.values import ValueCounts
from mozart.errors import CommitConflictError, CommitInDoubtError, DataQualityError, MozartError
from mozart.lake import commit
from mozart.lake.catalog_client import translated
from mozart.lake.commit import CommitOutcome, CommitRecord, TableHead
from mozart.lake.compaction import DEFAULT_POLICY, CompactionPolicy, compact_after_load
from mozart.lake.deltas import write_position_deletes
from mozart.lake.digest import EMPTY_DIGEST, digest_rows
from mozart.lake.drift import NO_DRIFT, SchemaDrift
from mozart.lake.duckdb_errors import duckdb_translated
from mozart.lake.extract import Extraction, Extractor, OnRows, RowsRead, Target
from mozart.lake.landing import Landing, discard, duckdb_type, land, scan
from mozart.lake.load_plan import COMPARED, LoadMode, LoadPlan, LoadRequest, plan_load
from mozart.lake.schema_plan import Column, plan_schema
from mozart.lake.session import LakeSession
from mozart.sql import quote_identifier, quote_literal, quote_qualified

LoadStatus = Literal["committed", "unchanged", "planned"]
Progress = Callable[[str], None]

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class LoadResult:
    """What one load did. Rows are counts; `size` is bytes landed; `load_id` names the data now in raw.

    `nulled` counts the values that no Iceberg type could hold and that became NULL, by column. `parts` is how many the
    table was read in, `resumed` how many of them an earlier load had landed, `snapshots` from how many states of the
    source the rows are. `window` says in words which rows a load reads.
    """

    table: str
    status: LoadStatus
    mode: LoadMode
    reason: str | None
    rows_read: int
    rows_landed: int
    rows_committed: int
    rows_replaced: int
    watermark: str | None
    load_id: str | None
    snapshot_id: int | None
    size: int
    seconds: float
    attempts: int
    drift: SchemaDrift = NO_DRIFT
    nulled: Mapping[str, int] = field(default_factory=dict[str, int])
    parts: int = 1
    resumed: int = 0
    snapshots: int = 1
    window: str = "all rows"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know although the load went well: drift, values lost to NULL, a mixed read."""
        found = [f"columns differ ({self.drift.contract}): {self.drift.line}"] if self.drift else []
        if self.nulled:
            counts = ", ".join(f"{column}: {count}" for column, count in self.nulled.items())
            found.append(f"values that Iceberg cannot hold became NULL: {counts}")
        if self.snapshots > 1:
            found.append(f"the rows are from {self.snapshots} states of the source ({self.resumed} parts taken up)")
        return tuple(found)


def load_table(
    request: LoadRequest,
    reader: SourceReader,
    lake: LakeSession,
    progress: Progress = lambda _line: None,
    *,
    on_rows: OnRows | None = None,
    compaction: CompactionPolicy | None = DEFAULT_POLICY,
) -> LoadResult:
    """Load one table. Raises TransientError or TerminalError naming it; the table then is as it was before.

    `progress` is given lines, `on_rows` figures of a table whose read takes a while (and the lines as well).
    `compaction` says when a committed load compacts its table; None: never. The result's snapshot is the load's own.
    """

    def report(figures: RowsRead) -> None:
        progress(figures.line)
        if on_rows is not None:
            on_rows(figures)

    started = time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with translated(f"loading {request.name}"), duckdb_translated(f"loading {request.name}"):
                result = _Load(request, reader, lake, progress, report).run()
            if result.status == "committed" and compaction is not None:
                table = (request.namespace, request.spec.name)
                compact_after_load(lake, table, run_id=request.run_id, policy=compaction, progress=progress)
            return replace(result, seconds=round(time.monotonic() - started, 3), attempts=attempt)
        except (CommitConflictError, CommitInDoubtError) as error:
            if attempt == _ATTEMPTS:
                raise
            progress(f"planning again, {attempt} of {_ATTEMPTS - 1}: {error}")
            time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**attempt))  # noqa: S311 - so that no loader starves
    raise MozartError(f"{request.name}: unreachable")


class _Load:
    """One attempt: its cursors, its head, its plan."""

    def __init__(
        self, request: LoadRequest, reader: SourceReader, lake: LakeSession, progress: Progress, on_rows: OnRows
    ) -> None:
        self.request = request
        self.reader = reader
        self.lake = lake
        self.progress = progress
        self.extractor = Extractor(request.name, reader, lake, on_rows)
        self.head: TableHead = commit.read_head(lake.catalog, (request.namespace, request.spec.name))
        self.table: SourceTable = self._describe()
        self.plan: LoadPlan = plan_load(request, self.head, self.table, reader.position)

    def _describe(self) -> SourceTable:
        """The table in a state of the source that is not older than the one raw was loaded from.

        Another run may have read the source after this one took its snapshot, and committed before this head was read.
        """
        spec, record = self.request.spec, self.head.record
        table = self.reader.describe(spec.source_schema, spec.source_table)
        seen_at = record.details.get("seen_at") if record and record.details.get("source") == table.identity else None
        if seen_at is not None and self.reader.renew(datetime.fromisoformat(seen_at)):
            return self.reader.describe(spec.source_schema, spec.source_table)
        return table

    def run(self) -> LoadResult:
        # Before a dry run as well: what the columns' contract forbids shall show there.
        columns = [Column(column.name, column.iceberg_type) for column in self.plan.columns]
        schema = plan_schema(self.head, columns, retype=self.request.full_refresh and self.plan.mode == "full_refresh")
        if self.plan.drift:
            self.progress(f"{self.request.name}: columns differ: {self.plan.drift.line}")
        if self.request.dry_run:
            return self._dry_run()
        self.progress(f"reading {self.table.qualified_name} ({self.plan.mode.replace('_', ' ')})")
        if self.plan.mode == "full_refresh":
            return self._full_refresh(schema)
        return self._merge(schema)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self) -> TableRead:
        equals = {name.lower(): value for name, value in self.request.equals.items()}
        return TableRead(self.table, self.plan.columns, equals, self.plan.window, unfit=self.request.spec.unfit_values)

    def _source_cursor(self) -> DuckDBPyConnection:
        cursor = self.lake.cursor()
        self.reader.begin(cursor)
        return cursor

    def _dry_run(self) -> LoadResult:
        with self.reader.slots:
            cursor = self._source_cursor()
            try:
                rows = int(_scalar(cursor, f"SELECT rows FROM {self.reader.count_relation(cursor, self._read())}"))
                return self._result("planned", rows_read=rows)
            except Exception as error:
                raise read_error(self.request.name, error) from error
            finally:
                end_read(cursor)

    # -- full refresh -------------------------------------------------------------------------------------------

    def _full_refresh(self, schema: Schema) -> LoadResult:
        order = self.request.key if self.request.spec.layout == "key" else ()
        target = Target(schema, self.plan.names, self._folder(), order)
        read = self.extractor.extract(self._read(), target, self.plan, may_mix=self.request.spec.mode == "incremental")
        self.plan = self._plan_of(read)
        landing = self._keep_one_row_a_key(read, schema)
        self.progress(f"landed {landing.rows} rows")
        self._check_watermarks(scan(landing) if landing.files else None)
        high, watermark = self._marks(scan(landing) if landing.files else None)
        if self._equals_raw(landing, schema, watermark):
            read.forget()
            discard(landing, self._io())
            return self._told(
                self._result("unchanged", rows_read=landing.rows, reason="the source's rows are those raw has"), read
            )
        record = self._record(landing.rows, high, watermark)
        outcome = commit.replace(self.lake.catalog, self.head, schema, landing.files, record)
        read.forget()
        return self._told(self._committed(outcome, landing, landing.rows, record), read)

    def _plan_of(self, read: Extraction) -> LoadPlan:
        """The plan with what the read turned out to be: its earliest bound, and its states where they are several."""
        details = {**self.plan.details, "asked_at": read.asked_at, "seen_at": self._seen_at()}
        if read.snapshots > 1:
            details |= {"source_snapshots": str(read.snapshots), "resumed_parts": f"{read.resumed} of {read.parts}"}
        return replace(self.plan, details=details, safe=read.safe)

    def _seen_at(self) -> str:
        return self.reader.position.now().astimezone(UTC).isoformat()

    def _told(self, result: LoadResult, read: Extraction) -> LoadResult:
        return replace(
            result, nulled=read.nulled, parts=read.parts, resumed=read.resumed, snapshots=max(read.snapshots, 1)
        )

    def _keep_one_row_a_key(self, read: Extraction, schema: Schema) -> Landing:
        """Where the source does not keep the key unique, the newest row of a key wins."""
        landing = read.landing
        if not landing.files or not self._key_needs_care():
            return landing
        cursor = self.lake.cursor()
        keys = ", ".join(quote_identifier(name) for name in self.request.key)
        distinct = int(_scalar(cursor, f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {scan(landing)})"))
        if distinct == landing.rows:
            return landing
        unique = self._land(cursor, f"({_newest_of_key(self.request, scan(landing))})", schema)
        read.forget()
        discard(landing, self._io())
        return unique

    def _key_needs_care(self) -> bool:
        key = frozenset(self.request.key)
        return bool(key) and not any(unique <= key for unique in self.table.unique_keys)

    def _check_watermarks(self, relation: str | None) -> None:
        """Fail on rows without a watermark where tenant.yaml says so; else they are read again every time."""
        spec = self.request.spec
        if (
            relation is None
            or spec.null_watermarks != "fail"
            or spec.mode != "incremental"
            or not spec.incremental_column
        ):
            return
        column = quote_identifier(spec.incremental_column.lower())
        keys = ", ".join(f"{quote_identifier(key)}::VARCHAR" for key in self.request.key)
        rows = self.lake.cursor().execute(
            f"SELECT count(*), min(concat_ws(', ', {keys})) FROM {relation} WHERE {column} IS NULL"
        )
        count, key = rows.fetchall()[0]
        if count:
            raise DataQualityError(
                f"{self.request.name}: {count} rows have no {spec.incremental_column}, and null_watermarks is fail "
                f"(the first has key {key}); nothing was committed. Fill the column at the source, or set "
                "null_watermarks to read"
            )

    def _equals_raw(self, landing: Landing, schema: Schema, watermark: str | None) -> bool:
        """Whether raw already has exactly these rows; only looked at where the counts agree and nobody insists."""
        record, table = self.head.record, self.head.table
        if self.request.full_refresh or table is None or record is None or record.mode != "full_refresh":
            return False
        details = {name: record.details.get(name) for name in COMPARED}
        if details != {name: self.plan.details[name] for name in COMPARED} or schema != table.schema():
            return False
        if record.rows != landing.rows or record.watermark != watermark:
            return False
        cursor = self.lake.cursor()
        new = digest_rows(cursor, scan(landing), self.plan.names) if landing.files else EMPTY_DIGEST
        return new == digest_rows(cursor, self._raw_now(), self.plan.names)

    # -- incremental and backfill -------------------------------------------------------------------------------

    def _merge(self, schema: Schema) -> LoadResult:
        cursor = self.lake.cursor()
        try:
            rows_read, nulled = self._stage(schema)
            if rows_read == 0:
                return self._result("unchanged", rows_read=0, reason="nothing new")
            self.plan = replace(self.plan, details={**self.plan.details, "seen_at": self._seen_at()})
            self._check_watermarks(self._staged)
            high, watermark = self._marks(self._staged)
            self._drop_repeats(cursor)
            landing = self._land(cursor, self._staged, schema)
            if not landing.rows:
                again = self._result("unchanged", rows_read=rows_read, reason="every row read is in raw already")
                return replace(again, nulled=nulled)
            self.progress(f"landed {landing.rows} of {rows_read} rows read")
            deletes = write_position_deletes(cursor, self.head, self._staged, self.request.key, self._folder())
            record = self._record(landing.rows, high, watermark)
            outcome = commit.merge(self.lake.catalog, self.head, schema, landing.files, deletes, record)
            return replace(self._committed(outcome, landing, rows_read, record), nulled=nulled)
        finally:
            cursor.execute(f"DROP TABLE IF EXISTS {self._staged}")
            cursor.close()

    @property
    def _staged(self) -> str:
        """The staged delta: a table of the instance's memory database, spilled to disk when it is large."""
        return quote_qualified("memory", "main", f"delta_{self.request.namespace}_{self.request.spec.name}")

    def _stage(self, schema: Schema) -> tuple[int, Mapping[str, int]]:
        """Read the delta into DuckDB: its rows, and the values that became NULL by column."""
        casts = ", ".join(
            f"{quote_identifier(name)}::{duckdb_type(schema.find_field(name).field_type)} AS {quote_identifier(name)}"
            for name in self.plan.names
        )
        read = replace(self._read(), counts=ValueCounts())
        with self.reader.slots:
            cursor = self._source_cursor()
            try:
                relation = self.reader.relation(cursor, read)
                cursor.execute(f"CREATE OR REPLACE TABLE {self._staged} AS SELECT {casts} FROM {relation}")
                rows = int(_scalar(cursor, f"SELECT count(*) FROM {self._staged}"))
                nulled = read.counts.collect(cursor)
                cursor.execute("COMMIT")
            except Exception as error:
                raise read_error(self.request.name, error) from error
            finally:
                end_read(cursor)
        return (self._stage_one_row_a_key() if rows and self._key_needs_care() else rows), nulled

    def _stage_one_row_a_key(self) -> int:
        cursor = self.lake.cursor()
        cursor.execute(f"CREATE OR REPLACE TABLE {self._staged} AS {_newest_of_key(self.request, self._staged)}")
        return int(_scalar(cursor, f"SELECT count(*) FROM {self._staged}"))

    def _drop_repeats(self, cursor: DuckDBPyConnection) -> None:
        """Remove staged rows that raw has already, in every column: those above a watermark that could not advance."""
        keys = " AND ".join(_same(name) for name in self.request.key)
        values = " AND ".join(_same(name) for name in self.plan.names if name not in self.request.key) or "TRUE"
        again = self._repeatable_rows()
        if again is None:
            return
        cursor.execute(
            f"DELETE FROM {self._staged} AS staged USING {self._raw_now()} AS raw WHERE {again} AND {keys} AND {values}"
        )

    def _repeatable_rows(self) -> str | None:
        """Which staged rows an earlier load may have read; None when it can be none."""
        if self.plan.mode == "backfill":
            return "TRUE"
        column = f"staged.{quote_identifier((self.request.spec.incremental_column or '').lower())}"
        record = self.head.record
        high = record.details.get("high") if record and self.plan.may_repeat else None
        return f"({column} IS NULL OR {column} <= {quote_literal(high)})" if high else f"{column} IS NULL"

    # -- marks, record, result ----------------------------------------------------------------------------------

    def _marks(self, relation: str | None) -> tuple[str | None, str | None]:
        """The highest value read, and the highest that is safe as a watermark; never below the one in force."""
        name = self.request.spec.incremental_column
        if not name or self.request.spec.mode != "incremental":
            return None, None
        if self.plan.mode == "backfill":
            record = self.head.record
            return (record.details.get("high") if record else None), self.plan.watermark
        if relation is None:
            return None, self.plan.safe or self.plan.settled
        column = f"max({quote_identifier(name.lower())})"
        kind = duckdb_type(next(c.iceberg_type for c in self.plan.columns if c.name == name.lower()))
        marks = (self.plan.watermark, self.plan.safe, self.plan.settled)
        old, safe, settled = (f"CAST({quote_literal(text)} AS {kind})" for text in marks)
        reached = f"least({column}, {safe})" if self.plan.safe else settled
        marks = f"greatest({column}, {old})::VARCHAR, greatest({reached}, {old})::VARCHAR"
        row = self.lake.cursor().execute(f"SELECT {marks} FROM {relation}").fetchall()[0]
        return row[0], row[1]

    def _record(self, rows: int, high: str | None, watermark: str | None) -> CommitRecord:
        details = {**self.plan.details, "bound": "time" if self.plan.safe else "none"}
        if high is not None:
            details["high"] = high
        return CommitRecord(
            load_id=self.plan.load_id,
            watermark=watermark,
            base=self.head.snapshot_id,
            rows=rows,
            run_id=self.request.run_id,
            mode=self.plan.mode,
            details=details,
        )

    def _committed(self, outcome: CommitOutcome, landing: Landing, rows_read: int, record: CommitRecord) -> LoadResult:
        return replace(
            self._result("committed", rows_read=rows_read),
            rows_landed=landing.rows,
            rows_committed=outcome.rows_added,
            rows_replaced=outcome.rows_deleted,
            watermark=record.watermark,
            load_id=record.load_id,
            snapshot_id=outcome.snapshot_id,
            size=landing.size,
        )

    def _result(self, status: LoadStatus, *, rows_read: int, reason: str | None = None) -> LoadResult:
        record = self.head.record
        return LoadResult(
            table=self.request.spec.name,
            status=status,
            mode=self.plan.mode,
            reason=reason or self.plan.reason,
            rows_read=rows_read,
            rows_landed=0,
            rows_committed=0,
            rows_replaced=0,
            watermark=record.watermark if record else None,
            load_id=record.load_id if record else None,
            snapshot_id=self.head.snapshot_id,
            size=0,
            seconds=0.0,
            attempts=1,
            drift=self.plan.drift,
            window=_in_words(self.plan.window),
        )

    def _land(self, cursor: DuckDBPyConnection, relation: str, schema: Schema) -> Landing:
        return land(cursor, relation, schema, self.plan.names, folder=self._folder(), io=self._io())

    def _folder(self) -> str:
        return f"{self.lake.lakehouse.landing_uri}/{self.request.spec.name}/{self.plan.load_id}"

    def _raw_now(self) -> str:
        """The raw table as the plan saw it."""
        table = quote_qualified("lake", self.request.namespace, self.request.spec.name)
        return f"(SELECT * FROM {table} AT (VERSION => {self.head.snapshot_id}))"

    def _io(self) -> FileIO:
        return self.lake.io(self.lake.lakehouse.landing_uri)


def _newest_of_key(request: LoadRequest, relation: str) -> str:
    """One row a key: the highest incremental column, and among equals the row that sorts last in all its columns."""
    keys = ", ".join(quote_identifier(name) for name in request.key)
    column = request.spec.incremental_column
    newest = f"{quote_identifier(column.lower())} DESC NULLS LAST, " if column else ""
    return (
        f"SELECT * FROM {relation} AS candidate "
        f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}candidate::VARCHAR DESC) = 1"
    )


def _in_words(window: Window | None) -> str:
    if window is None:
        return "all rows"
    ends = ((">", window.after), (">=", window.since), ("<", window.until))
    return " and ".join(f"{window.column} {sign} {text}" for sign, text in ends if text is not None) or "all rows"


def _same(name: str) -> str:
    column = quote_identifier(name)
    return f"staged.{column} IS NOT DISTINCT FROM raw.{column}"


def _scalar(cursor: DuckDBPyConnection, statement: str) -> Any:
    return cursor.execute(statement).fetchall()[0][0]
