"""What a tenant's `.yml` files declare about its models and sources, each with its line.

Reads only what Mozart holds a tenant to: columns, types, not_null constraints, key tests, aliases, source tables. What
else stands there is dbt's to judge. Keys given twice, anchors and tags are mistakes (`mozart.tenancy.yaml_tree`).

Pitfall: the shape of dbt's files is open; a part of an unexpected kind is skipped here and refused by dbt's own parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mozart.tenancy.yaml_tree import Items, Node, Scalar, Section


@dataclass(frozen=True)
class DeclaredColumn:
    """A column of a model or source; `tests` are the names of its data tests."""

    name: str
    data_type: str | None
    line: int
    type_line: int
    is_required: bool
    tests: frozenset[str]


@dataclass(frozen=True)
class DeclaredModel:
    """A model's entry. `file` is relative to the project; `unique_sets` are the columns of `unique_together` tests."""

    name: str
    file: str
    line: int
    alias: str | None
    columns: tuple[DeclaredColumn, ...]
    unique_sets: frozenset[frozenset[str]]

    def column(self, name: str) -> DeclaredColumn | None:
        """The column called `name`."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class DeclaredTable:
    """A table of a source."""

    name: str
    file: str
    line: int
    columns: tuple[DeclaredColumn, ...]


@dataclass(frozen=True)
class DeclaredSource:
    """One source with its tables."""

    name: str
    file: str
    line: int
    tables: tuple[DeclaredTable, ...]


@dataclass(frozen=True)
class Properties:
    """The entries of one file."""

    models: tuple[DeclaredModel, ...] = ()
    sources: tuple[DeclaredSource, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One mapping with a name, as dbt lists models, columns and tables."""

    name: str
    line: int
    fields: Mapping[str, Node] = field(default_factory=dict[str, Node])


def read_properties(root: Section, file: str) -> Properties:
    """The models and sources that the tree of `file` declares."""
    return Properties(
        models=tuple(_model(entry, file) for entry in _entries(root.entries.get("models"))),
        sources=tuple(_source(entry, file) for entry in _entries(root.entries.get("sources"))),
    )


def _model(entry: _Entry, file: str) -> DeclaredModel:
    config = entry.fields.get("config")
    settings = config.entries if isinstance(config, Section) else {}
    return DeclaredModel(
        name=entry.name,
        file=file,
        line=entry.line,
        alias=_text(settings.get("alias")) or _text(entry.fields.get("alias")),
        columns=_columns(entry),
        unique_sets=frozenset(_unique_sets(entry)),
    )


def _source(entry: _Entry, file: str) -> DeclaredSource:
    tables = tuple(
        DeclaredTable(table.name, file, table.line, _columns(table)) for table in _entries(entry.fields.get("tables"))
    )
    return DeclaredSource(entry.name, file, entry.line, tables)


def _columns(entry: _Entry) -> tuple[DeclaredColumn, ...]:
    return tuple(_column(column) for column in _entries(entry.fields.get("columns")))


def _column(entry: _Entry) -> DeclaredColumn:
    kind = entry.fields.get("data_type")
    return DeclaredColumn(
        name=entry.name,
        data_type=_text(kind),
        line=entry.line,
        type_line=kind.line if kind else entry.line,
        is_required="not_null" in {_text(part.get("type")) for part in _mappings(entry.fields.get("constraints"))},
        tests=frozenset(name for name, _ in _tests(entry)),
    )


def _unique_sets(entry: _Entry) -> Iterator[frozenset[str]]:
    for name, settings in _tests(entry):
        if name != "unique_together":
            continue
        arguments = settings.get("arguments")
        given = arguments.entries if isinstance(arguments, Section) else settings
        columns = given.get("columns")
        if isinstance(columns, Items):
            yield frozenset(node.text for node in columns.nodes if isinstance(node, Scalar))


def _tests(entry: _Entry) -> Iterator[tuple[str, Mapping[str, Node]]]:
    """Each data test with its settings; dbt takes both names for the list, and a test as a name or as a mapping.

    A test that cannot fail a run does not count: one that only warns, or looks at some of the rows.
    """
    for key in ("data_tests", "tests"):
        listed = entry.fields.get(key)
        for node in listed.nodes if isinstance(listed, Items) else ():
            if isinstance(node, Scalar):
                yield node.text, {}
            elif isinstance(node, Section):
                for name, settings in node.entries.items():
                    inner = settings.entries if isinstance(settings, Section) else {}
                    if not _is_weakened(inner):
                        yield name, inner


def _is_weakened(settings: Mapping[str, Node]) -> bool:
    config = settings.get("config")
    options = {**settings, **(config.entries if isinstance(config, Section) else {})}
    severity = _text(options.get("severity")) or "error"
    enabled = (_text(options.get("enabled")) or "true").lower()
    return severity.lower() == "warn" or enabled in ("false", "no", "off") or "where" in options


def _entries(node: Node | None) -> Iterator[_Entry]:
    for section in node.nodes if isinstance(node, Items) else ():
        name = _text(section.entries.get("name")) if isinstance(section, Section) else None
        if isinstance(section, Section) and name:
            yield _Entry(name, section.key_lines["name"], section.entries)


def _mappings(node: Node | None) -> Iterator[Mapping[str, Node]]:
    for section in node.nodes if isinstance(node, Items) else ():
        if isinstance(section, Section):
            yield section.entries


def _text(node: Node | None) -> str | None:
    return node.text.strip() if isinstance(node, Scalar) and node.kind != "null" else None
