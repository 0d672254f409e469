"""A computed table held to the product schema, whatever its tenant says about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from duckdb import DuckDBPyConnection

from mozart.engine.duckdb import connect
from mozart.engine.product_check import require_product_mart
from mozart.errors import DataQualityError, TerminalError
from mozart.lake.publish import Publication
from mozart.tenancy.product_schema import Mart, MartColumn, ProductSchema, load_product_schema

PRODUCT = ProductSchema(
    version=1,
    marts=(
        Mart(
            name="mart_flow",
            description="Flows.",
            key=("case_id", "month"),
            columns=(
                MartColumn(name="case_id", type="long", description="."),
                MartColumn(name="month", type="int", description="."),
                MartColumn(name="amount", type="decimal(18,2)", nullable=True, description="."),
                MartColumn(name="seen", type="timestamptz", description="."),
            ),
        ),
    ),
)
GOOD = """
    SELECT case_id::BIGINT AS case_id, month::INT AS month, amount::DECIMAL(18,2) AS amount, seen::TIMESTAMPTZ AS seen
    FROM (VALUES (1, 1, 1.5, '2024-01-01'), (1, 2, NULL, '2024-01-01'), (2, 1, 0, '2024-01-01'))
        AS t(case_id, month, amount, seen)
"""


@pytest.fixture
def connection() -> Iterator[DuckDBPyConnection]:
    with connect() as opened:
        yield opened


def require(
    connection: DuckDBPyConnection, sql: str, table: str = "mart_flow", product: ProductSchema | None = PRODUCT
) -> None:
    connection.execute(f"CREATE TABLE candidate AS {sql}")
    require_product_mart(connection, product, Publication("acme", table, "candidate", "run", "print"))


def test_a_right_mart_passes(connection: DuckDBPyConnection) -> None:
    require(connection, GOOD)


@pytest.mark.parametrize(
    ("old", "new", "breach"),
    [
        ("amount::DECIMAL(18,2) AS amount, ", "", "column amount is missing"),
        ("seen::TIMESTAMPTZ AS seen", "seen::TIMESTAMPTZ AS seen, 1 AS more", "column more is not part of it"),
        ("case_id::BIGINT", "case_id::INT", "column case_id is int, not long"),
        ("DECIMAL(18,2)", "DECIMAL(18,3)", "column amount is decimal(18,3), not decimal(18,2)"),
        ("TIMESTAMPTZ", "TIMESTAMP", "column seen is timestamp, not timestamptz"),
        ("AS case_id", 'AS "Case_Id"', "column Case_Id is not part of it"),
        ("case_id::BIGINT AS case_id, month::INT AS month", "month::INT AS month, case_id::BIGINT AS case_id", "order"),
        ("(2, 1, 0, '2024-01-01')", "(2, 1, 0, NULL)", "column seen is NULL in 1 row"),
        ("(1, 2, NULL", "(NULL, 2, NULL", "column case_id is NULL in 1 row"),
        ("(1, 2, NULL", "(1, 1, NULL", "1 value of the key (case_id, month) not unique"),
    ],
)  # fmt: skip
def test_a_breach_is_named(connection: DuckDBPyConnection, old: str, new: str, breach: str) -> None:
    assert old in GOOD
    with pytest.raises(DataQualityError) as caught:
        require(connection, GOOD.replace(old, new))
    assert breach in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_mart_is_refused_and_staging_is_free(connection: DuckDBPyConnection) -> None:
    with pytest.raises(DataQualityError, match="mart_other is no mart of the product schema"):
        require(connection, GOOD, "mart_other")
    require_product_mart(connection, PRODUCT, Publication("acme", "stg_flow", "candidate", "run", "print"))
    require_product_mart(connection, None, Publication("acme", "mart_other", "candidate", "run", "print"))


def test_a_type_without_an_answer_is_named(connection: DuckDBPyConnection) -> None:
    with pytest.raises(TerminalError, match="column case_id is HUGEINT"):
        require(connection, GOOD.replace("case_id::BIGINT", "case_id::HUGEINT"))


def test_an_empty_mart_has_the_right_shape(connection: DuckDBPyConnection) -> None:
    require(connection, f"{GOOD} WHERE false")


def test_every_type_of_the_definition_is_one_that_a_table_can_have(connection: DuckDBPyConnection) -> None:
    """The contract's spelling of each column makes the type the definition asks for."""
    product = load_product_schema(Path(__file__).parents[3])
    for mart in product.marts:
        columns = ", ".join(f'CAST(NULL AS {c.contract_type}) AS "{c.name}"' for c in mart.columns)
        connection.execute(f"CREATE OR REPLACE TABLE {mart.name} AS SELECT {columns} WHERE false")
        require_product_mart(connection, product, Publication("acme", mart.name, mart.name, "run", "print"))
