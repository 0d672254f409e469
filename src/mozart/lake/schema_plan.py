"""Which columns a load will leave in a table, with the field ids its files must carry.

Field ids are fixed before a file is written and committed together with the files. Iceberg finds a column by id, not by
name: a name that was dropped and comes again gets a new id, so that old values do not rise again under it.

Rules: a column that the source no longer has stays and reads NULL; the three widenings without loss (int → long,
float → double, a decimal's precision) are applied, and a table that is already the wider one keeps its type; nothing is
required; every other change of type is refused. Nested structs, lists and maps follow the same rules.
Does not write: `stage_schema` only adds the change to a transaction of `mozart.lake.commit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    AssertLastAssignedFieldId,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
)
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StructType,
)

from mozart.errors import TerminalError
from mozart.lake.head import TableHead

_NextId = Callable[[], int]


@dataclass(frozen=True)
class Column:
    """A column as the load brings it. Ids inside a nested `type` mean nothing; the plan assigns them."""

    name: str
    type: IcebergType
    doc: str | None = None


class _IncompatibleError(Exception):
    """A type that cannot become another; `path` is the column, dotted for what is nested."""

    def __init__(self, path: str, existing: IcebergType, wanted: IcebergType) -> None:
        super().__init__(f"column {path} is {existing} and would become {wanted}")


def plan_schema(
    head: TableHead, columns: Sequence[Column], *, drop_missing: bool = False, retype: bool = False
) -> Schema:
    """The table's schema after the load, with final field ids.

    `drop_missing` (publishing) leaves exactly `columns`, in their order; otherwise columns keep their place, missing
    ones stay and new ones come last. `retype` (a full refresh) gives a column whose type cannot widen a new id; only
    `replace` accepts such a plan. Raises TerminalError naming table and column on an incompatible type, on names
    that differ only by case, and when there is no column.
    """
    _check_names(head, columns)
    if head.table is None:
        return assign_fresh_schema_ids(Schema(*(_new_field(column, 1) for column in columns)))
    metadata = head.table.metadata
    counter = itertools.count(metadata.last_column_id + 1)
    current = {field.name: field for field in metadata.schema().fields}

    def resolve(column: Column) -> NestedField:
        existing = current.get(column.name)
        try:
            return _new(column, counter.__next__) if existing is None else _widened(existing, column, counter.__next__)
        except _IncompatibleError as error:
            if retype:
                return _new(column, counter.__next__)
            raise TerminalError(
                f"table {head.name}: {error}, which may lose values; load the table with a full refresh, "
                "or bring the column under a new name"
            ) from error

    wanted = {column.name: resolve(column) for column in columns}
    if drop_missing:
        return Schema(*wanted.values())
    kept = [wanted.pop(name, None) or _optional(field) for name, field in current.items()]
    return Schema(*kept, *wanted.values())


def schema_changes(head: TableHead, planned: Schema) -> bool:
    """Whether committing this plan changes the table's columns (or makes the table)."""
    return head.table is None or head.table.schema().as_struct() != planned.as_struct()


def check_plan(head: TableHead, planned: Schema, *, replaces_all: bool) -> None:
    """Refuse a plan that was not made for this head; raises TerminalError naming table and column."""
    if head.table is None:
        return
    metadata = head.table.metadata
    current = {field.name: field for field in metadata.schema().fields}
    for field in planned.fields:
        existing = current.get(field.name)
        if existing is not None and existing.field_id == field.field_id:
            continue
        if field.field_id <= metadata.last_column_id:
            raise TerminalError(
                f"table {head.name}: column {field.name} has field id {field.field_id}, which is taken; "
                "the schema was planned on another state of the table"
            )
        if existing is not None and not replaces_all:
            raise TerminalError(
                f"table {head.name}: column {field.name} changes its type, so that its old values would read NULL; "
                "only a full refresh (replace) may do that"
            )


def stage_schema(transaction: Transaction, head: TableHead, planned: Schema) -> None:
    """Add the change of columns to a transaction on an existing table, exactly as planned; nothing when equal.

    The committed schema is the planned one to the last id, and the commit fails if columns changed in between.
    """
    if not schema_changes(head, planned):
        return
    metadata = transaction.table_metadata
    updates = _make_current(metadata, planned)
    if TableProperties.DEFAULT_NAME_MAPPING in metadata.properties:
        updates = (*updates, SetPropertiesUpdate(updates=name_mapping(planned)))
    requirements = (
        AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id}),
        AssertLastAssignedFieldId.model_validate({"last-assigned-field-id": metadata.last_column_id}),
    )
    transaction._apply(updates, requirements)


def _make_current(metadata: TableMetadata, planned: Schema) -> tuple[TableUpdate, ...]:
    """Updates that make the columns the table's; a schema it had before comes back under its old schema id."""
    for known in metadata.schemas:
        if known.as_struct() == planned.as_struct():
            return (SetCurrentSchemaUpdate.model_validate({"schema-id": known.schema_id}),)
    next_schema_id = 1 + max(schema.schema_id for schema in metadata.schemas)
    return (
        AddSchemaUpdate(schema=planned.model_copy(update={"schema_id": next_schema_id})),
        SetCurrentSchemaUpdate(),
    )


