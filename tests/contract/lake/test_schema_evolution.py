"""Columns that come, go, come again and widen: old values stay where they belong, for both readers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
)

from mozart.errors import TerminalError
from mozart.lake import commit
from mozart.lake.commit import Column
from tests.contract.lake.conftest import COLUMNS, LakeTable, people

WITH_CITY = (*COLUMNS, Column("city", StringType()))


def test_a_new_column_is_null_in_old_rows(loaded: LakeTable) -> None:
    loaded.load("merge", [{"id": 3, "name": "three", "city": "Bern"}], columns=WITH_CITY)
    table = loaded.check()
    assert [field.name for field in table.schema().fields] == ["id", "name", "city"]


def test_a_missing_column_stays_and_reads_null(loaded: LakeTable) -> None:
    loaded.load("append", [{"id": 20, "name": "x", "city": "Bern"}], columns=WITH_CITY)
    loaded.load("merge", [{"id": 20, "name": "y"}, {"id": 21, "name": "z"}])
    loaded.check()


@pytest.mark.parametrize("kind", [StringType(), LongType()])
def test_a_column_dropped_and_added_again_shows_no_old_value(loaded: LakeTable, kind: IcebergType) -> None:
    loaded.load("append", [{"id": 20, "name": "x", "city": "Bern"}], columns=WITH_CITY)
    first = loaded.head().table
    loaded.load("append", [{"id": 21, "name": "y"}], drop_missing=True)
    loaded.rows = [{"id": row["id"], "name": row["name"]} for row in loaded.rows]
    loaded.check()
    value = 7 if isinstance(kind, LongType) else "Uster"
    loaded.load("merge", [{"id": 22, "name": "z", "city": value}], columns=(*COLUMNS, Column("city", kind)))
    table = loaded.check()
    assert first is not None
    assert table.schema().find_field("city").field_id > first.schema().find_field("city").field_id


def test_widening_keeps_the_old_values(lake_table: LakeTable) -> None:
    def columns(*kinds: IcebergType) -> tuple[Column, ...]:
        return (Column("id", LongType()), *(Column(name, kind) for name, kind in zip("ifd", kinds, strict=True)))

    narrow = columns(IntegerType(), FloatType(), DecimalType(6, 2))
    wide = columns(LongType(), DoubleType(), DecimalType(20, 2))
    lake_table.columns = narrow
    lake_table.load("append", [{"id": 1, "i": 2**31 - 1, "f": 0.5, "d": Decimal("9999.99")}])
    big = {"id": 2, "i": 2**40, "f": 0.1, "d": Decimal("123456789012345678.99")}
    lake_table.load("merge", [big], columns=wide)
    lake_table.check()
    # the source goes back to the narrow types: the table stays wide
    lake_table.load("merge", [{"id": 1, "i": 5, "f": 0.25, "d": Decimal("1.00")}], columns=narrow)
    table = lake_table.check()
    assert [str(field.field_type) for field in table.schema().fields] == ["long", "long", "double", "decimal(20, 2)"]


def test_an_incompatible_type_names_table_and_column(loaded: LakeTable) -> None:
    with pytest.raises(TerminalError, match=r"items: column name is string and would become long.*full refresh"):
        loaded.plan("append", [], columns=[Column("id", LongType()), Column("name", LongType())])
    loaded.check()


def test_a_full_refresh_may_retype_and_nothing_else_may(loaded: LakeTable) -> None:
    retyped = (Column("id", LongType()), Column("name", LongType()))
    refused = loaded.plan("append", [{"id": 1, "name": 5}], columns=retyped, retype=True)
    with pytest.raises(TerminalError, match="old values would read NULL"):
        refused.send(loaded.catalog)
    loaded.check()
    loaded.load("replace", [{"id": 1, "name": 5}], columns=retyped, retype=True, mode="full_refresh")
    loaded.check()


def test_publishing_follows_the_given_columns(loaded: LakeTable) -> None:
    new = (Column("name", StringType(), doc="who"), Column("age", IntegerType()))
    loaded.load("replace", [{"name": "a", "age": 3}], columns=new, drop_missing=True, mode="publish")
    table = loaded.check()
    assert [(field.name, field.doc) for field in table.schema().fields] == [("name", "who"), ("age", None)]


def test_nested_fields_evolve(lake_table: LakeTable) -> None:
    def columns(*fields: NestedField) -> tuple[Column, ...]:
        kind = StructType(*fields)
        return Column("id", LongType()), Column("s", kind), Column("l", ListType(1, kind, element_required=False))

    city = NestedField(1, "city", StringType(), required=True)
    lake_table.columns = columns(city, NestedField(2, "n", IntegerType(), required=True))
    old = {"city": "Bern", "n": 1}
    lake_table.load("append", [{"id": 1, "s": old, "l": [old]}])
    more = columns(city, NestedField(2, "n", LongType()), NestedField(3, "zip", StringType()))
    new = {"city": "Uster", "n": 2**40, "zip": "8610"}
    lake_table.load("merge", [{"id": 2, "s": new, "l": [new]}], columns=more)
    padded = old | {"zip": None}
    lake_table.rows = [{"id": 1, "s": padded, "l": [padded]}, {"id": 2, "s": new, "l": [new]}]
    table = lake_table.check()
    ids = list(table.schema()._lazy_id_to_name)
    assert len(ids) == len(set(ids)) == 10


def test_a_change_of_columns_alone_is_committed(loaded: LakeTable) -> None:
    outcome = loaded.plan("append", [], columns=WITH_CITY).send(loaded.catalog)
    assert outcome.status == "committed"
    table = loaded.head().table
    assert table is not None and "city" in table.schema().column_names


def test_a_plan_made_on_other_columns_is_refused(loaded: LakeTable) -> None:
    stale = loaded.plan("append", [{"id": 50, "name": "x", "city": "Bern"}], columns=WITH_CITY)
    loaded.load("append", [{"id": 51, "name": "x", "zip": "1"}], columns=(*COLUMNS, Column("zip", StringType())))
    with pytest.raises(TerminalError, match="another state of the table"):
        commit.append(loaded.catalog, loaded.head(), stale.schema, stale.files, stale.record)
    loaded.check()


def test_tables_of_another_layout_are_refused(loaded: LakeTable) -> None:
    table = loaded.catalog.load_table(loaded.identifier)
    with table.update_spec() as update:
        update.add_identity("id")
    with pytest.raises(TerminalError, match="partitioned by someone else"):
        loaded.plan("append", people([60])).send(loaded.catalog)
