"""What a table's contract makes of columns that came, went or changed, without a server."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, IcebergType, IntegerType, ListType, LongType, NestedField, StringType

from mozart.connectors.base import SourceColumn
from mozart.errors import TerminalError
from mozart.lake.commit import CommitRecord, TableHead
from mozart.lake.drift import SchemaDrift, take_columns

RAW: dict[str, IcebergType] = {"id": LongType(), "name": StringType(), "price": DecimalType(9, 2)}


def column(name: str, kind: IcebergType) -> SourceColumn:
    return SourceColumn(name, name, str(kind), kind, name)


def head(columns: dict[str, IcebergType] | None) -> TableHead:
    known = columns or RAW
    schema = Schema(*(NestedField(n, name, kind, required=False) for n, (name, kind) in enumerate(known.items(), 1)))
    text = json.dumps([[name, str(kind)] for name, kind in known.items()])
    record = CommitRecord("load", "W", None, 1, "r", "full_refresh", {"columns": text}) if columns else None
    return TableHead(("raw", "t"), cast(Any, SimpleNamespace(schema=lambda: schema)), 7, record, is_foreign=False)


def take(
    now: dict[str, IcebergType], contract: Any = "evolve", raw: dict[str, IcebergType] | None = RAW, **options: Any
) -> tuple[list[str], SchemaDrift]:
    columns = [column(name, kind) for name, kind in now.items()]
    taken, drift = take_columns("acme.t", head(raw), columns, contract, **{"accepts_all": False, **options})
    return [each.name for each in taken], drift


@pytest.mark.parametrize("contract", ["evolve", "freeze", "ignore"])
def test_what_did_not_change_is_no_drift(contract: str) -> None:
    names, drift = take(RAW, contract)
    assert (names, bool(drift), drift.line) == (list(RAW), False, "")


@pytest.mark.parametrize("contract", ["evolve", "freeze", "ignore"])
def test_without_a_record_there_is_nothing_to_compare(contract: str) -> None:
    assert not take({"other": LongType()}, contract, raw=None)[1]


def test_a_rename_is_one_column_gone_and_one_new() -> None:
    names, drift = take({"id": LongType(), "title": StringType(), "price": DecimalType(9, 2)})
    assert (drift.added, drift.dropped, names) == (("title string",), ("name string",), ["id", "title", "price"])
    assert drift.line == "new at the source: title string; gone from the source: name string; " + (
        "values of what is gone are in snapshots up to 7"
    )


def test_ignore_leaves_new_columns_out_and_keeps_the_others() -> None:
    names, drift = take({**RAW, "extra": LongType()}, "ignore")
    assert (names, drift.added) == (list(RAW), ("extra long",))


@pytest.mark.parametrize(
    ("raw", "now", "what"),
    [
        (IntegerType(), LongType(), "widened"),
        (DecimalType(9, 2), DecimalType(12, 2), "widened"),
        (LongType(), IntegerType(), "narrowed"),
        (
            ListType(1, LongType(), element_required=False),
            ListType(1, IntegerType(), element_required=False),
            "narrowed",
        ),
        (DecimalType(9, 2), DecimalType(9, 3), "changed"),
        (StringType(), LongType(), "changed"),
    ],
)
def test_changed_types_are_told_apart(raw: IcebergType, now: IcebergType, what: str) -> None:
    before, after = {"id": LongType(), "x": raw}, {"id": LongType(), "x": now}
    drift = take(after, raw=before, accepts_all=True)[1]
    assert [kind for kind in ("widened", "narrowed", "changed") if getattr(drift, kind)] == [what]
    refused = {"evolve": {"changed"}, "freeze": {"widened", "narrowed", "changed"}, "ignore": {"widened", "changed"}}
    for contract, kinds in refused.items():
        if what in kinds:
            with pytest.raises(TerminalError, match=r"acme\.t: .*x: .* → .*nothing was written"):
                take(after, contract, raw=before)
        else:
            assert take(after, contract, raw=before)[0] == ["id", "x"]
