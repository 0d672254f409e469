"""Candidates of dbt into the lake: Parquet files first, then one commit. Readers see the old table or the new one.

A candidate is a table or view in a local DuckDB database that dbt has built and tested. Its rows stream through COPY,
so memory does not grow with them. Does not decide what may be published (`mozart.engine.dbt_verdict`) and commits
nothing itself (`mozart.lake.commit`).

A whole candidate replaces the table. The delta of an incremental model is merged into it by key, and only onto the rows
that it was computed on: another publication, or another program's commit, since then is a `BaseChangedError`;
compaction is not.

The files lie where landing files lie, `{landing prefix}/{table}/{load id}/`, so that one sweep understands both. The
load id names the fingerprint, the run and the state of the table it was planned on: a second try of the same
publication finds the first one's commit instead of making another.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import duckdb
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from mozart.errors import CommitConflictError, TerminalError, TransientError
from mozart.lake.commit import Column, CommitRecord, TableHead, find_load, merge, plan_schema, read_head, replace, stamp
from mozart.lake.deltas import write_position_deletes
from mozart.lake.head import CARRIED_LOAD_ID, FINGERPRINT, visible_rows
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import Landing, land
from mozart.lake.schema_plan import schema_changes

INPUTS = "inputs"
CODE = "code"
"""The detail of an incremental model's table that names the code it was computed by, whatever the data."""
_ATTEMPTS = 3
_LONGEST_PAUSE_SECONDS = 2.0


class BaseChangedError(CommitConflictError):
    """The published table is no longer what a delta was computed on: only a new plan helps, so the next run."""


@dataclass(frozen=True)
class Merge:
    """How a delta becomes part of the published table: its rows take the place of those with the same `key`.

    `delta` is quoted SQL. `version` is that of the rows it was computed on (`LakeState.version`).
    """

    delta: str
    key: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Publication:
    """A candidate and the table it becomes. `relation` is quoted SQL; `details` go into the commit record.

    With `merge`, `relation` shows the rows that the table will have, and only the delta's are written.
    """

    namespace: str
    table: str
    relation: str
    run_id: str
    fingerprint: str
    details: Mapping[str, str] = field(default_factory=dict[str, str])
    merge: Merge | None = None

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.table}"

    def record(self, load_id: str, rows: int) -> CommitRecord:
        """The commit record of this publication; `rows` are those that it writes."""
        return CommitRecord(
            load_id=load_id,
            watermark=None,
            base=None,
            rows=rows,
            run_id=self.run_id,
            mode="publish",
            details={**self.details, FINGERPRINT: self.fingerprint},
        )


@dataclass(frozen=True)
class Published:
    """`rows` is the table's row count after the commit; `already` says that an earlier attempt had committed it.

    `merged_rows` are those of the delta, None when the table was replaced.
    """

    snapshot_id: int | None
    rows: int
    outcome: Literal["committed", "already"]
    merged_rows: int | None = None


def publish(cursor: DuckDBPyConnection, lakehouse: Lakehouse, catalog: Catalog, publication: Publication) -> Published:
    """Replace the table by the candidate, or merge the delta into it, in one commit. The first one creates the table.

    A delta needs a `cursor` that has the lake attached. Retries what may pass (a lost connection, another writer) a few
    times: the candidate has cost more than a pause. Raises TransientError when that did not help, BaseChangedError when
    a delta was computed on other rows, and TerminalError when the candidate cannot be a table of the lake.
    """
    writer = _Writer(cursor, lakehouse, catalog, publication)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return writer.merge(publication.merge) if publication.merge else writer.replace()
        except BaseChangedError:
            raise
        except TransientError:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))  # noqa: S311 - spreads rivals, guards nothing
    raise AssertionError("unreachable")


