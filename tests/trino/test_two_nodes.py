"""A worker beside the coordinator: the files of `docker/trino` and the roles of docker-compose.yml make one cluster."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from mozart.engine.trino_client import TrinoSession, open_trino
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.process import Command
from mozart.services.trino import Trino
from tests.unit.kit.kit_files import services

ROLE = ("TRINO_COORDINATOR", "TRINO_COORDINATOR_WORKS")
GONE_WITHIN = 120.0


class TrinoWorker(Trino):
    """A node that joins `coordinator`; ready when the coordinator says so."""

    name: ClassVar[str] = "trino-worker"
    needs: ClassVar[tuple[str, ...]] = ()

    def join(self, coordinator: Trino) -> None:
        self._coordinator = coordinator

    def command(self) -> Command:
        usual = super().command()
        process = self._coordinator.process()
        assert process
        known = psutil.Process(process.pid).environ()
        joined = {name: known[name] for name in ("TRINO_DISCOVERY_URI", "TRINO_SHARED_SECRET")}
        role = {name: services()["trino-worker"]["environment"][name] for name in ROLE}
        arguments = ["-Dnode.id=mozart-worker" if word.startswith("-Dnode.id=") else word for word in usual.arguments]
        return replace(usual, arguments=arguments, environment={**usual.environment, **joined, **role})

    def problem(self) -> str | None:
        with open_trino(self._coordinator.address) as session:
            count = active_nodes(session)
        return None if count == 2 else f"{count} nodes are active"


def active_nodes(session: TrinoSession) -> int:
    return len(session.execute("SELECT node_id FROM system.runtime.nodes WHERE state = 'active'"))


@pytest.fixture
def worker(trino: Trino, tmp_path: Path) -> Iterator[TrinoWorker]:
    port, inner_port = find_free_ports(2)
    node = TrinoWorker(
        Ledger(tmp_path),
        lakehouse=trino.lakehouse,
        home=trino._home,
        config=trino._config,
        port=port,
        inner_port=inner_port,
        password=secrets.token_urlsafe(24),
    )
    node.join(trino)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        _wait_until_alone(trino)


def _wait_until_alone(trino: Trino) -> None:
    """Until the coordinator has noticed: it would give the next query's work to a node that is gone."""
    end = time.monotonic() + GONE_WITHIN
    with open_trino(trino.address) as session:
        while active_nodes(session) != 1:
            assert time.monotonic() < end, "the coordinator still counts on the worker"
            time.sleep(0.5)


def test_a_worker_takes_part_in_queries(worker: TrinoWorker, operator: TrinoSession) -> None:
    """A worker with the wrong role, secret or files would never be active."""
    roles = dict(operator.execute("SELECT node_id, coordinator FROM system.runtime.nodes"))
    assert roles == {"mozart-local": True, "mozart-worker": False}
    counted = operator.stream(
        "SELECT n % 10, count(*) FROM TABLE(sequence(start => 1, stop => 1000000)) AS s (n) GROUP BY 1"
    )
    assert sorted(counted.rows) == [(number, 100_000) for number in range(10)]
    where = operator.execute(f"SELECT DISTINCT node_id FROM system.runtime.tasks WHERE query_id = '{counted.query_id}'")
    assert ("mozart-worker",) in where
