"""The YAML tree of a tenant → `Tenant`: which keys there are, what each may hold, and how they fit together.

Knows no file system and no environment. Every mistake goes into the log; a tenant comes out only when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from mozart.connectors.options import option_mistake, option_names, option_takes_null
from mozart.tenancy import names
from mozart.tenancy.fields import Fields
from mozart.tenancy.model import (
    DedicatedSpec,
    IcebergSpec,
    Layout,
    Mode,
    NullWatermarks,
    ParamValue,
    SchemaChanges,
    SoftDelete,
    SourceSpec,
    StorageSpec,
    TableSpec,
    Tenant,
    TenantFilter,
    UnfitValues,
)
from mozart.tenancy.schedule import cron_mistake, timezone_mistake
from mozart.tenancy.templates import declared_value, has_template, is_secret_key, secret_mistake, template_mistake
from mozart.tenancy.values import value_mistake
from mozart.tenancy.yaml_tree import Node, ProblemLog, Scalar, Section, child

TENANT_KEYS = ("id", "source", "params", "storage", "iceberg", "schedule", "timezone")
CONNECTION_KEYS = ("host", "port", "database", "username", "password")
SOURCE_KEYS = ("type", *CONNECTION_KEYS, "options")
TABLE_KEYS = (
    "name",
    "source_schema",
    "source_table",
    "primary_key",
    "columns",
    "tenant_filter",
    "incremental_column",
    "mode",
    "watermark_lag_seconds",
    "soft_delete",
    "schema_changes",
    "unfit_values",
    "null_watermarks",
    "layout",
)
IDENTITY_KEYS = ("access_key_id", "secret_access_key")
_DEDICATED = {"storage.bucket", *(f"storage.{key}" for key in IDENTITY_KEYS), "iceberg.catalog", "iceberg.warehouse"}
DEFAULT_BUCKET = "${S3_BUCKET:landing}"
LONGEST_LAG = 7 * 86_400

# A type not named here needs only what its own connector asks for.
_REQUIRED: Mapping[str, frozenset[str]] = dict.fromkeys(
    ("postgresql", "mysql", "sqlserver", "oracle"), frozenset({"host", "database", "username", "password"})
)
_MODES: Mapping[str, Mode] = {"full_refresh": "full_refresh", "incremental": "incremental"}
_SCHEMA_CHANGES: Mapping[str, SchemaChanges] = {"evolve": "evolve", "freeze": "freeze", "ignore": "ignore"}
_UNFIT_VALUES: Mapping[str, UnfitValues] = {"fail": "fail", "null": "null"}
_NULL_WATERMARKS: Mapping[str, NullWatermarks] = {"read": "read", "fail": "fail"}
_LAYOUTS: Mapping[str, Layout] = {"source": "source", "key": "key"}

T = TypeVar("T")


def read_tenant(root: Section, folder_name: str, source_types: Sequence[str], log: ProblemLog) -> Tenant | None:
    """The tenant in `root`, or None with its mistakes in `log` (which may hold earlier ones)."""
    top = Fields(log, root, "")
    top.refuse_unknown(("tenant", "tables"))
    fields = top.fields("tenant", required=True)
    source = storage = iceberg = dedicated = schedule = zone = None
    params: Mapping[str, ParamValue] = {}
    if fields is not None:
        fields.refuse_unknown(TENANT_KEYS)
        _check_id(fields, folder_name)
        params = _read_params(fields)
        source = _read_source(fields, source_types, params)
        storage = _read_storage(fields, folder_name)
        iceberg = _read_iceberg(fields, folder_name)
        dedicated = _read_dedicated(fields)
        schedule, zone = _read_schedule(fields)
    tables = _read_tables(top, params)
    if log or source is None or storage is None or iceberg is None:
        return None
    return Tenant(
        id=folder_name,
        source=source,
        storage=storage,
        iceberg=iceberg,
        schedule=schedule,
        timezone=zone or "UTC",
        tables=tables,
        dedicated=dedicated,
    )


def _check_id(fields: Fields, folder_name: str) -> None:
    tenant_id = fields.text("id", required=True)
    if tenant_id is None:
        return
    mistake = names.namespace_mistake(tenant_id)
    if mistake:
        fields.note("id", f"{tenant_id[:60]!r} {mistake}")
    if tenant_id != folder_name:
        fields.note("id", f"must equal the folder's name {folder_name!r}; rename one of them")


def _read_params(fields: Fields) -> Mapping[str, ParamValue]:
    """Parameters by name; one with a mistake stays in, so that filters naming it are not blamed as well."""
    if not fields.has("params"):
        return {}
    section = fields.fields("params")
    if section is None:
        return {}
    params: dict[str, ParamValue] = {}
    for key, node in section.section.entries.items():
        mistake = names.identifier_mistake(key)
        if mistake:
            section.note(key, f"the parameter's name {mistake}")
        elif is_secret_key(key):
            section.note(key, "a parameter is a filter's value and shows in plans and logs; it cannot be a secret")
        value = _template(section, key, "params")
        is_number = isinstance(node, Scalar) and node.kind == "integer"
        params[key] = int(value) if value is not None and is_number else value or ""
    return params


def _read_source(fields: Fields, source_types: Sequence[str], params: Mapping[str, ParamValue]) -> SourceSpec | None:
    source = fields.fields("source", required=True)
    if source is None:
        return None
    source.refuse_unknown(SOURCE_KEYS, f"known here: {', '.join(SOURCE_KEYS)}; a driver's own go under options")
    kind = source.text("type", required=True)
    if kind is not None and kind not in source_types:
        source.note("type", f"{kind[:60]!r} is no registered connector; registered: {', '.join(source_types)}")
    required = _REQUIRED.get(kind or "", frozenset({"database"}))
    connection: dict[str, str] = {}
    for key in CONNECTION_KEYS:
        value = _template(source, key, "source", required=key in required)
        if value is not None:
            connection[key] = value
    options = _read_options(source, kind if kind in source_types else None)
    return SourceSpec(type=kind or "", connection=connection, options=options, params=params)


def _read_options(source: Fields, kind: str | None) -> Mapping[str, str]:
    """The connector's options; names and values are judged where the kind of source is known."""
    options = source.fields("options")
    if options is None:
        return {}
    if kind is not None:
        # A secret of a driver's own is let through: its value says nothing here, and the connector judges its name.
        secrets = [key for key in options.section.entries if is_secret_key(key)]
        options.refuse_unknown([*sorted(option_names(kind)), *secrets])
    read = {key: _option(options, kind, key) for key in options.section.entries}
    for key, text in read.items():
        value = declared_value(text) if text is not None else None
        mistake = option_mistake(kind or "", key, value) if value is not None else None
        if mistake:
            options.note(key, mistake)
    return {key: value for key, value in read.items() if value is not None}


