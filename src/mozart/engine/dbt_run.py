"""Run a tenant's models: plan, let dbt compute candidates in a process of its own, publish what passed.

The way of one run: read the heads of the tables → plan on the manifest of last time if no file changed since (when
nothing is to be built, dbt is never started) → start the child, which parses → plan on the manifest it wrote → it
builds into a local database and tests there → judge → publish model by model, parents first → remove the run's folder.

What holds: every model of a run reads one snapshot per lake table, the one that was current when the run was planned,
and the commit record of what is published names it. A child that dies or runs out of time leaves the lake as it was.
What does not hold: several published tables do not change in one instant; each changes in one commit.

State under `{state}/dbt/{tenant}/{environment}`, all of it expendable: dbt's target path (manifest, partial parse), and
`runs/{run id}` with candidates and spilled data, gone when the run ends; what a killed run left is removed by the next.
A lock lets one run of a tenant use the folder at a time. Knows no Prefect; blocks its thread.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pyiceberg.catalog import Catalog

from mozart.engine.choice import DUCKDB
from mozart.engine.dbt_graph import Graph, Layer, Node, digest, read_graph
from mozart.engine.dbt_plan import Plan, PlannedModel, SourceState, State, needed_relations, plan_models
from mozart.engine.dbt_process import DbtProcess
from mozart.engine.dbt_project import TARGETS, DbtFolder, locked
from mozart.engine.dbt_verdict import PASSED, NodeResult, Verdict, judge, one_line
from mozart.engine.model_engine import Candidates, Delta, LakeTable, ModelEngine, Work, create_model_engine
from mozart.errors import ConfigurationError, MozartError, Problem, TerminalError, TransientError
from mozart.lake.head import TableHead, read_head
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.publish import (
    CODE,
    INPUTS,
    LakeState,
    Merge,
    Publication,
    lake_state,
    published_code,
    published_fingerprint,
)
from mozart.settings import load_settings
from mozart.tenancy.product_schema import ProductSchema

Status = Literal["published", "unchanged", "failed", "skipped", "blocked"]

EventKind = Literal["planned", "started", "computed", "finished"]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class RawInput:
    """What this run's load says of a raw table. `snapshot_id` is read instead of the newest while it exists."""

    snapshot_id: int | None = None
    state: State = "unchanged"


@dataclass(frozen=True)
class ModelRequest:
    """One run of a tenant's models.

    `root` is the project (holds `dbt/` and `tenants/`), `state` its local state. `namespace` and `raw_namespace` are
    the catalog's, with the environment's suffix; `catalog` is its name in SQL on a distributed engine. `environment`
    names the folder of the parse state (`default` or a branch).
    `inputs` by raw table name; a table that is missing there counts as unchanged. `memory` is DuckDB's limit, for the
    whole run; dbt itself takes some 200 MB more. A mart that breaks `product` is not published; None, for models that
    belong to no product, holds them to nothing.
    """

    tenant: str
    run_id: str
    root: Path
    state: Path
    namespace: str
    raw_namespace: str
    product: ProductSchema | None
    catalog: str = "iceberg"
    environment: str = "default"
    target: str = "dev"
    inputs: Mapping[str, RawInput] = field(default_factory=dict[str, RawInput])
    full_refresh: bool = False
    timeout_seconds: float = 3600.0
    memory: str = "1GB"
    threads: int = 2

    def __post_init__(self) -> None:
        # They become folder names and environment values.
        for what, name in (("tenant", self.tenant), ("environment", self.environment), ("run_id", self.run_id)):
            if not _PLAIN_NAME.fullmatch(name):
                raise TerminalError(f"{what} {name!r} of a dbt run is not a plain name")
        if self.target not in TARGETS:
            raise TerminalError(f"dbt target {self.target!r} is not one of {', '.join(TARGETS)}")

    @property
    def folder(self) -> DbtFolder:
        return self.folder_of(DUCKDB)

    def folder_of(self, engine: str) -> DbtFolder:
        """The state of this tenant's runs on an engine; one lock for all engines."""
        profiles = self.state / "dbt"
        return DbtFolder(
            root=self.root,
            tenant=self.tenant,
            namespace=self.namespace,
            target=self.target,
            base=profiles / self.tenant / self.environment,
            profiles=profiles if engine == DUCKDB else profiles / f".{engine}",
            engine=engine,
        )


