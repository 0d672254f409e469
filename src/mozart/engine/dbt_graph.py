"""A tenant's models as dbt parsed them: the manifest cut down to what planning and publishing need.

Pure: reads a manifest that is already in memory, knows no engine, starts nothing. Seeds and ephemeral models are part
of the graph (a model's fingerprint covers them) but are never published. Snapshots and views are refused: they need a
database that lives on, and ours is thrown away after every run. Of incremental models, options are refused that would
be silently without effect here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, cast

from mozart.errors import ConfigurationError, Problem

Kind = Literal["model", "ephemeral", "seed"]
Layer = Literal["staging", "mart"]

_FINGERPRINTED_CONFIG = ("materialized", "contract", "pre-hook", "post-hook", "sql_header", "unique_key")

_STRATEGIES = (None, "default", "merge", "delete+insert")
_SCHEMA_CHANGES = (None, "ignore", "fail")
"""dbt's default is `ignore`; a delta with other columns than the published table fails in either case."""
_REFUSED_OPTIONS = {
    "incremental_predicates": "all published rows are compared by unique_key",
    "predicates": "all published rows are compared by unique_key",
    "merge_update_columns": "a changed row replaces the old one in all its columns",
    "merge_exclude_columns": "a changed row replaces the old one in all its columns",
    "full_refresh": "the run's own parameter decides; a model that is never to be merged is a 'table'",
}
"""Options of incremental models that have no meaning here, and why."""


@dataclass(frozen=True)
class Node:
    """One model, ephemeral model or seed. `definition` is a digest of everything that is its own.

    `unique_key` names a row of an incremental model; () for all others.
    """

    unique_id: str
    kind: Kind
    name: str
    alias: str
    database: str
    schema: str
    path: str
    parents: tuple[str, ...]
    definition: str
    is_always_built: bool = False
    unique_key: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        return "staging" if self.alias.startswith("stg_") else "mart"


@dataclass(frozen=True)
class Source:
    """A raw table as the models name it."""

    unique_id: str
    schema: str
    table: str


@dataclass(frozen=True)
class Test:
    """A data test or unit test. `attached_to` is the model it was written for, where dbt knows one."""

    unique_id: str
    name: str
    parents: tuple[str, ...]
    attached_to: str | None
    definition: str

    @property
    def is_unit_test(self) -> bool:
        return self.unique_id.startswith("unit_test.")


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every parent comes first."""

    nodes: Mapping[str, Node]
    sources: Mapping[str, Source]
    tests: Mapping[str, Test]

    def tests_of(self, unique_id: str) -> list[Test]:
        return [test for test in self.tests.values() if unique_id in test.parents]

    def is_unit_tested(self, node: Node) -> bool:
        return any(test.is_unit_test for test in self.tests_of(node.unique_id))

    def published(self) -> Iterator[Node]:
        """The models that have a table of their own in the lake, parents first."""
        return (node for node in self.nodes.values() if node.kind == "model")

    def ancestors(self, unique_id: str) -> set[str]:
        """Every node and source that `unique_id` depends on, over any distance."""
        found: set[str] = set()
        open_ids = [unique_id]
        while open_ids:
            node = self.nodes.get(open_ids.pop())
            fresh = set(node.parents if node else ()) - found
            found |= fresh
            open_ids.extend(fresh)
        return found


def read_graph(manifest: Mapping[str, Any]) -> Graph:
    """The graph of a manifest (schema v12, as a dict). Raises ConfigurationError for what cannot be run."""
    problems: list[Problem] = []
    nodes: dict[str, Node] = {}
    tests: dict[str, Test] = {}
    for raw in cast(Mapping[str, Mapping[str, Any]], manifest["nodes"]).values():
        resource_type = raw["resource_type"]
        if resource_type in ("model", "seed"):
            node = _read_node(raw)
            nodes[node.unique_id] = node
            problems += _materialization_problems(raw)
        elif resource_type == "test":
            tests[raw["unique_id"]] = _read_test(raw)
        elif resource_type == "snapshot":
            problems.append(Problem(raw["original_file_path"], "", "snapshots are not supported; use a model"))
    for raw in manifest.get("unit_tests", {}).values():
        tests[raw["unique_id"]] = _read_test(raw)
    if problems:
        raise ConfigurationError(problems)
    sources = {raw["unique_id"]: _read_source(raw) for raw in manifest["sources"].values()}
    return Graph(nodes=_ordered(nodes), sources=sources, tests=tests)


def digest(*parts: object) -> str:
    """A short, stable hash of JSON-like parts."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _materialization_problems(raw: Mapping[str, Any]) -> list[Problem]:
    materialized = raw["config"].get("materialized")
    if raw["resource_type"] == "seed" or materialized in ("table", "ephemeral"):
        return []
    if materialized == "incremental":
        return _incremental_problems(raw)
    message = (
        f"{materialized!r} is not supported: candidates are built anew in every run; "
        "use 'table', 'incremental' or 'ephemeral'"
    )
    return [Problem(raw["original_file_path"], "materialized", message)]