def _option(options: Fields, kind: str | None, key: str) -> str | None:
    if kind is not None and _is_word_null(options, key) and option_takes_null(kind, key):
        return "null"
    return _template(options, key, "source.options")


def _read_storage(fields: Fields, tenant_id: str) -> StorageSpec | None:
    default = StorageSpec(bucket=DEFAULT_BUCKET, prefix=names.landing_prefix(tenant_id))
    section = fields.fields("storage")
    if section is None:
        return default
    section.refuse_unknown(("bucket", "prefix", *IDENTITY_KEYS))
    bucket, prefix = _template(section, "bucket", "storage"), _template(section, "prefix", "storage")
    return StorageSpec(bucket=bucket or default.bucket, prefix=prefix or default.prefix)


def _read_iceberg(fields: Fields, tenant_id: str) -> IcebergSpec | None:
    section = fields.fields("iceberg")
    if section is None:
        return IcebergSpec(catalog=names.SHARED_CATALOG, schema_name=tenant_id)
    section.refuse_unknown(("catalog", "schema", "warehouse"))
    catalog, schema = _template(section, "catalog", "iceberg"), _template(section, "schema", "iceberg")
    return IcebergSpec(catalog=catalog or names.SHARED_CATALOG, schema_name=schema or tenant_id)