class _Writer:
    """One publication, tried as often as its caller likes."""

    def __init__(
        self, cursor: DuckDBPyConnection, lakehouse: Lakehouse, catalog: Catalog, publication: Publication
    ) -> None:
        self.cursor = cursor
        self.lakehouse = lakehouse
        self.catalog = catalog
        self.publication = publication
        self.source = publication.merge.delta if publication.merge else publication.relation
        with _duckdb_errors(publication):
            self.columns: Sequence[Column] = relation_columns(cursor, publication.name, self.source)

    def replace(self) -> Published:
        head = self._head()
        earlier = _committed_by(head, self.publication)
        if earlier:
            return earlier
        load_id = _load_id(self.publication, str(head.snapshot_id))
        schema = plan_schema(head, self.columns, drop_missing=True, retype=True)
        landing = self._land(schema, load_id)
        record = self.publication.record(load_id, landing.rows)
        outcome = replace(self.catalog, head, schema, landing.files, record)
        return Published(outcome.snapshot_id, landing.rows, "committed")

    def merge(self, how: Merge) -> Published:
        head = self._head()
        # Named after the rows it was computed on, not after the head: compaction may come in between.
        load_id = _load_id(self.publication, how.version)
        earlier = find_load(head, load_id)
        if earlier is not None:
            return Published(earlier, _row_count(head), "already")
        require_base(head, how)
        schema = require_same_columns(head, self.columns)
        landing = self._land(schema, load_id)
        record = self.publication.record(load_id, landing.rows)
        if not landing.rows:
            return Published(stamp(self.catalog, head, record).snapshot_id, _row_count(head), "committed", 0)
        deletes = write_position_deletes(self.cursor, head, how.delta, how.key, self._folder(load_id))
        outcome = merge(self.catalog, head, schema, landing.files, deletes, record)
        rows = _row_count(head) + landing.rows - sum(file.rows for file in deletes)
        return Published(outcome.snapshot_id, rows, "committed", landing.rows)

    def _head(self) -> TableHead:
        return read_head(self.catalog, (self.publication.namespace, self.publication.table))

    def _folder(self, load_id: str) -> str:
        return f"{self.lakehouse.landing_uri}/{self.publication.table}/{load_id}"

    def _land(self, schema: Schema, load_id: str) -> Landing:
        folder, names = self._folder(load_id), [column.name for column in self.columns]
        io = load_file_io(self.lakehouse.catalog_properties(), folder)
        with _duckdb_errors(self.publication):
            return land(self.cursor, self.source, schema, names, folder=folder, io=io)


def require_base(head: TableHead, how: Merge) -> None:
    """Raise BaseChangedError when the head's rows are not those that a delta was computed on."""
    if lake_state(head).version != how.version:
        raise BaseChangedError(
            f"table {head.name} was changed by another writer after the run was planned; nothing was merged into it, "
            "the next run computes it anew"
        )


def require_same_columns(head: TableHead, columns: Sequence[Column]) -> Schema:
    """The table's schema, in which a delta with `columns` can be written; TerminalError when they differ."""
    schema = plan_schema(head, columns, drop_missing=True, retype=True)
    if head.table is None or schema_changes(head, schema):
        published = {field.name: str(field.field_type) for field in head.table.schema().fields} if head.table else {}
        computed = {column.name: str(column.type) for column in columns}
        names = [name for name in {**published, **computed} if published.get(name) != computed.get(name)]
        told = ", ".join(f"{name}: {published.get(name, 'none')}, now {computed.get(name, 'none')}" for name in names)
        raise TerminalError(
            f"table {head.name} has other columns than the changed rows ({told or 'in another order'}); "
            "run the tenant with full_refresh=true"
        )
    return schema


@dataclass(frozen=True)
class LakeState:
    """A table as a run reads it. `version` stands for its rows; None, like the rest, when it does not exist."""

    version: str | None
    metadata_location: str | None
    snapshot_id: int | None


def lake_state(head: TableHead, wanted: int | None = None) -> LakeState:
    """The state to read: the snapshot `wanted` where it still exists, else the newest.

    The version is the id of the load that brought the rows. Maintenance makes new snapshots, with ids of their own, and
    carries the load's id along: compaction must not rebuild every mart. After a foreign commit only the snapshot's id
    tells.
    """
    table = head.table
    if table is None:
        return LakeState(None, None, None)
    snapshot = table.metadata.snapshot_by_id(wanted) if wanted is not None else None
    if snapshot is None or snapshot.snapshot_id == head.snapshot_id:
        snapshot_id, record = head.snapshot_id, None if head.is_foreign else head.record
    else:
        snapshot_id = snapshot.snapshot_id
        record = CommitRecord.from_properties(snapshot.summary.additional_properties if snapshot.summary else {})
    version = f"load:{record.details.get(CARRIED_LOAD_ID, record.load_id)}" if record else f"snapshot:{snapshot_id}"
    return LakeState(version, table.metadata_location, snapshot_id)


