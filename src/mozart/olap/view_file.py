"""`views/{view}/view.yaml` and `view.sql` → a `View`, with every mistake by file, key and cure.

Looks at one folder only; what views are to each other is checked by `mozart.olap.registry`, what the database thinks
of the SQL by `mozart.olap.install`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mozart.olap.model import (
    INCREMENTAL_INTERVAL_SECONDS,
    REFRESH_INTERVAL_SECONDS,
    Kind,
    Measure,
    SourceTable,
    Strategy,
    View,
)
from mozart.olap.sql_text import beyond_one_key, blank, statement_count, unstable_words
from mozart.tenancy.yaml_tree import Items, Node, ProblemLog, Scalar, Section, read_tree

VIEWS_FOLDER = "views"
SOURCES_FILE = "sources.yaml"
LONGEST_NAME = 50  # leaves room in PostgreSQL's 63 bytes for the names made of it

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MEASURE = re.compile(r"(?P<function>[a-z_]+)\s*\(\s*(?P<distinct>distinct\s+)?(?P<argument>\*|[a-z_][a-z0-9_]*)\s*\)")
_MAINTAINED = ("count", "sum")
_AGGREGATES = ("count", "sum", "min", "max", "avg", "bool_and", "bool_or")


class _ViewFile(BaseModel):
    """The keys of view.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Kind
    description: str = Field(min_length=1)
    schema_: str | None = Field(default=None, alias="schema")
    strategy: Strategy = "refresh"
    unique_key: list[str] = Field(min_length=1)
    index_name: str | None = None
    measures: dict[str, str] = Field(default_factory=dict)
    per: str | None = None
    depends_on: list[str] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list)
    events: list[str] = Field(default_factory=list)
    min_interval_seconds: float | None = Field(default=None, ge=0)
    debounce_seconds: float = Field(default=10, ge=0)
    debounce_max_wait_seconds: float = Field(default=60, gt=0)
    lag_target_seconds: float = Field(default=900, gt=0)
    timeout_seconds: float = Field(default=1800, gt=0)
    step_name: str | None = Field(default=None, pattern=r"[a-z][a-z0-9_]*")


class _TableRule(BaseModel):
    """One table of sources.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    columns: list[str] = Field(default_factory=list)
    minimum_rows: int = Field(default=0, ge=0)
    minimum_share_of_last: float = Field(default=0.5, ge=0, le=1)
    references: dict[str, str] = Field(default_factory=dict)
    maximum_orphan_share: float = Field(default=0, ge=0, le=1)


class _SourcesFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tables: dict[str, _TableRule]


def read_view(folder: Path, log: ProblemLog, *, default_schema: str) -> View | None:
    """The view in `folder`, or None with its mistakes in `log`."""
    tree = read_tree(folder / "view.yaml", log, multiline=True)
    if tree is None:
        return None
    file = _checked(_ViewFile, tree, log)
    sql = _read_sql(folder, log)
    if not isinstance(file, _ViewFile) or sql is None or log:
        return None
    view = _view(folder.name, file, sql, default_schema)
    for key, message in _mistakes(view, file):
        log.add(_line(tree, key), key, message)
    return None if log else view


def read_sources(path: Path, log: ProblemLog) -> tuple[SourceTable, ...]:
    """The tables of sources.yaml; empty when there is no such file."""
    if not path.exists():
        return ()
    tree = read_tree(path, log)
    file = _checked(_SourcesFile, tree, log) if tree is not None else None
    if not isinstance(file, _SourcesFile):
        return ()
    return tuple(_source(name, rule, log) for name, rule in file.tables.items())


def _source(name: str, rule: _TableRule, log: ProblemLog) -> SourceTable:
    references: list[tuple[str, str, str]] = []
    for column, target in rule.references.items():
        table, _, key = target.partition(".")
        if not key:
            log.add(0, f"tables.{name}.references.{column}", f"{target!r} must be table.column")
        references.append((column, table, key))
    return SourceTable(
        name=name,
        columns=tuple(rule.columns),
        minimum_rows=rule.minimum_rows,
        minimum_share_of_last=rule.minimum_share_of_last,
        references=tuple(references),
        maximum_orphan_share=rule.maximum_orphan_share,
    )


def _view(name: str, file: _ViewFile, sql: str, default_schema: str) -> View:
    interval = REFRESH_INTERVAL_SECONDS if file.strategy == "refresh" else INCREMENTAL_INTERVAL_SECONDS
    return View(
        name=name,
        kind=file.kind,
        schema_name=file.schema_ or default_schema,
        description=" ".join(file.description.split()),
        strategy=file.strategy,
        unique_key=tuple(file.unique_key),
        index_name=file.index_name or f"idx_{name}_pk",
        measures=tuple(_measure(measure, text) for measure, text in file.measures.items()),
        per=file.per,
        depends_on=tuple(file.depends_on),
        sources=tuple(file.sources),
        events=tuple(file.events),
        min_interval_seconds=interval if file.min_interval_seconds is None else file.min_interval_seconds,
        debounce_seconds=file.debounce_seconds,
        debounce_max_wait_seconds=file.debounce_max_wait_seconds,
        lag_target_seconds=file.lag_target_seconds,
        timeout_seconds=file.timeout_seconds,
        step_name=file.step_name,
        sql=sql,
    )


def _measure(name: str, text: str) -> Measure:
    found = _MEASURE.fullmatch(text.strip().lower())
    if found is None:
        return Measure(name=name, function="", argument=text)
    return Measure(
        name=name, function=found["function"], argument=found["argument"], distinct=found["distinct"] is not None
    )


def _mistakes(view: View, file: _ViewFile) -> Iterator[tuple[str, str]]:
    """Key and message of everything wrong in one view's own files."""
    yield from _name_mistakes(view)
    for measure in view.measures:
        if measure.function not in _AGGREGATES:
            known = ", ".join(f"{name}(column)" for name in _AGGREGATES)
            text = file.measures[measure.name]
            yield f"measures.{measure.name}", f"{text!r} is not one of count(*), {known}; compute in view.sql first"
        elif measure.argument == "*" and measure.function != "count":
            yield f"measures.{measure.name}", f"{measure} needs a column of view.sql"
    for word in unstable_words(view.sql):
        yield (
            "view.sql",
            f"{word} gives another result on the same data, so no refresh could be trusted; keep time-dependent"
            " filters out of the view and put them into the query that reads it",
        )
    if statement_count(view.sql) != 1 or not re.match(r"\s*(?:select|with|values)\b", blank(view.sql), re.I):
        yield "view.sql", "must be one SELECT"
    if view.debounce_max_wait_seconds < view.debounce_seconds:
        yield "debounce_max_wait_seconds", "must not be below debounce_seconds"
    if view.strategy == "incremental":
        yield from incremental_mistakes(view)