def name_mapping(schema: Schema) -> dict[str, str]:
    """The table property that says which column a file without field ids means by a name."""
    return {TableProperties.DEFAULT_NAME_MAPPING: schema.name_mapping.model_dump_json()}


def _check_names(head: TableHead, columns: Sequence[Column]) -> None:
    if not columns:
        raise TerminalError(f"table {head.name}: a load without columns; check the source table and its grants")
    existing = [field.name for field in head.table.schema().fields] if head.table else []
    seen: dict[str, str] = {name.lower(): name for name in existing}
    brought: set[str] = set()
    for column in columns:
        known = seen.setdefault(column.name.lower(), column.name)
        if known != column.name or column.name in brought:
            raise TerminalError(
                f"table {head.name}: column {column.name} collides with {known}; names must differ by more than case"
            )
        brought.add(column.name)


def _new(column: Column, next_id: _NextId) -> NestedField:
    field_id = next_id()
    # pyiceberg's own add_column calls it so; its annotation only knows whole schemas
    fresh = cast(IcebergType, assign_fresh_schema_ids(cast(Any, column.type), next_id))
    return _new_field(column, field_id, fresh)


def _new_field(column: Column, field_id: int, fresh: IcebergType | None = None) -> NestedField:
    field_type = _all_optional(fresh if fresh is not None else column.type)
    return NestedField(field_id, column.name, field_type, required=False, doc=column.doc)


def _optional(field: NestedField) -> NestedField:
    return NestedField(field.field_id, field.name, _all_optional(field.field_type), required=False, doc=field.doc)


def _widened(existing: NestedField, column: Column, next_id: _NextId) -> NestedField:
    field_type = _merge(existing.field_type, column.type, column.name, next_id)
    return NestedField(existing.field_id, existing.name, field_type, required=False, doc=column.doc or existing.doc)


def _merge(existing: IcebergType, wanted: IcebergType, path: str, next_id: _NextId) -> IcebergType:
    """One type that holds both, keeping the ids of `existing`."""
    if isinstance(existing, StructType) and isinstance(wanted, StructType):
        return _merge_structs(existing, wanted, path, next_id)
    if isinstance(existing, ListType) and isinstance(wanted, ListType):
        element = _merge(existing.element_type, wanted.element_type, f"{path}.element", next_id)
        return ListType(existing.element_id, element, element_required=False)
    if isinstance(existing, MapType) and isinstance(wanted, MapType):
        key = _merge(existing.key_type, wanted.key_type, f"{path}.key", next_id)
        value = _merge(existing.value_type, wanted.value_type, f"{path}.value", next_id)
        return MapType(existing.key_id, key, existing.value_id, value, value_required=False)
    if existing == wanted or can_hold(existing, wanted):
        return existing
    if can_hold(wanted, existing):
        return wanted
    raise _IncompatibleError(path, existing, wanted)


def _merge_structs(existing: StructType, wanted: StructType, path: str, next_id: _NextId) -> StructType:
    incoming = {field.name: Column(field.name, field.field_type, field.doc) for field in wanted.fields}
    fields: list[NestedField] = []
    for field in existing.fields:
        column = incoming.pop(field.name, None)
        if column is None:
            fields.append(_optional(field))
        else:
            field_type = _merge(field.field_type, column.type, f"{path}.{field.name}", next_id)
            fields.append(NestedField(field.field_id, field.name, field_type, required=False, doc=field.doc))
    return StructType(*fields, *(_new(column, next_id) for column in incoming.values()))


def can_hold(wide: IcebergType, narrow: IcebergType) -> bool:
    """Whether every value of `narrow` is one of `wide`: by a widening that Iceberg allows in place, or as they are."""
    if isinstance(wide, ListType) and isinstance(narrow, ListType):
        return can_hold(wide.element_type, narrow.element_type)
    if str(wide) == str(narrow):
        return True
    if isinstance(wide, LongType):
        return isinstance(narrow, IntegerType)
    if isinstance(wide, DoubleType):
        return isinstance(narrow, FloatType)
    # pyiceberg's own check forgets the scale and would let 1.50 become 15.0
    if isinstance(wide, DecimalType) and isinstance(narrow, DecimalType):
        return wide.scale == narrow.scale and wide.precision >= narrow.precision
    return False


def _all_optional(kind: IcebergType) -> IcebergType:
    if isinstance(kind, StructType):
        return StructType(*(_optional(field) for field in kind.fields))
    if isinstance(kind, ListType):
        return ListType(kind.element_id, _all_optional(kind.element_type), element_required=False)
    if isinstance(kind, MapType):
        return MapType(
            kind.key_id,
            _all_optional(kind.key_type),
            kind.value_id,
            _all_optional(kind.value_type),
            value_required=False,
        )
    return kind
