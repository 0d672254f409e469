"""The product schema: the marts every tenant offers, read from the one definition, `dbt/product_schema.yml`.

Says what a mart must be: columns in order, types in Iceberg's terms, which may be NULL, the key (its grain), and what
each means. Does not look at a tenant: `mozart.tenancy.product_rules` compares a tenant's declarations with it,
`mozart.engine.product_check` a computed table. Knows no engine; types are text in one canonical spelling.

Pitfall: contracts and `_sources.yml` spell types as DuckDB does; `portable_type` and `contract_type` translate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.fields import Fields
from mozart.tenancy.model import Frozen
from mozart.tenancy.names import identifier_mistake
from mozart.tenancy.yaml_tree import ProblemLog, Scalar, Section, child, read_tree

PRODUCT_FILE = "dbt/product_schema.yml"
MART_PREFIX = "mart_"

CONTRACT_TYPES: Mapping[str, str] = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "float",
    "double": "double",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "timestamptz": "timestamp with time zone",
    "string": "varchar",
    "uuid": "uuid",
    "binary": "blob",
}
"""Iceberg's name of a simple type → its spelling in contracts."""

_SPELLINGS: Mapping[str, str] = {
    **{contract: iceberg for iceberg, contract in CONTRACT_TYPES.items()},
    **{"bool": "boolean", "int4": "int", "int": "int", "int8": "long", "long": "long", "real": "float"},
    **{"float4": "float", "float8": "double", "double precision": "double", "text": "string", "string": "string"},
    **{"timestamptz": "timestamptz", "timestamp without time zone": "timestamp", "varbinary": "binary"},
    **{"bytea": "binary", "binary": "binary"},
}
_DECIMAL = re.compile(r"(?:decimal|numeric)\s*\(\s*([0-9]{1,2})\s*,\s*([0-9]{1,2})\s*\)")
_LARGEST_PRECISION = 38


class MartColumn(Frozen):
    """One column. `type` is Iceberg's: `long`, `decimal(18,2)`, `timestamptz`."""

    name: str
    type: str
    nullable: bool = False
    description: str

    @property
    def contract_type(self) -> str:
        """The type as a model's contract spells it."""
        return CONTRACT_TYPES.get(self.type, self.type)


class Mart(Frozen):
    """One mart. No two rows agree in all columns of `key`, and none of those is ever NULL."""

    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[MartColumn, ...]

    def column(self, name: str) -> MartColumn | None:
        """The column called `name`."""
        return next((column for column in self.columns if column.name == name), None)


class ProductSchema(Frozen):
    """All marts, in the order of the file. `version` is raised with every change that tenants have to follow."""

    version: int
    marts: tuple[Mart, ...]

    def mart(self, name: str) -> Mart | None:
        """The mart called `name`, as in `mart_case`."""
        return next((mart for mart in self.marts if mart.name == name), None)

    @property
    def shape(self) -> str:
        """Everything a table can break: a reworded description does not change it."""
        return repr([(m.name, m.key, [(c.name, c.type, c.nullable) for c in m.columns]) for m in self.marts])


def load_product_schema(root: Path) -> ProductSchema:
    """The definition of the project at `root`; ConfigurationError with every mistake of the file at once."""
    log = ProblemLog(PRODUCT_FILE)
    if not (root / PRODUCT_FILE).exists():
        raise ConfigurationError(Problem(PRODUCT_FILE, "", "does not exist; it belongs to the project's checkout"))
    tree = read_tree(root / PRODUCT_FILE, log)
    product = _read(Fields(log, tree, "")) if tree is not None else None
    if product is None or log:
        raise ConfigurationError(log.problems)
    return product


def portable_type(spelling: str) -> str | None:
    """A contract's or Iceberg's spelling of a type in the canonical form, or None when it is none of ours."""
    text = " ".join(spelling.lower().split())
    decimal = _DECIMAL.fullmatch(text)
    if decimal is None:
        return _SPELLINGS.get(text)
    precision, scale = int(decimal[1]), int(decimal[2])
    return f"decimal({precision},{scale})" if 0 < precision <= _LARGEST_PRECISION and scale <= precision else None


