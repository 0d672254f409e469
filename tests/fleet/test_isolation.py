"""One tenant in trouble, the others as ever: through the deployed stack, by the commands and runs an operator uses.

harbor is in trouble three times: its models are broken, its tenant.yaml is invalid, its source is down. Each time the
sources of all three have changed and all three run at once. The other two must complete, with marts that say what
their sources say now; what harbor's trouble concerns must stay exactly as it was, and be right once it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from tests.fleet.deployed_fleet import OTHERS, VICTIM, DeployedFleet, edited, source_down
from tests.integration.tenants.test_three_sources import MARTS


@contextmanager
def _broken_models(fleet: DeployedFleet) -> Generator[None]:
    model = fleet.project.root / "tenants" / VICTIM / "models" / "staging" / "harbor__stg_ledger.sql"
    with edited(model, "from source", "from nowhere at all"):
        yield


@contextmanager
def _invalid_yaml(fleet: DeployedFleet) -> Generator[None]:
    with edited(fleet.project.root / "tenants" / VICTIM / "tenant.yaml", "type: postgresql", "type: [postgresql"):
        yield


@dataclass(frozen=True)
class Trouble:
    """How to make it, what the victim's run must name (empty: it is still trying), which marts must not change."""

    make: Callable[[DeployedFleet], AbstractContextManager[None]]
    names: str
    stale: tuple[str, ...] = MARTS


TROUBLES: Mapping[str, Trouble] = {
    "models broken": Trouble(_broken_models, "stg_ledger", ("mart_case", "mart_cashflow_monthly")),
    "tenant.yaml invalid": Trouble(_invalid_yaml, "tenants/harbor/tenant.yaml"),
    "source down": Trouble(source_down, ""),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_the_others_results_are_those_without_the_trouble(deployed_fleet: DeployedFleet, what: str) -> None:
    project, trouble = deployed_fleet.project, TROUBLES[what]
    deployed_fleet.change_sources()
    before = deployed_fleet.heads()
    with trouble.make(deployed_fleet):
        runs = deployed_fleet.start_all()
        if trouble.names:
            assert trouble.names in project.wait(runs[VICTIM], "FAILED").message
        for name in OTHERS:
            project.wait(runs[name], "COMPLETED")
        assert project.state(runs[VICTIM]).type != "COMPLETED"
        after = deployed_fleet.heads()
        assert [mart for mart in MARTS if after[mart] == before[mart]] == list(trouble.stale)
    for name in OTHERS:
        deployed_fleet.compare_with_source(name)
    # A source that is down is tried again for most of a minute: the run may end either way.
    if project.wait(runs[VICTIM]).type != "COMPLETED" and what == list(TROUBLES)[-1]:
        project.complete(VICTIM)


def test_afterwards_the_tenant_that_was_in_trouble_is_right_again(deployed_fleet: DeployedFleet) -> None:
    deployed_fleet.compare_with_source(VICTIM)
