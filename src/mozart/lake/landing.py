"""A relation of DuckDB into Parquet files that carry the table's field ids.

A landing file is the data file of the table that will be committed: it is written once. Every attempt writes under
names of its own, so that no attempt can touch a file whose commit is in doubt. Files that were never handed to a
commit are the attempt's own and may be removed by it; all others belong to the sweep.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from mozart.errors import TerminalError
from mozart.lake.commit import DataFileRef
from mozart.sql import quote_identifier, quote_literal

_FILE_BYTES = "256MB"
_ROW_GROUP_ROWS = 122_880
# PARQUET_VERSION V2 is about encodings (whole numbers and texts by their differences): 5M rows x 8 columns were
# written in 4.8 instead of 5.5 CPU s, a fifth smaller; a scan of the key, as every merge makes one, took 0.014 instead
# of 0.056.

_ROW_GROUP_BYTES = 32_000_000
"""Rows of long texts make smaller groups: 60,000 rows of 1.3 kB did not fit into 256 MB otherwise, and into 128 MB so.
Holds only where DuckDB need not keep the rows in order, as everywhere here."""

_ZSTD_LEVEL = 1
"""Level 3 made lineitem's files a few percent smaller for a fifth more of the client's CPU. Bloom filters are written
for columns of few values only, where no reader of ours asks for one."""

_DICTIONARY_VALUES = 500
"""A column of more different values in a group of rows is written without a dictionary. With DuckDB's own limit,
which grows with the group, looking each value up made lineitem a quarter dearer to write, and its files no smaller."""


@dataclass(frozen=True)
class Landing:
    """The files of one relation: none when it had no rows. `size` is in bytes."""

    files: tuple[DataFileRef, ...]
    rows: int
    size: int


def land(
    cursor: DuckDBPyConnection,
    relation: str,
    schema: Schema,
    columns: Sequence[str],
    *,
    folder: str,
    io: FileIO,
    streams: int = 1,
) -> Landing:
    """Stream `relation`'s `columns` into Parquet under `folder` (an s3 URI); memory does not grow with the rows.

    A group of rows is held until it is written, so who lands several `streams` at the same time makes smaller groups.
    """
    fields = [schema.find_field(name) for name in columns]
    select = ", ".join(
        f"{quote_identifier(field.name)}::{duckdb_type(field.field_type)} AS {quote_identifier(field.name)}"
        for field in fields
    )
    ids = ", ".join(
        f"{quote_identifier(field.name)}: {_field_ids(field.field_id, field.field_type)}" for field in fields
    )
    # What a second stream holds beside its group, read and being sent, is a third share.
    shares = streams if streams == 1 else streams + 1
    result = cursor.execute(
        f"COPY (SELECT {select} FROM {relation}) TO {quote_literal(folder)} (FORMAT parquet, PARQUET_VERSION V2, "
        f"COMPRESSION zstd, COMPRESSION_LEVEL {_ZSTD_LEVEL}, WRITE_BLOOM_FILTER false, "
        f"DICTIONARY_SIZE_LIMIT {_DICTIONARY_VALUES}, ROW_GROUP_SIZE {_ROW_GROUP_ROWS // shares}, "
        f"ROW_GROUP_SIZE_BYTES {_ROW_GROUP_BYTES // shares}, "
        f"FILE_SIZE_BYTES {quote_literal(_FILE_BYTES)}, "
        f"FILENAME_PATTERN {quote_literal(f'{secrets.token_hex(4)}-{{i}}')}, OVERWRITE_OR_IGNORE, RETURN_STATS, "
        f"FIELD_IDS {{{ids}}})"
    )
    written = [(str(row[0]), int(row[1]), int(row[2])) for row in result.fetchall()]
    for path, rows, _size in written:
        if rows == 0:
            io.delete(path)
    kept = [entry for entry in written if entry[1] > 0]
    files = tuple(DataFileRef(path, rows) for path, rows, _size in kept)
    return Landing(files, sum(entry[1] for entry in kept), sum(entry[2] for entry in kept))


def discard(landing: Landing, io: FileIO) -> None:
    """Remove files that were never handed to a commit. Never call it after one was sent."""
    for file in landing.files:
        io.delete(file.path)


def scan(landing: Landing) -> str:
    """A FROM item that reads the landing's files; the landing must have some."""
    paths = ", ".join(quote_literal(file.path) for file in landing.files)
    return f"read_parquet([{paths}])"


def duckdb_type(iceberg: IcebergType) -> str:
    """The DuckDB type that writes `iceberg` exactly."""
    if isinstance(iceberg, DecimalType):
        return f"DECIMAL({iceberg.precision},{iceberg.scale})"
    if isinstance(iceberg, ListType):
        return f"{duckdb_type(iceberg.element_type)}[]"
    if isinstance(iceberg, StructType):
        inner = ", ".join(f"{quote_identifier(f.name)} {duckdb_type(f.field_type)}" for f in iceberg.fields)
        return f"STRUCT({inner})"
    if isinstance(iceberg, MapType):
        return f"MAP({duckdb_type(iceberg.key_type)}, {duckdb_type(iceberg.value_type)})"
    name = _DUCKDB_TYPES.get(type(iceberg))
    if name is None:
        raise TerminalError(f"no DuckDB type writes the Iceberg type {iceberg}")
    return name


def _field_ids(field_id: int, iceberg: IcebergType) -> str:
    if isinstance(iceberg, ListType):
        return f"{{__duckdb_field_id: {field_id}, element: {_field_ids(iceberg.element_id, iceberg.element_type)}}}"
    if isinstance(iceberg, StructType):
        inner = ", ".join(f"{quote_identifier(f.name)}: {_field_ids(f.field_id, f.field_type)}" for f in iceberg.fields)
        return f"{{__duckdb_field_id: {field_id}, {inner}}}"
    if isinstance(iceberg, MapType):
        key, value = _field_ids(iceberg.key_id, iceberg.key_type), _field_ids(iceberg.value_id, iceberg.value_type)
        return f"{{__duckdb_field_id: {field_id}, key: {key}, value: {value}}}"
    return str(field_id)


_DUCKDB_TYPES: dict[type[IcebergType], str] = {
    BooleanType: "BOOLEAN",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    DateType: "DATE",
    TimeType: "TIME",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMPTZ",
    StringType: "VARCHAR",
    BinaryType: "BLOB",
    FixedType: "BLOB",
    UUIDType: "UUID",
}
