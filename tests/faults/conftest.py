"""How long and from which seed the fault suite runs, its worlds, and its report at the end of the session.

pytest tests/faults                                     the short form: bounded, for every change
pytest tests/faults --faults-seconds 900 --faults-all   the long form
pytest tests/faults --faults-seed 17                    the same choices again
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mozart.engine.duckdb import connect
from mozart.lake.lakehouse import Lakehouse
from tests.faults.proxy import FaultProxy
from tests.faults.tally import Tally
from tests.faults.world import World

_SECONDS = 10.0
_TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-seconds", type=float, default=_SECONDS, help="how long the story of faults goes on")
    parser.addoption("--faults-seed", type=int, default=None, help="the seed of all choices; random by default")
    parser.addoption("--faults-all", action="store_true", help="every fault at every step, not a choice of them")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in Path(item.path).parts:
            item.add_marker(pytest.mark.faults)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = config.stash.get(_TALLY, Tally())
    if not tally.cases:
        return
    terminalreporter.section("fault suite")
    for line in tally.lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[_TALLY]


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    return pytestconfig.getoption("--faults-seconds", default=_SECONDS)


@pytest.fixture
def does_all(pytestconfig: pytest.Config) -> bool:
    """Whether this is the long form."""
    return bool(pytestconfig.getoption("--faults-all", default=False))


@pytest.fixture
def seed(pytestconfig: pytest.Config, request: pytest.FixtureRequest, tally: Tally) -> int:
    """The seed of this test's choices, printed in the report."""
    given = pytestconfig.getoption("--faults-seed", default=None)
    number = secrets.randbelow(1_000_000) if given is None else int(given)
    tally.seeds.append(f"{request.node.name}: {number}")
    print(f"--faults-seed {number}")
    return number


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - chooses faults, guards nothing


@pytest.fixture
def world(
    database: Callable[..., Any], lakehouse: Lakehouse, namespace: str, tmp_path: Path, tally: Tally
) -> Iterator[World]:
    """A world whose source is empty and whose raw table does not exist."""
    tally.cases += 1
    reader = connect(lakehouse=lakehouse)
    with FaultProxy(lakehouse.catalog_uri) as catalog, FaultProxy(lakehouse.s3_endpoint) as store:
        made = World(
            place=database(superuser=True),
            lakehouse=lakehouse,
            catalog_proxy=catalog,
            store_proxy=store,
            namespace=namespace,
            folder=tmp_path,
            reader=reader,
            tally=tally,
        )
        yield made
        made.source.close()
    reader.close()


@pytest.fixture
def loaded(world: World) -> World:
    """A world of 200 rows that were loaded once."""
    world.fill(200)
    world.load_exactly()
    return world
