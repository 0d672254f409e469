"""Candidates of dbt into the lake: Parquet files first, then one `replace`. Readers see the old table or the new one.

A candidate is a table or view in a local DuckDB database that dbt has built and tested. Its rows stream through COPY,
so memory does not grow with them. Does not decide what may be published (`mozart.engine.dbt_verdict`) and commits
nothing itself (`mozart.lake.commit`).

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

from mozart.errors import TerminalError, TransientError
from mozart.lake.commit import Column, CommitRecord, TableHead, plan_schema, read_head, replace
from mozart.lake.head import CARRIED_LOAD_ID, FINGERPRINT
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land

INPUTS = "inputs"
_ATTEMPTS = 3
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Publication:
    """A candidate and the table it becomes. `relation` is quoted SQL; `details` go into the commit record."""

    namespace: str
    table: str
    relation: str
    run_id: str
    fingerprint: str
    details: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.table}"


@dataclass(frozen=True)
class Published:
    """`rows` is the table's row count after the commit; `already` says that an earlier attempt had committed it."""

    snapshot_id: int | None
    rows: int
    outcome: Literal["committed", "already"]


def publish(cursor: DuckDBPyConnection, lakehouse: Lakehouse, catalog: Catalog, publication: Publication) -> Published:
    """Replace the table by the candidate, in one commit. The first publication creates the table.

    Retries what may pass (a lost connection, another writer) a few times: the candidate has cost more than a pause.
    Raises TransientError when that did not help and TerminalError when the candidate cannot be a table of the lake.
    """
    with _duckdb_errors(publication):
        columns = candidate_columns(cursor, publication)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _publish_once(cursor, lakehouse, catalog, publication, columns)
        except TransientError:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))  # noqa: S311 - spreads rivals, guards nothing
    raise AssertionError("unreachable")


def _publish_once(
    cursor: DuckDBPyConnection,
    lakehouse: Lakehouse,
    catalog: Catalog,
    publication: Publication,
    columns: Sequence[Column],
) -> Published:
    head = read_head(catalog, (publication.namespace, publication.table))
    earlier = _committed_by(head, publication)
    if earlier:
        return earlier
    load_id = _load_id(publication, head)
    schema = plan_schema(head, columns, drop_missing=True, retype=True)
    folder = f"{lakehouse.landing_uri}/{publication.table}/{load_id}"
    names = [column.name for column in columns]
    io = load_file_io(lakehouse.catalog_properties(), folder)
    with _duckdb_errors(publication):
        landing = land(cursor, publication.relation, schema, names, folder=folder, io=io)
    record = CommitRecord(
        load_id=load_id,
        watermark=None,
        base=None,
        rows=landing.rows,
        run_id=publication.run_id,
        mode="publish",
        details={**publication.details, FINGERPRINT: publication.fingerprint},
    )
    outcome = replace(catalog, head, schema, landing.files, record)
    return Published(outcome.snapshot_id, landing.rows, "committed")


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


def _committed_by(head: TableHead, publication: Publication) -> Published | None:
    record = head.record
    if record is None or head.is_foreign or record.mode != "publish":
        return None
    if (record.run_id, record.details.get(FINGERPRINT)) != (publication.run_id, publication.fingerprint):
        return None
    return Published(head.snapshot_id, record.rows, "already")


def _load_id(publication: Publication, head: TableHead) -> str:
    parts = ("publish", publication.name, publication.fingerprint, publication.run_id, str(head.snapshot_id))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def candidate_columns(cursor: DuckDBPyConnection, publication: Publication) -> list[Column]:
    """The candidate's columns with exact Iceberg types; TerminalError names every column that has none."""
    relation = cursor.sql(f"FROM {publication.relation}")
    columns: list[Column] = []
    problems: list[str] = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        try:
            columns.append(Column(name, iceberg_type(kind)))
        except _NoTypeError as error:
            problems.append(f"column {name} is {error}")
    if problems:
        raise TerminalError(
            f"model {publication.name}: {'; '.join(problems)}, which the lake cannot hold; cast it in the model "
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
