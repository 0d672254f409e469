"""The local stack with Trino, as an operator has it: `mozart up`, a deploy, a tenant's run through the worker, `down`.

One story, for each part needs the one before. Stack and Trino are its own, on ports and in a folder of its own. The
tenant is the smallest sample, and of its models only one mart with what that reads: a cold Trino takes some seconds for
each, and the others are built on Trino by `test_parity`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mozart.engine.trino_client import open_trino
from mozart.services.ports import is_free
from mozart.services.process import marked
from mozart.services.stack import Stack
from mozart.settings import load_settings
from samples import atlas
from tests.e2e.deployment import Deployed
from tests.projects import PROJECT_FILES, make_project

TENANT = "atlas"
SCALE = 0.02
"""80 cases."""
MART = "mart_stakeholder"
MODELS = {MART, "stg_participants", "stg_roles"}
PARTS = {"postgres", "valkey", "seaweedfs", "trino", "prefect", "worker", "inline"}


@pytest.fixture
def project() -> Iterator[Deployed]:
    """A project of this tenant alone whose `.env` says Trino. Nothing is started; whatever is, is stopped."""
    with tempfile.TemporaryDirectory(prefix="mozart-trino-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        make_project(root, copied=[name for name in PROJECT_FILES if name != "views"])
        for folder in (root / "tenants").iterdir():
            if folder.is_dir() and folder.name != TENANT:
                shutil.rmtree(folder)
        for file in (root / "tenants" / TENANT / "models").glob("*/*"):
            if file.stem.removeprefix(f"{TENANT}__") not in MODELS:
                file.unlink()
        _never_by_itself(root / "tenants" / TENANT / "tenant.yaml")
        with (root / ".env").open("a") as file:
            file.write("MOZART_ENGINE=trino\n")
        source = root / ".mozart" / "samples" / "atlas.db"
        source.parent.mkdir(parents=True)
        atlas.create(source, scale=SCALE)
        mine = Deployed(Stack(load_settings(root, environ={})))
        try:
            yield mine
        finally:
            mine.mozart("down")


def _never_by_itself(tenant_file: Path) -> None:
    """A scheduled run would take the tenant's only slot from ours: leave it to the next 29th of February."""
    text = tenant_file.read_text()
    assert text.count('schedule: "0 5 * * *"') == 1
    tenant_file.write_text(text.replace('schedule: "0 5 * * *"', 'schedule: "0 0 29 2 *"'))


def test_from_one_command_to_marts_on_trino_and_back_to_nothing(project: Deployed) -> None:
    assert re.search("trino +ready", project.must("up"))
    states = {part["name"]: part["state"] for part in json.loads(project.must("ps", "--json"))}
    assert states == dict.fromkeys(PARTS, "running")
    project.must("sync")
    project.must("deploy")

    run = project.complete(TENANT)
    models = {row["model"]: row for row in project.rows_of(run, f"{TENANT}-models")}
    assert {name: row["status"] for name, row in models.items()} == dict.fromkeys(MODELS, "published")

    sql = f"select version() as engine, count(*) as persons from iceberg.{TENANT}.{MART}"
    (answer,) = json.loads(project.must("query", sql, "--format", "json"))
    assert answer == {"engine": "476", "persons": models[MART]["rows"]}
    assert _builders(project) == {TENANT}
    project.must("doctor")

    assert "left behind" not in project.must("down")
    settings = project.settings
    assert list(marked(settings.state)) == []
    stack = Stack(settings)
    assert {status.state for status in stack.status()} == {"stopped"}
    assert [port for part in stack.services for port in part.ports.values() if not is_free(port.number)] == []


def _builders(project: Deployed) -> set[str]:
    """Who made the mart's rows on Trino: nobody, had DuckDB made them."""
    trino = Stack(project.settings).trino
    assert trino
    with open_trino(trino.address) as session:
        rows = session.execute(
            f"SELECT element_at(summary, 'trino_user') FROM iceberg.{TENANT}.\"{MART}$snapshots\" "
            "WHERE element_at(summary, 'trino_user') IS NOT NULL"
        )
    return {str(user) for (user,) in rows}
