"""A tenant's models as dbt parsed them: the manifest cut down to what planning and publishing need.

Pure: reads a manifest that is already in memory, knows no engine, starts nothing. Seeds and ephemeral models are part
of the graph (a model's fingerprint covers them) but are never published. Snapshots, views and
incremental models are refused: they need a database that lives on, and ours is thrown away after every run.
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

_FINGERPRINTED_CONFIG = ("materialized", "contract", "pre-hook", "post-hook", "sql_header")


@dataclass(frozen=True)
class Node:
    """One model, ephemeral model or seed. `definition` is a digest of everything that is its own."""

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


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every parent comes first."""

    nodes: Mapping[str, Node]
    sources: Mapping[str, Source]
    tests: Mapping[str, Test]

    def tests_of(self, unique_id: str) -> list[Test]:
        return [test for test in self.tests.values() if unique_id in test.parents]

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
    message = f"{materialized!r} is not supported: candidates are built anew in every run; use 'table' or 'ephemeral'"
    return [Problem(raw["original_file_path"], "materialized", message)]


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