def _read_dedicated(fields: Fields) -> DedicatedSpec | None:
    """The lake of the tenant's own, whole or not at all: half of one would still reach, or be reached by, others."""
    storage = fields.fields("storage") if fields.has("storage") else None
    iceberg = fields.fields("iceberg") if fields.has("iceberg") else None
    found = {
        **{key: _template(storage, key, "storage") for key in IDENTITY_KEYS if storage and storage.has(key)},
        **({"warehouse": _template(iceberg, "warehouse", "iceberg")} if iceberg and iceberg.has("warehouse") else {}),
    }
    if not found:
        return None
    own = {f"storage.{key}" for key in ("bucket", *IDENTITY_KEYS) if storage and storage.has(key)}
    own |= {f"iceberg.{key}" for key in ("catalog", "warehouse") if iceberg and iceberg.has(key)}
    missing = sorted(_DEDICATED - own)
    if missing:
        fields.note("storage", f"a lake of the tenant's own needs also {', '.join(missing)}")
    if iceberg and iceberg.text("catalog", template=True) == names.SHARED_CATALOG:
        iceberg.note(
            "catalog", f"{names.SHARED_CATALOG} is the shared lake's; a lake of its own has another name in SQL"
        )
    values = {key: value for key, value in found.items() if value is not None}
    return DedicatedSpec(**values) if values.keys() == DedicatedSpec.model_fields.keys() else None


def _read_schedule(fields: Fields) -> tuple[str | None, str | None]:
    schedule, zone = fields.text("schedule"), fields.text("timezone")
    mistake = cron_mistake(schedule) if schedule is not None else None
    if mistake:
        fields.note("schedule", mistake)
    mistake = timezone_mistake(zone) if zone is not None else None
    if mistake:
        fields.note("timezone", mistake)
    if zone is not None and not fields.has("schedule"):
        fields.note("timezone", "has no meaning without a schedule; give one or remove the time zone")
    return schedule, zone


def _template(fields: Fields, key: str, area: str, *, required: bool = False) -> str | None:
    """A value that may hold `${…}`; checked as far as it is known without the environment."""
    text = fields.text(key, required=required, template=True)
    if text is None:
        return None
    mistake = template_mistake(text) or secret_mistake(key, text)
    if mistake is None:
        declared = declared_value(text)
        mistake = value_mistake(f"{area}.{key}", declared) if declared is not None else None
        if mistake and has_template(text):
            mistake = f"with its default, {mistake}"
    if mistake:
        fields.note(key, mistake)
        return None
    return text


def _read_tables(top: Fields, params: Mapping[str, ParamValue]) -> tuple[TableSpec, ...]:
    nodes = top.items("tables", required=True) or ()
    tables: list[TableSpec] = []
    taken: dict[str, int] = {}
    for index, node in enumerate(nodes):
        path = child("tables", index)
        if not isinstance(node, Section):
            top.log.add(node.line, path, "must be a mapping of keys: name, source_table, …")
            continue
        fields = Fields(top.log, node, path)
        table = _read_table(fields, params)
        first = taken.setdefault(table.name, index) if table.name else index
        if first != index:
            fields.note("name", f"tables[{first}] is called {table.name!r} already")
        tables.append(table)
    return tuple(tables)


def _read_table(fields: Fields, params: Mapping[str, ParamValue]) -> TableSpec:
    """One table; fields with a mistake hold what keeps the remaining checks meaningful."""
    fields.refuse_unknown(TABLE_KEYS)
    table = TableSpec(
        name=_read_name(fields),
        source_schema=_source_name(fields, "source_schema"),
        source_table=_source_name(fields, "source_table", required=True) or "",
        primary_key=fields.names("primary_key") or (),
        columns=fields.names("columns"),
        tenant_filter=_read_filter(fields, params),
        incremental_column=_source_name(fields, "incremental_column"),
        mode=_choice(fields, "mode", _MODES, "full_refresh"),
        watermark_lag_seconds=fields.whole_number("watermark_lag_seconds", 0, LONGEST_LAG),
        soft_delete=_read_soft_delete(fields),
        schema_changes=_choice(fields, "schema_changes", _SCHEMA_CHANGES, "evolve"),
        unfit_values=_choice(fields, "unfit_values", _UNFIT_VALUES, "fail"),
        null_watermarks=_choice(fields, "null_watermarks", _NULL_WATERMARKS, "read"),
        layout=_choice(fields, "layout", _LAYOUTS, "source"),
    )
    _check_table(fields, table)
    return table