@dataclass(frozen=True)
class ModelResult:
    """What became of one model. `rows` and `snapshot_id` only when published; `seconds` is dbt's, tests included.

    `merged_rows`: how many of the rows were computed and merged, None when the model was computed whole.
    """

    unique_id: str
    name: str
    layer: Layer
    status: Status
    reason: str | None = None
    rows: int | None = None
    seconds: float = 0.0
    tests_passed: int = 0
    tests_failed: int = 0
    snapshot_id: int | None = None
    merged_rows: int | None = None


@dataclass(frozen=True)
class ModelEvent:
    """Progress of one model: `planned` (to be built) → `started` → `computed` → `finished` with its result.

    A model that is not built goes straight to `finished`. One that dbt skips was never `started`.
    """

    kind: EventKind
    unique_id: str
    name: str
    layer: Layer
    result: ModelResult | None = None


OnEvent = Callable[[ModelEvent], None]


def build_models(
    request: ModelRequest,
    lakehouse: Lakehouse,
    on_event: OnEvent = lambda _: None,
    engine: ModelEngine | None = None,
) -> list[ModelResult]:
    """Build, test and publish the tenant's models; one result each, parents first. `engine` None: the project's own.

    A model that fails is a result, not an exception; the others go on. Raises ConfigurationError when the models cannot
    be parsed, TransientError when the child was killed, the lake cannot be reached or another run holds the tenant's
    folder, TerminalError when the time limit passes or dbt breaks. After an exception nothing was published by
    this call.
    """
    chosen = engine or create_model_engine(load_settings(request.root), lakehouse, request.catalog, request.namespace)
    folder = request.folder_of(chosen.name)
    with locked(folder):
        folder.prepare()
        try:
            return chosen.retried(lambda: _Run(request, lakehouse, folder, on_event, chosen).execute())
        finally:
            shutil.rmtree(folder.runs, ignore_errors=True)


def parse_models(request: ModelRequest) -> Graph:
    """Only parse, as `make dbt-parse` does: no lake, no credentials. Raises ConfigurationError with dbt's reason."""
    folder = request.folder
    with locked(folder):
        folder.prepare()
        with _start(request, folder, secrets=()) as process:
            graph = _parse(request, folder, process)
            process.close_input()
            process.wait()
            return graph


