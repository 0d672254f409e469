"""What a load decides to read, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.types import DateType, LongType, StringType, TimestampType, TimestamptzType

from mozart.connectors.base import SourceColumn, SourcePosition, SourceTable
from mozart.errors import TerminalError
from mozart.lake.commit import CommitRecord, TableHead
from mozart.lake.load_plan import LoadPlan, LoadRequest, plan_load
from mozart.tenancy.model import TableSpec

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SPEC = TableSpec(
    name="orders",
    source_schema="public",
    source_table="orders",
    primary_key=("Id",),
    incremental_column="Changed",
    mode="incremental",
)


def column(name: str, kind: Any) -> SourceColumn:
    return SourceColumn(name.lower(), name, str(kind), kind, f'"{name}"')


def table(kind: Any = None, identity: str = "server/1", extra: tuple[str, Any] | None = None) -> SourceTable:
    columns = (column("Id", LongType()), column("Changed", kind or TimestamptzType()), column("note", StringType()))
    columns += (column(*extra),) if extra else ()
    return SourceTable("public", "orders", columns, (frozenset({"id"}),), identity)


def position(**changes: Any) -> SourcePosition:
    values = {
        "asked_at": NOON,
        "oldest_transaction_at": None,
        "sees_transactions": True,
        "time_zone": "UTC",
        "shared_snapshot": True,
    }
    return SourcePosition(**{**values, **changes})


def head(record: CommitRecord | None = None) -> TableHead:
    return TableHead(("acme_raw", "orders"), None, 7 if record else None, record, is_foreign=False)


def request(**changes: Any) -> LoadRequest:
    return LoadRequest(**{"tenant": "acme", "namespace": "acme_raw", "spec": SPEC, "run_id": "r", **changes})


def plan(record: CommitRecord | None = None, **changes: Any) -> LoadPlan:
    return plan_load(
        changes.pop("request", request()),
        head(record),
        changes.pop("table", table()),
        changes.pop("position", position()),
    )


def record_of(first: LoadPlan, **details: str) -> CommitRecord:
    """The record that a full load of `first` would leave."""
    kept = {**first.details, "high": "H", "bound": "time", **details}
    return CommitRecord("load", "W", None, 3, "r", "full_refresh", kept)


def test_without_a_record_everything_is_read() -> None:
    first = plan()
    assert (first.mode, first.reason, first.window) == ("full_refresh", "raw has no commit record", None)


def test_with_a_record_what_is_above_the_watermark_is_read() -> None:
    second = plan(record_of(plan()))
    assert second.mode == "incremental" and second.window is not None
    assert (second.window.column, second.window.after) == ("changed", "W")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"table": table(identity="server/2")}, "the source is another one"),
        ({"table": table(extra=("new", StringType()))}, "columns were added"),
        ({"request": request(equals={"id": "1"})}, "filter was changed"),
        ({"request": request(full_refresh=True)}, "asked for"),
        ({"request": request(spec=SPEC.model_copy(update={"primary_key": ("note",)}))}, "primary_key was changed"),
    ],
)
def test_what_makes_an_incremental_load_wrong_makes_it_full(change: dict[str, Any], reason: str) -> None:
    second = plan(record_of(plan()), **change)
    assert second.mode == "full_refresh" and second.reason is not None and reason in second.reason


@pytest.mark.parametrize(
    ("kind", "where", "safe"),
    [
        (TimestamptzType(), {}, "2024-05-01 11:59:58.999999+00:00"),
        (TimestamptzType(), {"oldest_transaction_at": NOON - timedelta(hours=1)}, "2024-05-01 10:59:58.999999+00:00"),
        (TimestamptzType(), {"sees_transactions": False}, "2024-05-01 11:49:59.999999+00:00"),
        (TimestampType(), {"time_zone": "Asia/Tokyo"}, "2024-05-01 20:59:58.999999"),
        (DateType(), {}, "2024-04-30"),
        (DateType(), {"oldest_transaction_at": NOON - timedelta(days=2)}, "2024-04-28"),
        (LongType(), {}, None),
    ],
)
def test_the_safe_value_stays_below_running_transactions(kind: Any, where: dict[str, Any], safe: str | None) -> None:
    assert plan(table=table(kind), position=position(**where)).safe == safe


def test_a_declared_lag_is_obeyed() -> None:
    spec = SPEC.model_copy(update={"watermark_lag_seconds": 3600})
    assert plan(request=request(spec=spec)).safe == "2024-05-01 10:59:59.999999+00:00"
    blind = position(sees_transactions=False)
    assert plan(request=request(spec=spec), position=blind).safe == "2024-05-01 10:59:59.999999+00:00"


def test_a_column_without_time_takes_two_loads_for_a_watermark() -> None:
    first = plan(table=table(LongType()))
    record = record_of(first, bound="none", seen_at=(NOON + timedelta(minutes=1)).isoformat())
    later = {"asked_at": NOON + timedelta(minutes=5)}
    settled = plan(record, table=table(LongType()), position=position(**later))
    assert settled.window is not None
    assert (settled.window.after, settled.settled) == ("W", "H"), "read from the old one, leave the new one"
    for since in (NOON, NOON + timedelta(seconds=30)):
        held = plan(record, table=table(LongType()), position=position(**later, oldest_transaction_at=since))
        assert held.settled is None, "a transaction of that time may still commit below H"
    other = plan(record, table=table(LongType(), identity="server/2"), position=position(**later))
    assert other.settled is None


def test_a_read_has_one_id_in_every_run_until_something_of_it_changes() -> None:
    again = plan(request=request(run_id="another"), position=position(asked_at=NOON + timedelta(hours=1)))
    assert again.read_id == plan().read_id != plan(table=table(identity="server/2")).read_id
    assert plan(request=request(equals={"id": "1"})).read_id != plan().read_id


def test_load_ids_differ_by_head_and_by_read() -> None:
    record = record_of(plan())
    ids = {
        plan().load_id,
        plan(record).load_id,
        plan(record, position=position(asked_at=NOON + timedelta(seconds=1))).load_id,
        plan(record, request=request(run_id="s")).load_id,
        plan(record, request=request(full_refresh=True)).load_id,
    }
    assert len(ids) == 5
    assert plan(record).load_id == plan(record).load_id


def test_columns_that_are_not_there_are_named() -> None:
    spec = SPEC.model_copy(update={"incremental_column": "updated_at"})
    with pytest.raises(TerminalError, match=r"acme\.orders.*no column updated_at"):
        plan(request=request(spec=spec))


def test_a_backfill_needs_an_incremental_table() -> None:
    spec = SPEC.model_copy(update={"mode": "full_refresh"})
    with pytest.raises(TerminalError, match="since and until"):
        plan(request=request(spec=spec, since="2024-01-01"))