def _incremental_problems(raw: Mapping[str, Any]) -> list[Problem]:
    config = raw["config"]
    found: dict[str, str] = {}
    key, columns = _unique_key(raw), raw.get("columns") or {}
    if not key:
        found["unique_key"] = "an incremental model needs it: the column, or the list of columns, that names a row"
    elif columns and (unknown := [name for name in key if name not in columns]):
        found["unique_key"] = f"{', '.join(unknown)} is no column that the model declares; write the columns' names"
    if config.get("incremental_strategy") not in _STRATEGIES:
        strategy = config["incremental_strategy"]
        found["incremental_strategy"] = (
            f"{strategy!r} is not supported: changed rows are merged by unique_key; use 'merge'"
        )
    if config.get("on_schema_change") not in _SCHEMA_CHANGES:
        found["on_schema_change"] = (
            f"{config['on_schema_change']!r} is not supported: a model whose code changes is computed whole, with its "
            "new columns; use 'fail'"
        )
    found |= {
        name: f"has no effect here, remove it: {why}" for name, why in _REFUSED_OPTIONS.items() if _is_set(config, name)
    }
    return [Problem(raw["original_file_path"], name, message) for name, message in found.items()]


def _is_set(config: Mapping[str, Any], name: str) -> bool:
    return config.get(name) is not None


def _unique_key(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """As one writes it, a name or a list of names; () of a model that is not incremental."""
    config = raw["config"]
    key: str | list[str] | None = config.get("unique_key") if config.get("materialized") == "incremental" else None
    return (key,) if isinstance(key, str) else tuple(key or ())


def _read_node(raw: Mapping[str, Any]) -> Node:
    config = raw["config"]
    kind: Kind = "model"
    if raw["resource_type"] == "seed":
        kind = "seed"
    elif config.get("materialized") == "ephemeral":
        kind = "ephemeral"
    meta = config.get("meta") or {}
    return Node(
        unique_id=raw["unique_id"],
        kind=kind,
        name=raw["name"],
        alias=raw.get("alias") or raw["name"],
        database=raw.get("database") or "",
        schema=raw["schema"],
        path=raw["original_file_path"],
        parents=tuple(sorted(raw.get("depends_on", {}).get("nodes", ()))),
        definition=_definition(raw),
        is_always_built=meta.get("rebuild") == "always",
        unique_key=_unique_key(raw),
    )


def _definition(raw: Mapping[str, Any]) -> str:
    # Descriptions, tags and docs are left out on purpose: rewording a comment must not rebuild a mart.
    columns = [
        (name, column.get("data_type"), column.get("constraints"), column.get("quote"))
        for name, column in sorted(raw.get("columns", {}).items())
    ]
    config = {key: raw["config"].get(key) for key in _FINGERPRINTED_CONFIG}
    code = raw.get("raw_code") or raw.get("checksum", {}).get("checksum")
    return digest(code, columns, config, raw["schema"], raw.get("alias"), raw.get("constraints"))


def _read_test(raw: Mapping[str, Any]) -> Test:
    parents = tuple(sorted(raw.get("depends_on", {}).get("nodes", ())))
    config = raw.get("config", {})
    definition = digest(
        raw["unique_id"],
        raw.get("raw_code") or raw.get("given"),
        raw.get("expect"),
        raw.get("overrides"),
        raw.get("test_metadata"),
        [config.get(key) for key in ("severity", "where", "limit", "fail_calc", "warn_if", "error_if", "enabled")],
    )
    attached = raw.get("attached_node") or (raw.get("tested_node_unique_id"))
    return Test(raw["unique_id"], raw["name"], parents, attached, definition)


def _read_source(raw: Mapping[str, Any]) -> Source:
    return Source(raw["unique_id"], raw["schema"], raw.get("identifier") or raw["name"])


def _ordered(nodes: Mapping[str, Node]) -> dict[str, Node]:
    sorter = TopologicalSorter({key: [p for p in node.parents if p in nodes] for key, node in sorted(nodes.items())})
    try:
        order: Sequence[str] = list(sorter.static_order())
    except CycleError as error:
        raise ConfigurationError(f"models depend on each other in a circle: {' → '.join(error.args[1])}") from error
    return {key: nodes[key] for key in order}
