"""Which models a run builds, which it leaves alone because nothing changed, and which it must not touch.

Pure: a graph, what the lake holds and what the load reported go in, a plan comes out. Three rules:

* *blocked*: a raw table the model reads, over any distance, failed in this run or was never loaded. The last good
  version stays, even if it could be rebuilt from older rows: a mart must not mix tables of different ages.
* *unchanged*: the published table carries the same fingerprint. The fingerprint covers the model's own code, columns,
  contract and tests, the shared macros and the engine's version, the fingerprints of its parents and the data version
  of each raw table. A test that was added or tightened is therefore run at once.
* *build*: everything else; *whole*, or, of an incremental model, the *delta*: the rows that it selects beside those
  that are published. A delta is computed on a table that the very same code has made: the model's own, that of
  everything it reads over any distance, macros and versions. Only the data may have changed since.

The version of a raw table's data is the load id of its newest commit record, not its snapshot id: compaction, expiry
and restamping make new snapshots that carry the load's record forward, and they change no row. A table without a record
(a foreign writer) has only its snapshot id. Pitfall: SQL that depends on the clock gives other rows from unchanged
inputs; such a model says `meta: {rebuild: always}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mozart.engine.dbt_graph import Graph, Node, digest

State = Literal["loaded", "unchanged", "failed"]
Action = Literal["build", "unchanged", "blocked"]
Extent = Literal["whole", "delta"]


@dataclass(frozen=True)
class SourceState:
    """A raw table at planning time. `version` stands for its rows; None when the lake has no such table."""

    version: str | None
    state: State = "unchanged"


@dataclass(frozen=True)
class PlannedModel:
    """What happens to one published model, and why. `inputs` is what it reads: raw table or model → version.

    `code` is the digest of what computes it, whatever the data. `extent`: how much of it a build computes.
    """

    node: Node
    action: Action
    reason: str | None
    fingerprint: str
    inputs: Mapping[str, str]
    code: str
    extent: Extent = "whole"


@dataclass(frozen=True)
class Plan:
    """All published models of a tenant, parents first, and the nodes dbt has to be asked for."""

    models: tuple[PlannedModel, ...]
    selection: tuple[str, ...]
    """Names for `dbt build --select`: the models to build and the seeds they read."""

    @property
    def to_build(self) -> tuple[PlannedModel, ...]:
        return tuple(model for model in self.models if model.action == "build")


def plan_models(
    graph: Graph,
    *,
    sources: Mapping[str, SourceState],
    published: Mapping[str, str | None],
    shared: str,
    codes: Mapping[str, str | None] | None = None,
    force: bool = False,
) -> Plan:
    """Decide for every model.

    `sources` by the source's unique id; one that is missing counts as never loaded. `published` maps a model's unique
    id to the fingerprint in its table's commit record, None where there is no table or no record. `shared` is the
    digest of what all models have in common: project file, macros, engine. `codes`, like `published`, are the digests
    of the code that computed them. `force` builds whatever is not blocked, and whole.
    """
    planner = _Planner(graph, sources, published, shared, codes or {})
    planned = [planner.plan(node, force=force) for node in graph.nodes.values()]
    models = tuple(model for model in planned if model.node.kind == "model")
    return Plan(models=models, selection=_selection(graph, models))


def needed_relations(graph: Graph, plan: Plan) -> tuple[set[str], set[str]]:
    """Sources and published models (unique ids) that the plan's models and their tests read from the lake."""
    built = {model.node.unique_id for model in plan.to_build}
    reached: set[str] = set()
    for unique_id in built:
        reached |= _direct_parents(graph, unique_id)
        for test in graph.tests_of(unique_id):
            for parent in test.parents:
                node = graph.nodes.get(parent)
                # A test on an ephemeral model is compiled into what that model reads.
                reached |= _direct_parents(graph, parent) if node and node.kind == "ephemeral" else {parent}
    models = {key for key in reached if key in graph.nodes and graph.nodes[key].kind == "model"} - built
    return {key for key in reached if key in graph.sources}, models