class _Run:
    """One call of build_models: what it was given, and the heads it has read."""

    def __init__(
        self, request: ModelRequest, lakehouse: Lakehouse, folder: DbtFolder, on_event: OnEvent, engine: ModelEngine
    ) -> None:
        self.request = request
        self.engine = engine
        self.lakehouse = lakehouse
        self.folder = folder
        self.on_event = on_event
        self.catalog: Catalog = lakehouse.catalog()
        self.heads: dict[tuple[str, str], TableHead] = {}

    def execute(self) -> list[ModelResult]:
        cached = self.folder.fresh_manifest()
        if cached is not None:
            plan = self._plan(_checked(self.request, read_graph(cached)))
            if not plan.to_build:
                return list(self._announce(plan).values())
        with _start(self.request, self.folder, self.engine.secrets) as process:
            graph = _parse(self.request, self.folder, process)
            plan = self._plan(graph)
            results = self._announce(plan)
            work = self._work(graph, plan)
            dbt_results = self._build(work, process) if plan.to_build else {}
        if plan.to_build:
            results |= self._publish(graph, work, judge(graph, _ids(plan.to_build), dbt_results))
        return [results[unique_id] for unique_id in _ids(plan.models)]

    def _head(self, namespace: str, table: str) -> TableHead:
        key = (namespace, table)
        if key not in self.heads:
            self.heads[key] = read_head(self.catalog, key)
        return self.heads[key]

    def _plan(self, graph: Graph) -> Plan:
        sources = {
            source.unique_id: SourceState(
                self._state(source.schema, source.table).version, self._input(source.table).state
            )
            for source in graph.sources.values()
        }
        heads = {node.unique_id: self._head(node.schema, node.alias) for node in graph.published()}
        return plan_models(
            graph,
            sources=sources,
            published={unique_id: published_fingerprint(head) for unique_id, head in heads.items()},
            codes={unique_id: published_code(head) for unique_id, head in heads.items()},
            shared=_shared_digest(self.request),
            force=self.request.full_refresh,
        )

    def _input(self, table: str) -> RawInput:
        return self.request.inputs.get(table, RawInput())

    def _state(self, schema: str, table: str) -> LakeState:
        wanted = self._input(table).snapshot_id if schema == self.request.raw_namespace else None
        return lake_state(self._head(schema, table), wanted)

    def _announce(self, plan: Plan) -> dict[str, ModelResult]:
        """Tell the caller what is planned; the results of what is not built are final already."""
        results: dict[str, ModelResult] = {}
        for model in plan.models:
            if model.action == "build":
                self._tell("planned", model.node)
            else:
                self._finish(results, _result(model.node, model.action, model.reason))
        return results

    def _tell(self, kind: EventKind, node: Node) -> None:
        self.on_event(ModelEvent(kind, node.unique_id, node.alias, node.layer))

    def _finish(self, results: dict[str, ModelResult], result: ModelResult) -> None:
        results[result.unique_id] = result
        self.on_event(ModelEvent("finished", result.unique_id, result.name, result.layer, result))

    def _work(self, graph: Graph, plan: Plan) -> Work:
        return Work(
            run_id=self.request.run_id,
            began=int(time.time()),
            lakehouse=self.lakehouse,
            namespace=self.request.namespace,
            plan=plan,
            tables=self._lake_tables(graph, plan),
            folder=self.folder.new_run(self.request.run_id),
            memory=self.request.memory,
            threads=self.request.threads,
            deltas=self._deltas(plan),
        )

    def _deltas(self, plan: Plan) -> dict[str, Delta]:
        """What each delta is computed beside: the published table, as it was when the run was planned."""
        deltas: dict[str, Delta] = {}
        for model in plan.to_build:
            node, head = model.node, self._head(model.node.schema, model.node.alias)
            state = lake_state(head)
            if model.extent == "delta" and head.table and state.metadata_location and state.version:
                base = LakeTable(node.unique_id, node.schema, node.alias, state.metadata_location, state.snapshot_id)
                columns = tuple(field.name for field in head.table.schema().fields)
                deltas[node.unique_id] = Delta(base, state.version, columns, node.unique_key)
        return deltas

    def _build(self, work: Work, process: DbtProcess) -> dict[str, NodeResult]:
        message = self.engine.build_message(self.catalog, work)
        process.send({**message, "select": list(work.plan.selection), "threads": work.threads})
        built = {model.node.unique_id: model.node for model in work.plan.to_build}
        results: dict[str, NodeResult] = {}
        for event in process.events():
            kind = event.get("event")
            node = built.get(event.get("unique_id", ""))
            if kind in ("node_started", "node_finished") and node:
                self._tell("started" if kind == "node_started" else "computed", node)
            elif kind == "result":
                results[event["unique_id"]] = _node_result(event)
            elif kind == "failed":
                raise self._error(f"dbt could not build them: {one_line(event['message'], 2000)}")
            elif kind == "done":
                self._check_transient(results)
                return results  # the child has closed its database; leaving the `with` ends it
        raise process.death()

    def _check_transient(self, results: Mapping[str, NodeResult]) -> None:
        """Models that failed for a reason that may pass are not failed models: nothing of this attempt is published."""
        for result in results.values():
            if result.status not in PASSED and self.engine.is_transient(result.message):
                raise self._error(f"{result.unique_id}: {one_line(result.message)}")

    def _error(self, reason: str) -> MozartError:
        kind = TransientError if self.engine.is_transient(reason) else TerminalError
        return kind(f"models of {self.request.tenant}: {reason}")

    def _lake_tables(self, graph: Graph, plan: Plan) -> tuple[LakeTable, ...]:
        source_ids, model_ids = needed_relations(graph, plan)
        # A unit test may give `this`, whose columns are the published table's while there is no candidate.
        model_ids |= {model.node.unique_id for model in plan.to_build if graph.is_unit_tested(model.node)}
        names = [(key, graph.sources[key].schema, graph.sources[key].table) for key in sorted(source_ids)]
        names += [(key, graph.nodes[key].schema, graph.nodes[key].alias) for key in sorted(model_ids)]
        states = [(key, schema, table, self._state(schema, table)) for key, schema, table in names]
        return tuple(
            LakeTable(key, schema, table, state.metadata_location, state.snapshot_id)
            for key, schema, table, state in states
            if state.metadata_location is not None
        )

    def _publish(self, graph: Graph, work: Work, verdicts: Mapping[str, Verdict]) -> dict[str, ModelResult]:
        results: dict[str, ModelResult] = {}
        with self.engine.candidates(work) as candidates:
            for model in work.plan.to_build:
                verdict = _held_back(graph, model.node, verdicts[model.node.unique_id], results)
                delta = work.deltas.get(model.node.unique_id)
                self._finish(results, self._publish_one(candidates, model, delta, verdict))
        return results

    def _publish_one(
        self, candidates: Candidates, model: PlannedModel, delta: Delta | None, verdict: Verdict
    ) -> ModelResult:
        node = model.node
        if verdict.status != "passed":
            return _result(node, verdict.status, verdict.reason, verdict)
        changed = candidates.delta(node)
        publication = Publication(
            namespace=node.schema,
            table=node.alias,
            relation=candidates.relation(node),
            run_id=self.request.run_id,
            fingerprint=model.fingerprint,
            details=_details(model),
            merge=Merge(changed, delta.key, delta.version) if delta and changed else None,
        )
        try:
            published = candidates.publish(self.catalog, publication, self.request.product)
        except MozartError as error:
            return _result(node, "failed", f"built and tested, but not published: {one_line(str(error))}", verdict)
        outcome = _result(node, "published", None, verdict)
        return replace(
            outcome, rows=published.rows, snapshot_id=published.snapshot_id, merged_rows=published.merged_rows
        )


