"""What goes wrong around Trino while models are built: the last good marts are served, and the reason is one line.

The catalog misbehaves for Trino alone (`trinos_catalog`); the server that is killed is the session's, started again.
One tenant serves all tests; each loads rows of its own first, so that all its models are due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from mozart.engine.dbt_run import ModelEvent, ModelResult, build_models
from mozart.engine.trino_client import TrinoAddress, TrinoSession
from mozart.engine.trino_models import TrinoModels
from mozart.errors import MozartError, TerminalError, TransientError
from mozart.services.seaweedfs import SeaweedFS
from mozart.services.trino import Trino
from mozart.tenancy.names import Namespaces
from tests.faults.proxy import Fault, FaultProxy, Rule
from tests.integration.engine.conftest import CASES, TinyTenant, make_tiny
from tests.trino.conftest import Login

Titles = list[tuple[object, ...]]


class Project:
    """The tiny tenant and what its mart shows: one row a title, with the number of its cases."""

    def __init__(self, tiny: TinyTenant, address: TrinoAddress) -> None:
        self.tiny = tiny
        self.address = address
        self.numbers = itertools.count(1)

    def load(self) -> Titles:
        """Other rows in raw; what the mart holds once it is built from them."""
        title = f"title {next(self.numbers)}"
        self.tiny.load("cases", CASES, [(1, title, 10), (2, title, 20)])
        return [(title, 2)]

    def build(
        self, retries: int, listener: Callable[[ModelEvent], None] = lambda _event: None, password: str | None = None
    ) -> Mapping[str, ModelResult]:
        address = self.address.model_copy(update={"password": SecretStr(password)}) if password else self.address
        engine = TrinoModels(address, pauses=(0.0,) * retries)
        results = build_models(self.tiny.request(), self.tiny.lakehouse, listener, engine)
        return {result.name: result for result in results}

    def titles(self) -> Titles:
        """As a reader on the other engine sees the mart, whatever is the matter with Trino."""
        return self.tiny.rows("mart_title")

    def titles_on(self, session: TrinoSession) -> Titles:
        return session.execute(f"SELECT title, cases FROM iceberg.{self.tiny.namespace}.mart_title ORDER BY 1")


@pytest.fixture(scope="module")
def project(tiny_root: Path, seaweedfs: SeaweedFS, tiny_spaces: Namespaces, login: Login) -> Project:
    lakehouse = seaweedfs.lakehouse.model_copy(update={"prefix": "raw/trino-faults"})
    tiny = make_tiny(tiny_root, lakehouse, tiny_spaces.core)
    tiny.build()
    return Project(tiny, login(tiny_spaces))


@pytest.fixture
def catalog(trinos_catalog: FaultProxy) -> Iterator[FaultProxy]:
    trinos_catalog.exchanges.clear()
    yield trinos_catalog
    trinos_catalog.clear()


def test_a_catalog_that_keeps_failing_ends_the_run_and_the_marts_stay(project: Project, catalog: FaultProxy) -> None:
    before = project.titles()
    project.load()
    catalog.inject(Rule(Fault.STATUS_BEFORE, path="__candidates/tables", status=502))
    with pytest.raises(TransientError, match="tried 2 times"):
        project.build(retries=1)
    assert project.titles() == before


def test_credentials_of_the_server_that_have_ended_are_not_tried_again(project: Project, catalog: FaultProxy) -> None:
    before = project.titles()
    project.load()
    body = b'{"error":{"message":"token expired","type":"NotAuthorizedException","code":401}}'
    catalog.inject(Rule(Fault.STATUS_BEFORE, method="GET", path="/namespaces/", status=401, body=body))
    with pytest.raises(TerminalError, match=r"token expired.*ICEBERG_CATALOG_CREDENTIAL"):
        project.build(retries=3)
    assert project.titles() == before


def test_a_password_that_is_wrong_is_one_clear_error(project: Project) -> None:
    before = project.titles()
    project.load()
    with pytest.raises(TerminalError, match="refuses the login") as caught:
        project.build(retries=3, password="not-the-password")
    assert "not-the-password" not in str(caught.value)
    assert project.titles() == before


def test_what_fails_for_a_moment_is_tried_again(project: Project, catalog: FaultProxy, operator: TrinoSession) -> None:
    """The catalog fails a candidate once; then it publishes the mart and says 500, so that nobody knows."""
    after = project.load()
    catalog.inject(Rule(Fault.STATUS_BEFORE, path="__candidates/tables", status=500, times=1))
    table = f"/{project.tiny.namespace}/tables/mart_title$"
    catalog.inject(Rule(Fault.STATUS_AFTER, path=table, status=500, times=1))
    results = project.build(retries=2)
    assert [exchange.fault for exchange in catalog.exchanges].count(Fault.STATUS_BEFORE) == 1
    assert len(catalog.served(Fault.STATUS_AFTER)) == 1
    assert results["mart_title"].status == "published", results["mart_title"].reason
    assert project.titles() == project.titles_on(operator) == after
    assert {result.status for result in project.build(retries=0).values()} == {"unchanged"}  # its record is there


def test_a_catalog_that_publishes_and_says_503_cannot_take_the_last_version_away(
    project: Project, catalog: FaultProxy, operator: TrinoSession
) -> None:
    """Trino sends a commit again after a 503, hears that it comes too late, and removes what is in force."""
    before = project.titles()
    after = project.load()
    path = f"/{project.tiny.namespace}/tables/mart_title$"
    catalog.inject(Rule(Fault.STATUS_AFTER, path=path, status=503, times=1))
    results = project.build(retries=0)
    assert len(catalog.served(Fault.STATUS_AFTER)) == 1
    assert results["mart_title"].status == "failed"
    assert project.titles() == project.titles_on(operator) == before

    catalog.inject(Rule(Fault.STATUS_AFTER, path=path, status=503, times=1))
    results = project.build(retries=1)
    assert len(catalog.served(Fault.STATUS_AFTER)) == 2
    assert results["mart_title"].status == "published", results["mart_title"].reason
    assert project.titles() == project.titles_on(operator) == after
    table = project.tiny.lakehouse.catalog().load_table((project.tiny.namespace, "mart_title"))
    assert all(snapshot.manifests(table.io) for snapshot in table.metadata.snapshots), "or no sweep could read it"


def test_an_answer_that_is_cut_off_is_tried_again(
    project: Project, catalog: FaultProxy, operator: TrinoSession
) -> None:
    after = project.load()
    table = f"/{project.tiny.namespace}/tables/mart_title$"
    catalog.inject(Rule(Fault.DROP_AFTER, path=table, times=1))
    results = project.build(retries=2)
    assert len(catalog.served(Fault.DROP_AFTER)) == 1
    assert results["mart_title"].status == "published", results["mart_title"].reason
    assert project.titles() == project.titles_on(operator) == after


def test_a_server_killed_in_mid_query_is_survived(
    project: Project, trino: Trino, operator: TrinoSession, kill: Callable[[int], None]
) -> None:
    """Killed as the first model is computed, and started again before anybody retries."""
    before, after = project.titles(), project.load()
    lost: list[ModelEvent] = []

    def kill_once(event: ModelEvent) -> None:
        if event.kind == "started" and not lost:
            lost.append(event)
            process = trino.process()
            assert process
            kill(process.pid)
            with pytest.raises(MozartError, match="does not answer"):
                operator.execute("SELECT 1")
            assert project.titles() == before
            trino.start()

    results = project.build(retries=2, listener=kill_once)
    assert lost
    assert results["mart_title"].status == "published", results["mart_title"].reason
    assert project.titles() == project.titles_on(operator) == after