def incremental_mistakes(view: View) -> Iterator[tuple[str, str]]:
    """Key and message of what keeps a view from strategy incremental, as far as its files show."""
    refresh = "; or use strategy: refresh"
    if view.per is None:
        yield "per", f"is needed: the column of view.sql by which changes are followed, such as case_id{refresh}"
    if not view.sources:
        yield "sources", f"is needed: the tables whose changes are followed{refresh}"
    for measure in view.measures:
        if measure.function in _AGGREGATES and (measure.function not in _MAINTAINED or measure.distinct):
            cure = "keep sum and count and divide when reading" if measure.function == "avg" else "leave it out"
            yield f"measures.{measure.name}", f"{measure} cannot be kept up to date by what changed; {cure}{refresh}"
    if not any(measure.is_row_count for measure in view.measures):
        yield "measures", f"needs one count(*), such as row_count: it tells when a group is gone{refresh}"
    for what in beyond_one_key(view.sql):
        yield "view.sql", f"{what} cannot be kept up to date by what changed; take it out{refresh}"


def _name_mistakes(view: View) -> Iterator[tuple[str, str]]:
    rule = f"must be small letters, digits and _, {LONGEST_NAME} at most"
    if not _NAME.fullmatch(view.name) or len(view.name) > LONGEST_NAME:
        yield "", f"the folder's name {rule}"
    for key, names in (
        ("schema", (view.schema_name,)),
        ("index_name", (view.index_name,)),
        ("unique_key", view.unique_key),
        ("measures", tuple(measure.name for measure in view.measures)),
        ("per", (view.per,) if view.per else ()),
        ("sources", view.sources),
        ("events", view.events),
    ):
        yield from ((key, f"{name!r} {rule}") for name in names if not _NAME.fullmatch(name) or len(name) > 60)
        if len(set(names)) != len(names):
            yield key, "names something twice"
    clashes = {measure.name for measure in view.measures} & set(view.unique_key)
    if clashes:
        yield "measures", f"{', '.join(sorted(clashes))} is in unique_key too"


def _read_sql(folder: Path, log: ProblemLog) -> str | None:
    try:
        return (folder / "view.sql").read_text("utf-8").strip().rstrip(";").strip()
    except FileNotFoundError:
        log.add(0, "view.sql", "is missing; write the view's SELECT there")
    except (OSError, UnicodeDecodeError) as error:
        log.add(0, "view.sql", f"cannot be read: {error}")
    return None


def _checked(model: type[BaseModel], tree: Section, log: ProblemLog) -> BaseModel | None:
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        for mistake in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in mistake["loc"])
            log.add(_line(tree, key), key, _cure(mistake["type"], mistake["msg"], model))
    return None


def _cure(kind: str, message: str, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        known = ", ".join(field.alias or name for name, field in model.model_fields.items())
        return f"is no key of this file; known: {known}"
    if kind == "missing":
        return "is needed"
    return message[:1].lower() + message[1:]


def _plain(node: Node) -> Any:
    if isinstance(node, Section):
        return {key: _plain(value) for key, value in node.entries.items()}
    if isinstance(node, Items):
        return [_plain(value) for value in node.nodes]
    return _scalar(node)


def _scalar(node: Scalar) -> Any:
    if node.kind == "null":
        return None
    if node.kind == "boolean":
        return node.text.lower() in ("true", "yes", "on", "y")
    if node.kind == "integer" and re.fullmatch(r"[-+]?\d+", node.text):
        return int(node.text)
    if node.kind == "number":
        return float(node.text)
    return node.text


def _line(tree: Section, key: str) -> int:
    """The line of a dotted key, or of the nearest key above it that is there."""
    line, node = 0, tree
    for part in key.split("."):
        line = node.key_lines.get(part, line)
        below = node.entries.get(part)
        if not isinstance(below, Section):
            break
        node = below
    return line