def _details(model: PlannedModel) -> dict[str, str]:
    """What the commit record says of a model beside its fingerprint."""
    inputs = {INPUTS: json.dumps(dict(model.inputs), sort_keys=True)}
    return {**inputs, CODE: model.code} if model.node.unique_key else inputs


def _ids(models: tuple[PlannedModel, ...]) -> list[str]:
    return [model.node.unique_id for model in models]


def _shared_digest(request: ModelRequest) -> str:
    """A changed product schema builds every model anew, so that each mart is held to it; a reworded one does not."""
    return digest(request.folder.shared_digest, request.product.shape if request.product else "")


def _start(request: ModelRequest, folder: DbtFolder, secrets: tuple[str, ...]) -> DbtProcess:
    return DbtProcess(
        folder=folder.project,
        environ=folder.environ,
        secrets=secrets,
        what=f"models of {request.tenant}",
        deadline=time.monotonic() + request.timeout_seconds,
    )


def _parse(request: ModelRequest, folder: DbtFolder, process: DbtProcess) -> Graph:
    parsed = folder.digest
    folder.forget_manifest()
    process.send(folder.parse_request)
    for event in process.events():
        if event.get("event") == "failed":
            message = one_line(event["message"], 2000)
            raise ConfigurationError(Problem(f"tenants/{request.tenant}/models", "", f"dbt cannot parse it: {message}"))
        if event.get("event") == "parsed":
            folder.remember_manifest(parsed)
            return _checked(request, read_graph(folder.read_manifest()))
    raise process.death()


def _checked(request: ModelRequest, graph: Graph) -> Graph:
    """A tenant's models write into its own namespace and read its own raw tables: isolation, not style."""
    problems = [
        Problem(node.path, "schema", f"{node.alias} would be published to {node.schema}, not {request.namespace}")
        for node in graph.published()
        if node.schema != request.namespace
    ]
    problems += [
        Problem(
            f"tenants/{request.tenant}/models/_sources.yml",
            f"{source.schema}.{source.table}",
            f"a tenant's sources lie in {request.raw_namespace}",
        )
        for source in graph.sources.values()
        if source.schema != request.raw_namespace
    ]
    if problems:
        raise ConfigurationError(problems)
    return graph


def _held_back(graph: Graph, node: Node, verdict: Verdict, results: Mapping[str, ModelResult]) -> Verdict:
    """A model whose parent could not be published stays too: a mart must not be newer than what it is said to read."""
    ancestors = graph.ancestors(node.unique_id)
    missing = [result.name for key, result in results.items() if key in ancestors and result.status != "published"]
    if verdict.status != "passed" or not missing:
        return verdict
    reason = f"upstream {', '.join(missing)} was not published; keeps its last version"
    return replace(verdict, status="skipped", reason=reason)


def _node_result(event: Mapping[str, Any]) -> NodeResult:
    return NodeResult(
        unique_id=event["unique_id"],
        status=event["status"],
        message=event["message"],
        failures=event["failures"],
        seconds=float(event["seconds"] or 0.0),
    )


def _result(node: Node, status: Status, reason: str | None, verdict: Verdict | None = None) -> ModelResult:
    result = ModelResult(node.unique_id, node.alias, node.layer, status, reason)
    if verdict is None:
        return result
    return replace(
        result, seconds=verdict.seconds, tests_passed=verdict.tests_passed, tests_failed=verdict.tests_failed
    )
