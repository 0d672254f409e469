"""Check a tenant's models without its data: the files, then dbt on empty tables, then the marts it makes.

The way of one check: read the folder (`mozart.tenancy.model_folder`) → compare contracts with the product schema →
stage what is sound → one dbt process parses it and builds it into a throw-away local database, where `lake` holds an
empty table for each declared source → compare the marts that came out with the product schema. A model that fails gives
way to its declared columns and the rest is built again, so one pass tells everything.

Needs no server, no lake and no credentials, and reads nothing of another tenant. What empty tables cannot show stays
for the run: data that breaks a test or a cast, and raw tables that differ from the declared types.

Pitfall: the models are built in the namespace `{tenant}_validate`, so that a schema that is written out instead of
taken from MOZART_SCHEMA is seen: it would read production's tables in every branch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mozart.engine.dbt_graph import Graph, read_graph
from mozart.engine.dbt_process import DbtProcess
from mozart.engine.dbt_project import CANDIDATES, DbtFolder, locked
from mozart.engine.duckdb import LAKE, connect
from mozart.engine.model_problems import build_problems, column_line, parse_problem, test_problem
from mozart.engine.model_stage import Stage, is_type, typed_columns
from mozart.engine.product_check import candidate_shape, shape_breaches
from mozart.errors import ConfigurationError, MozartError, Problem
from mozart.lake.publish import Publication
from mozart.sql import quote_qualified
from mozart.tenancy.model import Tenant
from mozart.tenancy.model_folder import ModelFile, ModelFolder, read_model_folder
from mozart.tenancy.model_properties import DeclaredColumn
from mozart.tenancy.product_rules import contract_problems, mart_model, missing_marts
from mozart.tenancy.product_schema import Mart, ProductSchema

ENVIRONMENT = "validate"
"""The folder of the parse state, and the suffix of the namespaces that models are built in."""

_DEADLINE_SECONDS = 600.0
_ATTEMPTS = 6
_MEMORY = "512MB"
_THREADS = 2
_RUN = "check"


@dataclass(frozen=True)
class ModelCheck:
    """What was found. `was_built` False: the models could not be run, so that more may come to light."""

    models: int
    problems: tuple[Problem, ...]
    was_built: bool


def check_models(
    root: Path, state: Path, tenant: Tenant, product: ProductSchema | None, *, parse_only: bool = False
) -> ModelCheck:
    """Check one tenant's models; mistakes are the answer, not an exception.

    `product` None leaves the marts' shape out. Raises ConfigurationError without a dbt project, TransientError when
    another check of this tenant goes on or dbt's process was killed, TerminalError when it runs out of time.
    """
    folder = read_model_folder(root, tenant)
    problems = [*folder.problems, *_type_problems(folder)]
    if folder.models and product:
        problems += missing_marts(product, tenant.id, set(folder.models))
        problems += _declared_mart_problems(folder, product)
    if not folder.models or not folder.is_declared:
        return ModelCheck(len(folder.models), _in_order(problems), was_built=False)
    if not (root / "dbt" / "dbt_project.yml").is_file():
        raise ConfigurationError(Problem("dbt/dbt_project.yml", "", "does not exist; it belongs to the checkout"))
    place = _place(root, state, tenant)
    with locked(place):
        check = _Check(folder, place, product, problems)
        was_built = check.run(parse_only=parse_only)
    return ModelCheck(len(folder.models), _in_order(check.problems), was_built)


def _place(root: Path, state: Path, tenant: Tenant) -> DbtFolder:
    base = state / "dbt" / tenant.id / ENVIRONMENT
    return DbtFolder(
        root=base / "stage",
        tenant=tenant.id,
        namespace=f"{tenant.id}_{ENVIRONMENT}",
        target="dev",
        base=base,
        profiles=state / "dbt",
    )


def _type_problems(folder: ModelFolder) -> list[Problem]:
    """Declared types that no engine knows."""
    entries = [*folder.declared.values(), *folder.raw_tables.values()]
    return [
        Problem(f"{entry.file}:{column.type_line}", column.name, f"{column.data_type[:60]!r} is no type of DuckDB's")
        for entry in entries
        for column in entry.columns
        if column.data_type is not None and not is_type(column.data_type)
    ]


def _declared_mart_problems(folder: ModelFolder, product: ProductSchema) -> list[Problem]:
    problems: list[Problem] = []
    for name, model in folder.models.items():
        if model.name.layer != "mart":
            continue
        mart, declared = product.mart(model.name.alias), folder.declared.get(name)
        if mart is None:
            message = (
                f"{model.name.alias} is no mart of the product schema; add it there for every tenant, or remove it"
            )
            problems.append(Problem(model.file, "", message))
        elif declared is not None:
            problems += contract_problems(mart, declared)
    return problems


def _in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """By file and line, without repetitions."""

    def place(problem: Problem) -> tuple[str, int]:
        file, _, line = problem.file.rpartition(":")
        return (file, int(line)) if line.isdigit() else (problem.file, 0)

    return tuple(sorted(dict.fromkeys(problems), key=place))


@dataclass
class _Check:
    """One tenant's check in progress."""

    folder: ModelFolder
    place: DbtFolder
    product: ProductSchema | None
    problems: list[Problem]
    stage: Stage = field(init=False)
    failed: set[str] = field(default_factory=set[str])
    refused_tests: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.stage = Stage(self.folder, self.place.root)
        self.stage.broken = {
            name
            for name, model in self.folder.declared.items()
            if name in self.folder.models and not _has_known_types(model.columns)
        }

    @property
    def tenant(self) -> Tenant:
        return self.folder.tenant

    def run(self, *, parse_only: bool) -> bool:
        """Parse and build; whether everything that is sound was built (or parsed, if that was all)."""
        self.stage.write()
        self.place.prepare()
        with DbtProcess(
            folder=self.place.project,
            environ=self.place.environ,
            secrets=(),
            what=f"models of {self.tenant.id}",
            deadline=time.monotonic() + _DEADLINE_SECONDS,
            module="mozart.engine.validate_child",
        ) as process:
            graph = self._parse(process)
            if graph is None or parse_only:
                return graph is not None
            database = self._build(process, graph)
            process.close_input()
            process.wait()
        if database is not None and self.product is not None:
            self._compare(database, graph, self.product)
        return database is not None

    def _parse(self, process: DbtProcess) -> Graph | None:
        """The graph, with broken models replaced one by one; None when something else than a model cannot be read."""
        for _ in range(_ATTEMPTS):
            process.send({"do": "parse", **self.place.parse_request})
            event = _next(process, ("parsed", "failed"))
            if event["event"] == "parsed":
                return self._graph()
            problem, file = parse_problem(self.tenant.id, str(event["message"]))
            self.problems.append(problem)
            blamed = {name for name, model in self.folder.models.items() if model.file == file}
            if not blamed or blamed <= self.stage.broken:
                return None
            self.stage.broken |= blamed
            self.stage.write()
        return None

    def _graph(self) -> Graph | None:
        manifest = self.place.read_manifest()
        self.problems += self._misplaced(manifest)
        try:
            graph = read_graph(manifest)
        except ConfigurationError as error:
            self.problems += [Problem(_project_path(p.file), p.key, p.message) for p in error.problems]
            return None
        if self.product:
            self.problems += self._unmade_marts(graph, self.product)
        return graph

    def _misplaced(self, manifest: Mapping[str, Any]) -> list[Problem]:
        """Sources and models that would not follow the environment, or not be the tenant's own."""
        namespace, problems = self.place.namespace, list[Problem]()
        lines = {source.name: source for source in self.folder.sources}
        for source in {raw["source_name"]: raw for raw in manifest["sources"].values()}.values():
            declared = lines.get(source["source_name"])
            where = f"{declared.file}:{declared.line}" if declared else _project_path(source["original_file_path"])
            if source["schema"] != f"{namespace}_raw":
                cure = f"\"{{{{ env_var('MOZART_SCHEMA', '{self.tenant.id}') }}}}_raw\""
                problems.append(Problem(where, "schema", f"must follow the environment: {cure}"))
            if source["database"] != LAKE:
                cure = "\"{{ 'lake' if target.type == 'duckdb' else target.database }}\""
                problems.append(Problem(where, "database", f"must be the lake's: {cure}"))
        for raw in manifest["nodes"].values():
            is_misplaced = raw["resource_type"] == "model" and (raw["schema"], raw["database"]) != (
                namespace,
                CANDIDATES,
            )
            if is_misplaced:
                message = "chooses its own schema or database; a tenant's models all lie in its own namespace"
                problems.append(Problem(_project_path(raw["original_file_path"]), "", message))
        return problems

    def _unmade_marts(self, graph: Graph, product: ProductSchema) -> list[Problem]:
        """Marts whose file is there and that make no table: disabled, or ephemeral."""
        made = {node.name for node in graph.published()}
        wanted = {mart_model(self.tenant.id, mart.name) for mart in product.marts} & set(self.folder.models)
        return [
            Problem(self.folder.models[name].file, "", "makes no table; a mart is neither disabled nor ephemeral")
            for name in sorted(wanted - made - self.stage.left_out)
        ]

    def _build(self, process: DbtProcess, graph: Graph) -> Path | None:
        """Build until nothing more comes to light; the database with what was built, None when dbt gave up."""
        run = self.place.new_run(_RUN)
        database = run / f"{CANDIDATES}.duckdb"
        for _ in range(_ATTEMPTS):
            select = [node.name for node in graph.published() if self._is_buildable(graph, node.unique_id)]
            if not select:
                return database
            process.send(self._build_request(graph, run, select))
            results: dict[str, dict[str, Any]] = {}
            while (event := _next(process, ("result", "built", "failed")))["event"] == "result":
                results[event["unique_id"]] = event
            if event["event"] == "failed":
                message = f"dbt could not build them: {event['message']}"
                self.problems.append(Problem(f"tenants/{self.tenant.id}/models", "", " ".join(message.split())[:500]))
                return None
            is_skipped = any(result["status"] == "skipped" for result in results.values())
            if not self._note_failures(graph, results) or not is_skipped:
                return database
        return database

    def _is_buildable(self, graph: Graph, unique_id: str) -> bool:
        """Not failed before, and reading no failed model that declares nothing to stand in for it."""
        without = {key for key in self.failed if self.stage.columns(graph.nodes[key].name) is None}
        return unique_id not in self.failed and not without & graph.ancestors(unique_id)

    def _build_request(self, graph: Graph, run: Path, select: Sequence[str]) -> dict[str, Any]:
        tables = [
            {"schema": f"{self.place.namespace}_raw", "table": table.name, "columns": columns}
            for table in self.folder.raw_tables.values()
            if (columns := typed_columns(table.columns))
        ]
        for node in (graph.nodes[key] for key in sorted(self.failed)):
            if columns := self.stage.columns(node.name):
                tables.append({"schema": node.schema, "table": node.alias, "columns": columns})
        return {
            "do": "build",
            "candidates": str(run / f"{CANDIDATES}.duckdb"),
            "spill": str(run / "spill"),
            "memory": _MEMORY,
            "threads": _THREADS,
            "select": list(select),
            "exclude": sorted(self.refused_tests),
            "tables": tables,
        }

    def _note_failures(self, graph: Graph, results: Mapping[str, dict[str, Any]]) -> bool:
        """Take up what went wrong; whether it was anything new."""
        before = (len(self.failed), len(self.refused_tests))
        for unique_id, event in results.items():
            if event["status"] not in ("error", "fail", "runtime error"):
                continue
            node, test = graph.nodes.get(unique_id), graph.tests.get(unique_id)
            if node is not None and node.name in self.folder.models:
                self.failed.add(unique_id)
                if node.name not in self.stage.broken:
                    self.problems += build_problems(self.folder, self.folder.models[node.name], event)
            elif test is not None and test.name not in self.refused_tests:
                self.refused_tests.add(test.name)
                # A test that fails on no rows asks for rows (a minimum count): that is for the run to see.
                if event["status"] != "fail":
                    self._note_test(graph, test.attached_to, test.name, event)
        return (len(self.failed), len(self.refused_tests)) != before

    def _note_test(self, graph: Graph, attached_to: str | None, name: str, event: Mapping[str, Any]) -> None:
        node = graph.nodes.get(attached_to or "")
        declared = self.folder.declared.get(node.name) if node else None
        file = declared.file if declared else f"tenants/{self.tenant.id}/models"
        self.problems.append(test_problem(self.folder, file, name, node.name if node else None, event))

    def _compare(self, database: Path, graph: Graph, product: ProductSchema) -> None:
        """The marts that were built against the product schema, whatever their contracts say."""
        marts = [(node, product.mart(node.alias)) for node in graph.published() if node.name not in self.stage.broken]
        if not database.exists():
            return
        with contextlib.closing(connect(database=str(database), read_only=True)) as connection:
            for node, mart in marts:
                if mart is None or node.unique_id in self.failed or not self._is_buildable(graph, node.unique_id):
                    continue
                relation = quote_qualified(CANDIDATES, node.schema, node.alias)
                candidate = Publication(node.schema, node.alias, relation, _RUN, "")
                try:
                    breaches = shape_breaches(mart, candidate_shape(connection, candidate))
                except MozartError as error:
                    breaches = [str(error)]
                self.problems += self._unsaid(mart, node.name, breaches)

    def _unsaid(self, mart: Mart, name: str, breaches: Sequence[str]) -> list[Problem]:
        """Breaches of a built mart that its contract did not show already."""
        declared = self.folder.declared.get(name)
        if declared is not None and any(contract_problems(mart, declared)):
            return []
        model = self.folder.models[name]
        return [Problem(f"{model.file}:{_breach_line(model, text)}", mart.name, text) for text in breaches]


def _breach_line(model: ModelFile, breach: str) -> int:
    words = breach.split()
    return column_line(model, words[1]) if words[0] == "column" else 1


def _has_known_types(columns: Sequence[DeclaredColumn]) -> bool:
    return all(column.data_type is None or is_type(column.data_type) for column in columns)


def _project_path(path: str) -> str:
    return path.removeprefix("../")


def _next(process: DbtProcess, kinds: Sequence[str]) -> dict[str, Any]:
    """The next event of one of `kinds`; raises what the child's end means when there is none."""
    for event in process.events():
        if event.get("event") in kinds:
            return event
    raise process.death()
