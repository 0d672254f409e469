"""A small project with flows to run and a stack of its own, to be killed and stopped at will."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projects import Project, make_project

FLOWS = """
import asyncio, json, os
from pathlib import Path
from prefect import flow

@flow
async def hello(out: str = "", seconds: float = 0):
    if out:
        Path(out).write_text(json.dumps(dict(os.environ)))
    await asyncio.sleep(seconds)

@flow
async def broken():
    raise ValueError("as intended")
"""


@pytest.fixture(scope="package")
def project() -> Iterator[Project]:
    """A running stack of these tests' own, to be killed and stopped at will."""
    with tempfile.TemporaryDirectory(prefix="mozart-own-", ignore_cleanup_errors=True) as name:
        mine = Project(Path(name).resolve())
        make_project(mine.root)
        (mine.root / "probe.py").write_text(FLOWS)
        try:
            mine.up()
            yield mine
        finally:
            mine.mozart("down")


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`eventually(condition, seconds=20)`: wait until it holds."""

    def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true"
            time.sleep(0.1)

    return wait
