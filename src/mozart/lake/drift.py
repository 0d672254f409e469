"""How a source table's columns differ from those that raw was last loaded with, and what the table's contract makes
of it.

`evolve` (the default) takes what changes no value: new columns, wider types. `freeze` takes nothing: the load fails
before it writes. `ignore` goes on with the columns it knows. Under each of them a column that the source no longer has
stays in raw and reads NULL from the next full read on; its old values are in older snapshots until those expire, and
the report says which snapshot was the last. A renamed column is one that went and one that came. A type that cannot
hold the old values is refused unless a full refresh is asked for.

The baseline is the commit record, not raw's schema: a change is reported by the load that takes it, and not again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pyiceberg.types import IcebergType

from mozart.connectors.base import SourceColumn
from mozart.errors import TerminalError
from mozart.lake.head import TableHead
from mozart.lake.schema_plan import can_hold
from mozart.tenancy.model import SchemaChanges


@dataclass(frozen=True)
class SchemaDrift:
    """What is different, as texts: `name type` of columns that came and went, `name: old → new` of changed types.

    `last_snapshot` is the newest that holds values of the columns that went.
    """

    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    contract: SchemaChanges = "evolve"
    last_snapshot: int | None = None

    def __bool__(self) -> bool:
        return any((self.added, self.dropped, self.widened, self.narrowed, self.changed))

    @property
    def line(self) -> str:
        """One line for a log or an error; empty when nothing is different."""
        named = (
            ("new at the source", self.added),
            ("gone from the source", self.dropped),
            ("wider", self.widened),
            ("narrower, kept wide", self.narrowed),
            ("of another type", self.changed),
        )
        parts = [f"{what}: {', '.join(columns)}" for what, columns in named if columns]
        if self.dropped and self.last_snapshot is not None:
            parts.append(f"values of what is gone are in snapshots up to {self.last_snapshot}")
        return "; ".join(parts)


NO_DRIFT = SchemaDrift()


def take_columns(
    name: str, head: TableHead, columns: Sequence[SourceColumn], contract: SchemaChanges, *, accepts_all: bool
) -> tuple[tuple[SourceColumn, ...], SchemaDrift]:
    """The columns to load and how they differ. Raises TerminalError where the contract forbids it.

    `accepts_all`: the operator asked for a full refresh, which takes the source as it is.
    """
    known = _known(head)
    if known is None:
        return tuple(columns), SchemaDrift(contract=contract)
    drift = _compare(head, known, columns, contract)
    if accepts_all or not drift:
        return tuple(columns), drift
    if contract == "freeze":
        raise TerminalError(
            f"{name}: the columns changed, and schema_changes is freeze: {drift.line}; nothing was written. "
            "Accept them by a load with full_refresh, or set schema_changes to evolve or ignore"
        )
    if drift.changed:
        raise TerminalError(
            f"{name}: the source changed a column's type so that old values may not fit: {drift.line}; nothing was "
            "written. Accept it by a load with full_refresh, or leave the column out of `columns`"
        )
    if contract == "evolve":
        return tuple(columns), drift
    if drift.widened:
        raise TerminalError(
            f"{name}: schema_changes is ignore, but known columns became wider: {drift.line}; nothing was written. "
            "Accept it by a load with full_refresh, or set schema_changes to evolve"
        )
    return tuple(column for column in columns if column.name in known), drift


def _known(head: TableHead) -> Mapping[str, str] | None:
    """The columns of the record in force, name → type; None when raw has no record or an older one."""
    text = head.record.details.get("columns") if head.record else None
    try:
        pairs = cast(list[list[str]], json.loads(text)) if text else None
        return dict(cast(list[tuple[str, str]], pairs)) if pairs is not None else None
    except ValueError:
        return None


def _compare(
    head: TableHead, known: Mapping[str, str], columns: Sequence[SourceColumn], contract: SchemaChanges
) -> SchemaDrift:
    found = {column.name: column.iceberg_type for column in columns}
    raw = {field.name: field.field_type for field in head.table.schema().fields} if head.table else {}
    widened: list[str] = []
    narrowed: list[str] = []
    changed: list[str] = []
    for name, kind in found.items():
        if name not in known or known[name] == str(kind):
            continue
        _kind_of_change(raw.get(name), kind, widened, narrowed, changed).append(f"{name}: {known[name]} → {kind}")
    return SchemaDrift(
        added=tuple(f"{name} {kind}" for name, kind in found.items() if name not in known),
        dropped=tuple(f"{name} {kind}" for name, kind in known.items() if name not in found),
        widened=tuple(widened),
        narrowed=tuple(narrowed),
        changed=tuple(changed),
        contract=contract,
        last_snapshot=head.snapshot_id,
    )


def _kind_of_change(
    old: IcebergType | None, new: IcebergType, widened: list[str], narrowed: list[str], changed: list[str]
) -> list[str]:
    if old is None:
        return changed
    if can_hold(old, new):
        return narrowed
    return widened if can_hold(new, old) else changed
