"""What one load of one table will read, decided from the table's head, its tenant.yaml and the source: no I/O.

The watermark W says: every row whose incremental column is at most W is durably in raw. A load reads *everything*
above W that its snapshot shows, so data is never held back by somebody's long transaction; but the watermark it leaves
is only as high as is safe: below the start of the oldest transaction that may still commit rows behind the snapshot.
Rows between the two are read again next time and dropped where they equal what raw has.

For a column that is not a time (a sequence, say) no start of a transaction bounds it. There a watermark takes two
loads: the highest value H that one load saw is its high mark, and a later load that begins when every transaction of
that time has ended leaves H as its watermark, for whatever is at or below H has shown itself to *it*. It reads from
the older watermark once more; reading from H on would miss a row below H that was committed in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pyiceberg.types import DateType, IcebergType, TimestampType, TimestamptzType

from mozart.connectors.base import SourceColumn, SourcePosition, SourceTable, Window
from mozart.errors import TerminalError
from mozart.lake.commit import CommitRecord, TableHead
from mozart.lake.drift import NO_DRIFT, SchemaDrift, take_columns
from mozart.tenancy.model import TableSpec

LoadMode = Literal["full_refresh", "incremental", "backfill"]

DEFAULT_LAG = timedelta(minutes=10)
"""The lag where the login cannot see other sessions' transactions and tenant.yaml declares none."""

_MARGIN = timedelta(seconds=1)
# A transaction's start is published a moment after now() is fixed for it.


@dataclass(frozen=True)
class LoadRequest:
    """One table to load. `equals` is the tenant's filter as column → value; `since`/`until` ask for a backfill."""

    tenant: str
    namespace: str
    spec: TableSpec
    run_id: str
    equals: Mapping[str, str] = field(default_factory=dict[str, str])
    full_refresh: bool = False
    since: str | None = None
    until: str | None = None
    dry_run: bool = False

    @property
    def name(self) -> str:
        return f"{self.tenant}.{self.spec.name}"

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.lower() for column in self.spec.primary_key)


@dataclass(frozen=True)
class LoadPlan:
    """The decision: how to read and what to leave as the record. `reason` says why a full read was chosen.

    `safe` bounds the watermark by time; `settled` is a watermark for columns that are no time, once it is one.
    `read_id` is the same for another run's try of the same read; `load_id` for another try within this run only.
    """

    mode: LoadMode
    reason: str | None
    columns: tuple[SourceColumn, ...]
    window: Window | None
    watermark: str | None
    load_id: str
    details: Mapping[str, str]
    safe: str | None
    may_repeat: bool
    settled: str | None = None
    read_id: str = ""
    drift: SchemaDrift = NO_DRIFT

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def plan_load(request: LoadRequest, head: TableHead, table: SourceTable, position: SourcePosition) -> LoadPlan:
    """Decide how to load. TerminalError when tenant.yaml names columns that the source does not have."""
    accepts_all = request.full_refresh
    columns, drift = take_columns(
        request.name, head, _chosen_columns(request, table), request.spec.schema_changes, accepts_all=accepts_all
    )
    _check_needed(request, table, columns)
    details = _details(request, table, columns)
    horizon = _horizon(request.spec, position)
    record = head.record
    watermark = record.watermark if record else None
    mode, reason = _choose_mode(request, record, details, watermark)
    window = _window(request, mode, watermark)
    column = _incremental(request, table)
    return LoadPlan(
        mode=mode,
        reason=reason,
        columns=columns,
        window=window,
        watermark=None if mode == "full_refresh" else watermark,
        load_id=_load_id(request, head, position, [mode, repr(window), details["columns"]]),
        details={**details, "asked_at": position.asked_at.astimezone(UTC).isoformat()},
        safe=_safe_value(column.iceberg_type, horizon, position) if column else None,
        may_repeat=record is not None and record.watermark != record.details.get("high"),
        settled=_settled_value(record, details, horizon),
        read_id=_read_id(request, head, [mode, repr(window), details]),
        drift=drift,
    )


def _chosen_columns(request: LoadRequest, table: SourceTable) -> tuple[SourceColumn, ...]:
    """The columns of tenant.yaml that the source has; one that it lacks is drift, unless the load cannot do without."""
    if request.spec.columns is None:
        return table.columns
    found = {column.name: column for column in table.columns}
    return tuple(found[name] for name in (name.lower() for name in request.spec.columns) if name in found)


def _check_needed(request: LoadRequest, table: SourceTable, columns: Sequence[SourceColumn]) -> None:
    spec = request.spec
    needed = {*request.key, *([spec.incremental_column.lower()] if spec.incremental_column else [])}
    missing = (needed | {name.lower() for name in request.equals}) - {column.name for column in table.columns}
    missing |= needed - {column.name for column in columns}
    if spec.schema_changes == "evolve":
        missing |= {name.lower() for name in spec.columns or ()} - {column.name for column in table.columns}
    if missing:
        raise TerminalError(
            f"{request.name}: the source table {table.qualified_name} has no column {', '.join(sorted(missing))}; "
            f"correct tenant.yaml or restore the column"
        )


