"""A computed mart against the product schema, before it replaces the published one.

Looks at the candidate itself (columns, types, rows) and at nothing a tenant has written: a model whose contract and
tests were removed is caught all the same. Two scans of a local table; no value of a row gets into a message.

Does not judge staging models: what they look like is the tenant's own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from duckdb import DuckDBPyConnection

from mozart.errors import DataQualityError
from mozart.lake.publish import Publication, candidate_columns
from mozart.sql import quote_identifier
from mozart.tenancy.product_schema import MART_PREFIX, PRODUCT_FILE, Mart, ProductSchema, portable_type

FirstRow = Callable[[str], Sequence[Any]]
"""The first row that a query gives; empty when it gives none."""


def require_product_mart(connection: DuckDBPyConnection, product: ProductSchema | None, candidate: Publication) -> None:
    """Raise DataQualityError, naming everything that differs, when the candidate is a mart that breaks `product`.

    Staging tables pass, and so does everything when `product` is None.
    """

    def first_row(sql: str) -> Sequence[Any]:
        return connection.execute(sql).fetchone() or ()

    if product is not None and candidate.table.startswith(MART_PREFIX):
        require_mart(product, candidate, candidate_shape(connection, candidate), first_row)


def require_mart(
    product: ProductSchema | None, candidate: Publication, shape: Sequence[tuple[str, str]], first_row: FirstRow
) -> None:
    """The same for an engine of which only the candidate's columns and the answers to questions are known."""
    if product is None or not candidate.table.startswith(MART_PREFIX):
        return
    mart = product.mart(candidate.table)
    if mart is None:
        raise DataQualityError(f"{candidate.table} is no mart of the product schema; add it to {PRODUCT_FILE} first")
    breaches = shape_breaches(mart, shape)
    if not breaches:
        breaches = row_breaches(first_row, mart, candidate.relation)
    if breaches:
        raise DataQualityError(f"{mart.name} breaks the product schema: {'; '.join(breaches)}")


def candidate_shape(connection: DuckDBPyConnection, candidate: Publication) -> list[tuple[str, str]]:
    """Names and Iceberg types of the candidate's columns; TerminalError for a type the lake cannot hold."""
    columns = candidate_columns(connection, candidate)
    return [(column.name, portable_type(str(column.type)) or str(column.type)) for column in columns]


def shape_breaches(mart: Mart, shape: Sequence[tuple[str, str]]) -> list[str]:
    """How the columns differ from the mart's: missing, extra, of another type, or in another order."""
    found = dict(shape)
    wanted = {column.name: column for column in mart.columns}
    breaches = [f"column {name} is missing" for name in wanted if name not in found]
    breaches += [f"column {name} is not part of it" for name in found if name not in wanted]
    breaches += [
        f"column {name} is {found[name]}, not {column.type}"
        for name, column in wanted.items()
        if name in found and found[name] != column.type
    ]
    if not breaches and [name for name, _ in shape] != list(wanted):
        breaches.append(f"its columns stand in another order than {', '.join(wanted)}")
    return breaches


def row_breaches(first_row: FirstRow, mart: Mart, relation: str) -> list[str]:
    """NULLs where there may be none, keys that occur more than once. `relation` is quoted SQL of the right shape."""
    required = [column.name for column in mart.columns if not column.nullable]
    breaches: list[str] = []
    if required:
        counts = ", ".join(f"count(*) FILTER (WHERE {quote_identifier(name)} IS NULL)" for name in required)
        row = first_row(f"SELECT {counts} FROM {relation}")
        breaches += [
            f"column {name} is NULL in {_rows(count)}" for name, count in zip(required, row, strict=True) if count
        ]
    key = ", ".join(quote_identifier(name) for name in mart.key)
    repeated = f"SELECT 1 FROM {relation} GROUP BY {key} HAVING count(*) > 1"
    row = first_row(f"SELECT count(*) FROM ({repeated})")
    if row and row[0]:
        breaches.append(f"{row[0]} value{'' if row[0] == 1 else 's'} of the key ({', '.join(mart.key)}) not unique")
    return breaches


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