def _read_name(fields: Fields) -> str:
    name = fields.text("name", required=True)
    mistake = names.identifier_mistake(name, longest=names.TABLE_LENGTH) if name is not None else None
    if mistake:
        fields.note("name", f"{name!r:.70} {mistake}")
        return ""
    return name or ""


def _source_name(fields: Fields, key: str, *, required: bool = False) -> str | None:
    name = fields.text(key, required=required)
    if name is not None and len(name) > 128:
        fields.note(key, "is longer than 128 characters; no database has such a name")
    return name


def _is_word_null(fields: Fields, key: str) -> bool:
    """Whether the value is the bare word null, which YAML reads as nothing and some keys take as a word."""
    node = fields.section.entries.get(key)
    return isinstance(node, Scalar) and node.kind == "null" and node.text.strip() == "null"


def _choice(fields: Fields, key: str, choices: Mapping[str, T], default: T) -> T:
    if "null" in choices and _is_word_null(fields, key):
        return choices["null"]
    text = fields.text(key)
    if text is None:
        return default
    if text not in choices:
        fields.note(key, f"{text[:60]!r} is not one of {', '.join(choices)}")
    return choices.get(text, default)


def _read_filter(fields: Fields, params: Mapping[str, ParamValue]) -> TenantFilter | None:
    node = fields.section.entries.get("tenant_filter")
    if isinstance(node, Section):
        section = Fields(fields.log, node, child(fields.path, "tenant_filter"))
        section.refuse_unknown(("column", "param"))
        column, param = section.text("column", required=True), section.text("param", required=True)
        _check_param(section, "param", param, params)
    else:
        column = param = fields.text("tenant_filter")
        _check_param(fields, "tenant_filter", param, params)
    return TenantFilter(column=column, param=param) if column and param else None


def _check_param(fields: Fields, key: str, param: str | None, params: Mapping[str, ParamValue]) -> None:
    if param is not None and param not in params:
        known = f"it has {', '.join(params)}" if params else "it has none"
        fields.note(key, f"{param[:60]!r} is not a key of tenant.params; {known[:200]}")


def _read_soft_delete(fields: Fields) -> SoftDelete | None:
    section = fields.fields("soft_delete")
    if section is None:
        return None
    section.refuse_unknown(("column",))
    column = _source_name(section, "column", required=True)
    return SoftDelete(column=column) if column else None


def _check_table(fields: Fields, table: TableSpec) -> None:
    """How the fields of a table fit together."""
    if table.mode == "incremental":
        for key in ("primary_key", "incremental_column"):
            if not fields.has(key):
                fields.note(key, "is missing; mode incremental needs it")
    if table.watermark_lag_seconds is not None and table.mode != "incremental":
        fields.note("watermark_lag_seconds", "has a meaning for mode incremental only")
    if table.soft_delete is not None and table.mode != "incremental":
        fields.note("soft_delete", "has a meaning for mode incremental only; a full refresh replaces all rows")
    if fields.has("null_watermarks") and table.mode != "incremental":
        fields.note("null_watermarks", "has a meaning for mode incremental only")
    if table.layout == "key" and not table.primary_key:
        fields.note("layout", "is key, but the table has no primary_key to sort by")
    if table.columns is None:
        return
    for index, column in enumerate(table.primary_key):
        if column not in table.columns:
            path = child(child(fields.path, "primary_key"), index)
            fields.log.add(_item_line(fields, "primary_key", index), path, _not_among(column, table.columns))
    if table.incremental_column is not None and table.incremental_column not in table.columns:
        fields.note("incremental_column", _not_among(table.incremental_column, table.columns))
    if table.soft_delete is not None and table.soft_delete.column not in table.columns:
        fields.note("soft_delete", _not_among(table.soft_delete.column, table.columns))


def _item_line(fields: Fields, key: str, index: int) -> int:
    node: Node = fields.section.entries[key]
    items = getattr(node, "nodes", ())
    return items[index].line if index < len(items) else node.line


def _not_among(column: str, columns: Sequence[str]) -> str:
    same = [other for other in columns if other.lower() == column.lower()]
    hint = f"; did you mean {same[0]!r}?" if same else "; add it there"
    return f"{column[:60]!r} is not among columns{hint}"