def _incremental(request: LoadRequest, table: SourceTable) -> SourceColumn | None:
    name = request.spec.incremental_column
    return table.column(name.lower()) if name and request.spec.mode == "incremental" else None


def _details(request: LoadRequest, table: SourceTable, columns: Sequence[SourceColumn]) -> dict[str, str]:
    """What must be as it was for an incremental load to be right; compared text by text."""
    return {
        "source": table.identity,
        "incremental_column": request.spec.incremental_column or "",
        "key": ",".join(request.key),
        "filter": _digest(sorted(request.equals.items())),
        "columns": json.dumps([[c.name, str(c.iceberg_type)] for c in columns], separators=(",", ":")),
    }


def _choose_mode(
    request: LoadRequest, record: CommitRecord | None, details: Mapping[str, str], watermark: str | None
) -> tuple[LoadMode, str | None]:
    if request.spec.mode == "full_refresh":
        if request.since or request.until:
            raise TerminalError(f"{request.name}: since and until need an incremental table")
        return "full_refresh", None
    reason = _reason_for_full(request, record, details, watermark)
    if reason:
        return "full_refresh", reason
    if request.since or request.until:
        return "backfill", None
    return "incremental", None


def _reason_for_full(
    request: LoadRequest, record: CommitRecord | None, details: Mapping[str, str], watermark: str | None
) -> str | None:
    if request.full_refresh:
        return "full refresh was asked for"
    if record is None:
        return "raw has no commit record"
    changed = [what for what, text in details.items() if record.details.get(what) != text]
    if changed:
        return _CHANGES[changed[0]]
    if watermark is None:
        return "no watermark is safe yet"
    return None


_CHANGES = {
    "source": "the source is another one, was restored or failed over, or the table was made anew",
    "incremental_column": "incremental_column was changed",
    "key": "primary_key was changed",
    "filter": "the tenant's filter was changed",
    "columns": "columns were added, dropped or changed at the source or in tenant.yaml",
}

COMPARED = tuple(_CHANGES)
"""The details of a record that must be as they were for an incremental load to be right."""


def _horizon(spec: TableSpec, position: SourcePosition) -> datetime:
    """Every transaction that began before this moment has ended, as far as anybody can tell."""
    lag = timedelta(seconds=spec.watermark_lag_seconds) if spec.watermark_lag_seconds is not None else None
    if not position.sees_transactions:
        return position.asked_at - (lag if lag is not None else DEFAULT_LAG)
    oldest = min(position.oldest_transaction_at or position.asked_at, position.asked_at)
    return oldest - max(lag or timedelta(), _MARGIN)


def _settled_value(record: CommitRecord | None, details: Mapping[str, str], horizon: datetime) -> str | None:
    """The high mark of the record in force, if every transaction that ran when it was seen has ended by now."""
    if record is None or record.details.get("bound") != "none":
        return None
    if any(record.details.get(what) != details[what] for what in ("source", "incremental_column")):
        return None
    seen_at = record.details.get("seen_at")
    return record.details.get("high") if seen_at and horizon > datetime.fromisoformat(seen_at) else None


def _safe_value(kind: IcebergType, horizon: datetime, position: SourcePosition) -> str | None:
    """The highest value of the incremental column that is safe, whether a row has it or not; None for other types."""
    last = horizon - timedelta(microseconds=1)
    if isinstance(kind, TimestamptzType):
        return last.astimezone(UTC).isoformat(sep=" ")
    local = last.astimezone(_zone(position.time_zone)).replace(tzinfo=None)
    if isinstance(kind, TimestampType):
        return local.isoformat(sep=" ")
    if isinstance(kind, DateType):
        return (local.date() - timedelta(days=1)).isoformat()
    return None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError) as error:
        raise TerminalError(f"the source's time zone {name!r} is unknown here") from error


def _window(request: LoadRequest, mode: LoadMode, watermark: str | None) -> Window | None:
    column = request.spec.incremental_column
    if mode == "full_refresh" or column is None:
        return None
    if mode == "backfill":
        return Window(column.lower(), since=request.since, until=request.until)
    return Window(column.lower(), after=watermark)


def _load_id(request: LoadRequest, head: TableHead, position: SourcePosition, read: Sequence[str]) -> str:
    """The same for a second try of the same read on the same head, another for every other load."""
    place = [request.tenant, request.namespace, request.spec.name, request.run_id]
    return _digest([*place, *read, head.snapshot_id, position.asked_at.isoformat()])[:32]


def _read_id(request: LoadRequest, head: TableHead, read: Sequence[object]) -> str:
    """The same for every try of the same read, in this run or another, until the table has a new commit."""
    place = [request.tenant, request.namespace, request.spec.name, request.spec.unfit_values, request.spec.layout]
    metadata = head.table.metadata if head.table else None
    # The sequence number too: it grows with every commit and stays grown after a rollback.
    at = [str(metadata.table_uuid), getattr(metadata, "last_sequence_number", 0)] if metadata else []
    return _digest([*place, *read, *at, head.snapshot_id])[:32]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str, separators=(",", ":")).encode()).hexdigest()
