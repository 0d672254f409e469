"""The view guide to its end: a seventh view gets its deployment, limit and task, and all of it goes with the folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.olap import FULL_SYNC, Olap
from tests.projects import PROJECT

pytestmark = pytest.mark.e2e

VIEW = "mv_asset_fact"
GUIDE = (PROJECT / "docs" / "guides" / "new-view.md").read_text()


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    assert found, f"the guide has no {language}"
    return found[1]


@pytest.fixture
def folder(olap: Olap) -> Iterator[Path]:
    """The guide's files; whatever happens, the project is afterwards as it was."""
    folder = olap.project.root / "views" / VIEW
    folder.mkdir()
    (folder / "view.sql").write_text(_block("sql"))
    (folder / "view.yaml").write_text(_block("yaml"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    for command in (("olap", "install"), ("sync",), ("deploy",)):
        olap.project.must(*command)


def test_a_seventh_view_is_a_folder(olap: Olap, folder: Path) -> None:
    project = olap.project
    assert f"{VIEW}: created" in project.must("olap", "install")
    assert project.mozart("sync", "--check").returncode == 1, "prefect.yaml is not what the views say now"
    project.must("sync")
    deployed = project.must("deploy")
    assert f"deployment mv-incremental/{VIEW}: created" in deployed
    assert f"limit olap-refresh-{VIEW}: created" in deployed
    run = olap.start(FULL_SYNC)
    assert project.wait(run).type == "COMPLETED"
    assert olap.steps(run)["refresh_asset_fact"]["state"]["type"] == "COMPLETED"
    olap.execute("UPDATE assets SET value = value + 1 WHERE asset_id = 1")
    run = olap.start(f"mv-incremental/{VIEW}")
    assert project.wait(run).type == "COMPLETED"
    (row,) = project.rows_of(run, "mv-asset-fact-sync")
    assert (row["status"], row["changed_rows"]) == ("completed", 1)
    shutil.rmtree(folder)
    assert f"{VIEW}: removed" in project.must("olap", "install")
    project.must("sync")
    assert f"deployment mv-incremental/{VIEW}: removed" in project.must("deploy")