def _read(fields: Fields) -> ProductSchema:
    """What the file says; with mistakes in the log, something incomplete that nobody gets to see."""
    fields.refuse_unknown(("version", "marts"))
    if not fields.has("version"):
        fields.note("version", "is missing; a whole number, raised with every change that tenants have to follow")
    version = fields.whole_number("version", 1, 1_000_000)
    nodes = fields.items("marts", required=True) or ()
    marts: list[Mart] = []
    for index, node in enumerate(nodes):
        path = child("marts", index)
        if not isinstance(node, Section):
            fields.log.add(node.line, path, "must be a mapping of keys: name, description, key, columns")
            continue
        marts.append(_read_mart(Fields(fields.log, node, path), {mart.name for mart in marts}))
    return ProductSchema(version=version or 0, marts=tuple(marts))


def _read_mart(fields: Fields, taken: set[str]) -> Mart:
    fields.refuse_unknown(("name", "description", "key", "columns"))
    name = _name(fields, taken)
    if name and (not name.startswith(MART_PREFIX) or name == MART_PREFIX):
        fields.note("name", f"{name!r} must begin with {MART_PREFIX!r} and name an entity: 'mart_case'")
    description = fields.text("description", required=True) or ""
    columns = _read_columns(fields)
    if not fields.has("key"):
        fields.note("key", "is missing; list the columns that make a row unique")
    key = fields.names("key") or ()
    _check_key(fields, key, columns)
    return Mart(name=name, description=description, key=key, columns=columns)


def _check_key(fields: Fields, key: Sequence[str], columns: Sequence[MartColumn]) -> None:
    known = {column.name: column for column in columns}
    for name in key:
        column = known.get(name)
        if column is None:
            fields.note("key", f"{name[:60]!r} is no column of the mart")
        elif column.nullable:
            fields.note("key", f"{name!r} is nullable; a column of the key is never NULL")


def _read_columns(fields: Fields) -> tuple[MartColumn, ...]:
    columns: list[MartColumn] = []
    for index, node in enumerate(fields.items("columns", required=True) or ()):
        path = child(child(fields.path, "columns"), index)
        if not isinstance(node, Section):
            fields.log.add(node.line, path, "must be a mapping of keys: name, type, nullable, description")
            continue
        columns.append(_read_column(Fields(fields.log, node, path), {column.name for column in columns}))
    return tuple(columns)


def _read_column(fields: Fields, taken: set[str]) -> MartColumn:
    fields.refuse_unknown(("name", "type", "nullable", "description"))
    return MartColumn(
        name=_name(fields, taken),
        type=_type(fields),
        nullable=_flag(fields, "nullable"),
        description=fields.text("description", required=True) or "",
    )


def _name(fields: Fields, taken: set[str]) -> str:
    name = fields.text("name", required=True)
    if name is None:
        return ""
    mistake = identifier_mistake(name)
    if mistake:
        fields.note("name", f"{name[:60]!r} {mistake}")
    elif name in taken:
        fields.note("name", f"{name!r} is given twice")
    return name


def _type(fields: Fields) -> str:
    text = fields.text("type", required=True)
    if text is None:
        return ""
    canonical = portable_type(text)
    is_iceberg = canonical is not None and (text in CONTRACT_TYPES or text.startswith("decimal"))
    if canonical is None or not is_iceberg:
        fields.note("type", f"{text[:60]!r} is not one of {', '.join(CONTRACT_TYPES)}, decimal(P,S)")
        return ""
    return canonical


def _flag(fields: Fields, key: str) -> bool:
    node = fields.node(key, required=False)
    if node is None:
        return False
    if not isinstance(node, Scalar) or node.kind != "boolean":
        fields.note(key, "must be true or false")
        return False
    return node.text.lower() in ("true", "yes", "on")
