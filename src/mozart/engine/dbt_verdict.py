"""What dbt's results mean for each model: may its candidate be published, and if not, why.

Pure. A candidate is published only if the model was built and every test that concerns it ran and passed (a test of
severity `warn` passes). A failed test is charged to the model it was written for; if that model is not part of this
run, to those of this run that the test reads, for it is their change that broke it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mozart.engine.dbt_graph import Graph, Test

VerdictStatus = Literal["passed", "failed", "skipped"]

PASSED = frozenset({"success", "pass", "warn"})


@dataclass(frozen=True)
class NodeResult:
    """dbt's result of one node: `status` is dbt's word, `failures` the rows a data test returned."""

    unique_id: str
    status: str
    message: str = ""
    failures: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """`passed` may be published; `failed` broke by itself; `skipped` could not be judged because of another."""

    status: VerdictStatus
    reason: str | None
    tests_passed: int
    tests_failed: int
    seconds: float


def judge(graph: Graph, selected: Sequence[str], results: Mapping[str, NodeResult]) -> dict[str, Verdict]:
    """A verdict for each selected model (unique ids, parents first) from dbt's results by unique id."""
    court = _Court(graph, frozenset(selected), results)
    for unique_id in selected:
        court.verdicts[unique_id] = court.judge(unique_id)
    return court.verdicts


@dataclass
class _Court:
    """One pass over the results; `verdicts` fills up from parents to children."""

    graph: Graph
    selected: frozenset[str]
    results: Mapping[str, NodeResult]
    verdicts: dict[str, Verdict] = field(default_factory=dict[str, Verdict])

    def judge(self, unique_id: str) -> Verdict:
        charged = [t for t in self.graph.tests_of(unique_id) if unique_id in _charged_models(t, self.selected)]
        tests = [(test, self.results[test.unique_id]) for test in charged if test.unique_id in self.results]
        broken = [(test, result) for test, result in tests if result.status not in PASSED | {"skipped"}]
        untested = [test for test, result in tests if result.status == "skipped"]
        result = self.results.get(unique_id)
        status, reason = self._status(unique_id, result, broken, untested)
        seconds = (result.seconds if result else 0.0) + sum(item.seconds for _, item in tests)
        return Verdict(status, reason, len(tests) - len(broken) - len(untested), len(broken), seconds)

    def _status(
        self,
        unique_id: str,
        result: NodeResult | None,
        broken: Sequence[tuple[Test, NodeResult]],
        untested: Sequence[Test],
    ) -> tuple[VerdictStatus, str | None]:
        if result is None:
            return "failed", "dbt gave no result for it; was it disabled, or excluded by the project?"
        if broken:
            # Also when dbt skipped the model: its unit tests run before it.
            return "failed", _describe(broken)
        if result.status == "skipped":
            return "skipped", self._culprits(unique_id)
        if result.status not in PASSED:
            return "failed", one_line(result.message) or f"dbt reported {result.status}"
        if untested:
            return "skipped", f"its test {untested[0].name} could not run because another model failed"
        return "passed", None

    def _culprits(self, unique_id: str) -> str:
        ancestors = self.graph.ancestors(unique_id)
        failed = [key for key, verdict in self.verdicts.items() if verdict.status == "failed"]
        upstream = [key for key in failed if key in ancestors]
        names = ", ".join(self.graph.nodes[key].alias for key in (upstream or failed))
        return f"upstream {names} failed; keeps its last version" if names else "dbt skipped it; keeps its last version"


def _charged_models(test: Test, selected: frozenset[str]) -> frozenset[str]:
    if test.attached_to in selected:
        return frozenset({test.attached_to}) if test.attached_to else frozenset()
    return frozenset(test.parents) & selected


def _describe(broken: Sequence[tuple[Test, NodeResult]]) -> str:
    parts: list[str] = []
    for test, result in broken:
        rows = f"{result.failures} failing row{'s' if result.failures != 1 else ''}; " if result.failures else ""
        parts.append(f"test {test.name} failed: {rows}{one_line(result.message)}".rstrip("; "))
    return " | ".join(parts)


def one_line(text: str, longest: int = 500) -> str:
    """dbt's message on one line, bounded: it goes into a run's state and an artifact."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
