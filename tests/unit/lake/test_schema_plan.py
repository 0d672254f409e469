"""Planning columns without a catalog: ids, widening, order, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import (
    BinaryType,
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
    TimestamptzType,
)

from mozart.errors import TerminalError
from mozart.lake.head import TableHead
from mozart.lake.schema_plan import Column, check_plan, plan_schema, schema_changes

NEW = TableHead(("acme_raw", "cases"), None, None, None, is_foreign=False)


def existing(*fields: NestedField) -> TableHead:
    metadata = new_table_metadata(
        Schema(*fields), UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, "s3://nowhere/cases"
    )
    table = Table(NEW.identifier, metadata, "s3://nowhere/m.json", PyArrowFileIO(), NoopCatalog("none"))
    return TableHead(NEW.identifier, table, None, None, is_foreign=False)


def typed(kind: IcebergType) -> TableHead:
    return existing(NestedField(1, "id", LongType()), NestedField(2, "v", kind))


def test_a_new_table_gets_ids_and_nothing_required() -> None:
    inner = StructType(NestedField(1, "a", LongType(), required=True), NestedField(1, "b", StringType(), required=True))
    columns = [
        Column("s", inner, "doc"),
        Column("l", ListType(1, inner)),
        Column("m", MapType(1, StringType(), 2, inner)),
    ]
    planned = plan_schema(NEW, columns)
    ids = list(planned._lazy_id_to_name)
    assert sorted(ids) == list(range(1, 13))
    assert [field.name for field in planned._lazy_id_to_field.values() if field.required] == ["key"]
    assert planned.find_field("s").doc == "doc"
    assert schema_changes(NEW, planned)


def test_the_same_columns_change_nothing() -> None:
    head = typed(StringType())
    planned = plan_schema(head, [Column("v", StringType()), Column("id", LongType())])
    assert not schema_changes(head, planned)
    check_plan(head, planned, replaces_all=False)


WIDER: list[tuple[IcebergType, IcebergType]] = [
    (IntegerType(), LongType()),
    (FloatType(), DoubleType()),
    (DecimalType(6, 2), DecimalType(20, 2)),
]


@pytest.mark.parametrize(("narrow", "wide"), WIDER, ids=str)
def test_widening_keeps_the_id_and_never_narrows(narrow: IcebergType, wide: IcebergType) -> None:
    for old, new in ((narrow, wide), (wide, narrow)):
        field = plan_schema(typed(old), [Column("v", new)]).find_field("v")
        assert (field.field_id, field.field_type) == (2, wide)


KINDS = [
    IntegerType(), LongType(), FloatType(), DoubleType(), DecimalType(6, 2), DecimalType(20, 2), DecimalType(20, 3),
    StringType(), BinaryType(), DateType(), TimestamptzType(), ListType(1, StringType()),
    StructType(NestedField(1, "a", StringType())), MapType(1, StringType(), 2, LongType()),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(KINDS, 2)), ids=str)
def test_every_other_change_is_refused_or_retyped(old: IcebergType, new: IcebergType) -> None:
    if (old, new) in WIDER or (new, old) in WIDER:
        return
    head = typed(old)
    with pytest.raises(TerminalError, match=r"acme_raw\.cases: column v is .* and would become"):
        plan_schema(head, [Column("v", new)])
    retyped = plan_schema(head, [Column("v", new)], retype=True)
    assert head.table is not None
    assert retyped.find_field("v").field_id > head.table.metadata.last_column_id
    with pytest.raises(TerminalError, match="only a full refresh"):
        check_plan(head, retyped, replaces_all=False)
    check_plan(head, retyped, replaces_all=True)


def test_nested_types_widen_and_name_the_path_when_they_cannot() -> None:
    head = typed(ListType(3, StructType(NestedField(4, "n", IntegerType()), NestedField(5, "gone", StringType()))))
    wider = ListType(1, StructType(NestedField(1, "n", LongType()), NestedField(2, "more", DateType())))
    planned = plan_schema(head, [Column("v", wider)])
    assert str(planned.find_field("v.element.n").field_type) == "long"
    assert planned.find_field("v.element.gone").field_id == 5
    assert planned.find_field("v.element.more").field_id == 6
    other = ListType(1, StructType(NestedField(1, "n", StringType())))
    with pytest.raises(TerminalError, match=r"column v\.element\.n is int and would become string"):
        plan_schema(head, [Column("v", other)])


def test_missing_columns_stay_unless_they_are_dropped() -> None:
    head = existing(NestedField(1, "a", LongType(), required=True), NestedField(2, "b", LongType()))
    kept = plan_schema(head, [Column("c", LongType()), Column("b", LongType())])
    assert [(field.name, field.field_id, field.required) for field in kept.fields] == [
        ("a", 1, False),
        ("b", 2, False),
        ("c", 3, False),
    ]
    dropped = plan_schema(head, [Column("c", LongType()), Column("b", LongType())], drop_missing=True)
    assert [(field.name, field.field_id) for field in dropped.fields] == [("c", 3), ("b", 2)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "without columns"),
        ([Column("A", LongType()), Column("a", LongType())], "differ by more than case"),
        ([Column("ID", LongType())], "column ID collides with id"),
        ([Column("id", LongType()), Column("id", LongType())], "collides"),
    ],
)
def test_names_that_cannot_live_together(columns: list[Column], message: str) -> None:
    with pytest.raises(TerminalError, match=message):
        plan_schema(typed(StringType()), columns)


def test_a_doc_is_kept_until_there_is_a_new_one() -> None:
    head = existing(NestedField(1, "a", LongType(), doc="old"))
    assert plan_schema(head, [Column("a", LongType())]).find_field("a").doc == "old"
    assert plan_schema(head, [Column("a", LongType(), "new")]).find_field("a").doc == "new"


def test_a_plan_for_another_head_is_refused() -> None:
    planned = plan_schema(typed(StringType()), [Column("x", LongType())])
    later = existing(*(NestedField(number, f"c{number}", LongType()) for number in range(1, 6)))
    with pytest.raises(TerminalError, match="taken"):
        check_plan(later, planned, replaces_all=True)
