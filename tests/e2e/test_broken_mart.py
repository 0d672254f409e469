"""A mart that breaks its contract or a data test is never seen by a reader, and the run says which and why."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from tests.e2e.deployment import TENANT, Deployed

pytestmark = pytest.mark.e2e

CONTRACT = "mart_case"
TESTED = "mart_stakeholder"
_PAUSE = 0.2


@dataclass
class Reader:
    """Somebody who reads a mart again and again; keeps every different answer, and every error."""

    deployed: Deployed
    mart: str
    reads: int = 0
    answers: list[pa.Table] = field(default_factory=list[pa.Table])
    errors: list[Exception] = field(default_factory=list[Exception])

    def read(self) -> None:
        try:
            answer = _in_order(self.deployed.read_by_duckdb(TENANT, self.mart))
        except Exception as error:  # noqa: BLE001 - whatever a reader meets is a finding
            self.errors.append(error)
            return
        self.reads += 1
        if not self.answers or not answer.equals(self.answers[-1]):
            self.answers.append(answer)


def _in_order(mart: pa.Table) -> pa.Table:
    return mart.sort_by(mart.column_names[0])


@contextmanager
def _reading(deployed: Deployed, *marts: str) -> Generator[dict[str, Reader]]:
    """Read these marts in a loop while the block runs."""
    readers = {mart: Reader(deployed, mart) for mart in marts}
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(_PAUSE):
            for reader in readers.values():
                reader.read()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield readers
    finally:
        stop.set()
        thread.join()


@contextmanager
def _broken(deployed: Deployed, mart: str, query: str) -> Generator[None]:
    """The tenant's model with `query` around its SQL, which `query` calls `mart`."""
    file = deployed.root / "tenants" / TENANT / "models" / "mart" / f"{TENANT}__{mart}.sql"
    text = file.read_text()
    config, end, body = text.partition("}}\n")
    assert "config(" in config
    file.write_text(f"{config}{end}with mart as (\n{body}\n)\n{query}\n")
    try:
        yield
    finally:
        file.write_text(text)


def test_reader_sees_old_rows_until_contract_and_test_hold_again(deployed: Deployed) -> None:
    old = {mart: _in_order(deployed.read_by_pyiceberg(TENANT, mart)) for mart in (CONTRACT, TESTED)}
    deployed.change_source(seed=301)
    with (
        _broken(deployed, CONTRACT, "select * replace (cast(money_in as varchar) as money_in) from mart"),
        _broken(deployed, TESTED, "select * from mart union all select * from (select * from mart limit 1)"),
        _reading(deployed, CONTRACT, TESTED) as readers,
    ):
        run, state = deployed.run()

    assert state.type == "FAILED"
    _says_which_and_why(state.message)
    tasks = deployed.task_states(run)
    assert tasks[f"model {CONTRACT}"].type == tasks[f"model {TESTED}"].type == "FAILED"
    assert "money_in" in tasks[f"model {CONTRACT}"].message
    assert f"unique_{TENANT}__{TESTED}_party_no" in tasks[f"model {TESTED}"].message
    assert tasks["model mart_cashflow_monthly"].name == "Completed"

    for mart, reader in readers.items():
        assert reader.errors == []
        assert reader.reads > 3
        assert len(reader.answers) == 1
        assert reader.answers[0].num_rows == old[mart].num_rows > 0
        assert reader.answers[0].to_pylist() == old[mart].to_pylist()

    deployed.complete()
    for mart in (CONTRACT, TESTED):
        assert _in_order(deployed.read_by_pyiceberg(TENANT, mart)).to_pylist() != old[mart].to_pylist(), mart


def _says_which_and_why(message: str) -> None:
    lines = {line.split()[1]: line for line in message.splitlines() if line.startswith("model ")}
    assert set(lines) == {CONTRACT, TESTED}
    assert "contract" in lines[CONTRACT]
    assert "money_in" in lines[CONTRACT]
    assert f"test unique_{TENANT}__{TESTED}_party_no failed: 1 failing row" in lines[TESTED]