def published_fingerprint(head: TableHead) -> str | None:
    """The fingerprint of the published table's last commit of ours; None without one, or after a foreign commit."""
    if head.record is None or head.is_foreign:
        return None
    return head.record.details.get(FINGERPRINT)


def published_code(head: TableHead) -> str | None:
    """The code that computed the published rows; None where `published_fingerprint` is, and of other models."""
    if head.record is None or published_fingerprint(head) is None:
        return None
    return head.record.details.get(CODE)


def _committed_by(head: TableHead, publication: Publication) -> Published | None:
    record = head.record
    if record is None or head.is_foreign or record.mode != "publish":
        return None
    if (record.run_id, record.details.get(FINGERPRINT)) != (publication.run_id, publication.fingerprint):
        return None
    return Published(head.snapshot_id, record.rows, "already")


def _row_count(head: TableHead) -> int:
    snapshot = head.table.current_snapshot() if head.table else None
    return (visible_rows(snapshot) if snapshot else None) or 0


def _load_id(publication: Publication, base: str) -> str:
    parts = ("publish", publication.name, publication.fingerprint, publication.run_id, base)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def candidate_columns(cursor: DuckDBPyConnection, publication: Publication) -> list[Column]:
    """The candidate's columns with exact Iceberg types; TerminalError names every column that has none."""
    return relation_columns(cursor, publication.name, publication.relation)


def relation_columns(cursor: DuckDBPyConnection, model: str, sql: str) -> list[Column]:
    """The same for any FROM item; `model` is for the error."""
    relation = cursor.sql(f"FROM {sql}")
    columns: list[Column] = []
    problems: list[str] = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        try:
            columns.append(Column(name, iceberg_type(kind)))
        except _NoTypeError as error:
            problems.append(f"column {name} is {error}")
    if problems:
        raise TerminalError(
            f"model {model}: {'; '.join(problems)}, which the lake cannot hold; cast it in the model "
            "(a sum of integers is HUGEINT: cast it to bigint or decimal)"
        )
    return columns


@contextmanager
def _duckdb_errors(publication: Publication) -> Generator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.HTTPException) as error:
        raise TransientError(f"model {publication.name}: writing its files failed: {error}") from error
    except duckdb.Error as error:
        raise TerminalError(f"model {publication.name}: its candidate cannot be written: {error}") from error


class _NoTypeError(Exception):
    """A DuckDB type that no Iceberg type holds exactly; its text is the type."""


def iceberg_type(kind: DuckDBPyType) -> IcebergType:
    """The Iceberg type that holds every value of a DuckDB type. Ids inside nested types are placeholders."""
    simple = _SIMPLE.get(kind.id)
    if simple is not None:
        return simple
    if kind.id not in ("decimal", "list", "struct", "map"):
        raise _NoTypeError(str(kind))
    parts = cast(Sequence[tuple[str, Any]], kind.children)
    if kind.id == "decimal":
        return DecimalType(*(int(number) for _, number in parts))
    inner = [iceberg_type(part) for _, part in parts]
    if kind.id == "list":
        return ListType(1, inner[0], element_required=False)
    if kind.id == "map":
        return MapType(1, inner[0], 2, inner[1], value_required=False)
    names = [name for name, _ in parts]
    return StructType(
        *(
            NestedField(i, name, part, required=False)
            for i, (name, part) in enumerate(zip(names, inner, strict=True), 1)
        )
    )


_SIMPLE: Mapping[str, IcebergType] = {
    "boolean": BooleanType(),
    "tinyint": IntegerType(),
    "smallint": IntegerType(),
    "integer": IntegerType(),
    "utinyint": IntegerType(),
    "usmallint": IntegerType(),
    "uinteger": LongType(),
    "bigint": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamp_s": TimestampType(),
    "timestamp_ms": TimestampType(),
    "timestamp with time zone": TimestamptzType(),
    "varchar": StringType(),
    "enum": StringType(),
    "blob": BinaryType(),
    "uuid": UUIDType(),
}