def _direct_parents(graph: Graph, unique_id: str) -> set[str]:
    found: set[str] = set()
    for parent in graph.nodes[unique_id].parents:
        node = graph.nodes.get(parent)
        found |= _direct_parents(graph, parent) if node and node.kind == "ephemeral" else {parent}
    return found


@dataclass
class _Planner:
    """One planning pass; `fingerprints` and `blocked` fill up as it goes from parents to children."""

    graph: Graph
    sources: Mapping[str, SourceState]
    published: Mapping[str, str | None]
    shared: str
    published_codes: Mapping[str, str | None]
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    codes: dict[str, str] = field(default_factory=dict[str, str])
    blocked: dict[str, str] = field(default_factory=dict[str, str])

    def plan(self, node: Node, *, force: bool) -> PlannedModel:
        fingerprint = self.fingerprints[node.unique_id] = self._fingerprint(node)
        code = self.codes[node.unique_id] = self._code(node)
        inputs = self._inputs(node)
        reason = self._blocked_reason(node)
        if reason:
            self.blocked[node.unique_id] = reason
            return PlannedModel(node, "blocked", f"{reason}; keeps its last version", fingerprint, inputs, code)
        is_unchanged = self.published.get(node.unique_id) == fingerprint and not node.is_always_built
        if is_unchanged and not force:
            return PlannedModel(node, "unchanged", "inputs unchanged", fingerprint, inputs, code)
        can_merge = node.unique_key and self.published_codes.get(node.unique_id) == code and not force
        return PlannedModel(node, "build", None, fingerprint, inputs, code, "delta" if can_merge else "whole")

    def _version(self, source_id: str) -> str | None:
        state = self.sources.get(source_id)
        return state.version if state else None

    def _fingerprint(self, node: Node) -> str:
        upstream = [
            (key, self._version(key) if key in self.graph.sources else self.fingerprints.get(key))
            for key in node.parents
        ]
        tests = sorted(test.definition for test in self.graph.tests_of(node.unique_id))
        return digest(self.shared, node.definition, tests, upstream)

    def _code(self, node: Node) -> str:
        """Tests are no part of it: they judge the merged rows, old ones as well."""
        upstream = [(key, self.codes.get(key)) for key in node.parents]
        return digest(self.shared, node.definition, upstream)

    def _inputs(self, node: Node) -> dict[str, str]:
        inputs: dict[str, str] = {}
        for key in sorted(_direct_parents(self.graph, node.unique_id)):
            if key in self.graph.sources:
                source = self.graph.sources[key]
                inputs[f"{source.schema}.{source.table}"] = self._version(key) or "none"
            elif key in self.graph.nodes:
                parent = self.graph.nodes[key]
                inputs[f"{parent.schema}.{parent.alias}"] = self.fingerprints[key]
        return inputs

    def _blocked_reason(self, node: Node) -> str | None:
        for key in node.parents:
            if key in self.blocked:
                # The root cause travels down unchanged: it names the raw table, which is what an operator mends.
                return self.blocked[key]
            source = self.graph.sources.get(key)
            if source is None:
                continue
            state = self.sources.get(key)
            if state and state.state == "failed":
                return f"raw table {source.schema}.{source.table} failed to load in this run"
            if self._version(key) is None:
                return f"raw table {source.schema}.{source.table} has never been loaded"
        return None


def _selection(graph: Graph, planned: Sequence[PlannedModel]) -> tuple[str, ...]:
    built = [model.node for model in planned if model.action == "build"]
    seeds = {
        key
        for node in built
        for key in _direct_parents(graph, node.unique_id)
        if key in graph.nodes and graph.nodes[key].kind == "seed"
    }
    return tuple(node.name for node in built) + tuple(sorted(graph.nodes[key].name for key in seeds))
