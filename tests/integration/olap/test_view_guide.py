"""The guide, followed once as written: a seventh view from the text of its files, by the commands it names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from olap_case import Olap

from mozart.cli.main import cli
from mozart.olap.install import install
from mozart.olap.registry import read_views
from mozart.olap.view_file import _ViewFile
from tests.projects import PROJECT

GUIDE = PROJECT / "docs" / "guides" / "new-view.md"


@pytest.fixture
def project(olap: Olap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's views whose commands reach the test's database."""
    shutil.copytree(PROJECT / "views", tmp_path / "views")
    (tmp_path / "tenants").mkdir()
    (tmp_path / "pyproject.toml").touch()
    place = olap.database
    values = {
        "MOZART_ROOT": str(tmp_path),
        "MOZART_OLAP_HOST": place.host,
        "MOZART_OLAP_PORT": str(place.port),
        "MOZART_OLAP_DATABASE": place.database,
        "MOZART_OLAP_USERNAME": place.username,
        "MOZART_OLAP_PASSWORD": place.password.get_secret_value(),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["olap", *arguments])
    assert result.exit_code == code, (arguments, result.output, result.exception)
    return result.output


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def test_guide_as_written(olap: Olap, project: Path) -> None:
    text = GUIDE.read_text()
    folder = project / "views" / "mv_asset_fact"
    folder.mkdir()
    query, change = blocks("sql")
    (folder / "view.sql").write_text(query)
    (folder / "view.yaml").write_text(blocks("yaml")[0])
    commands = [line.split()[1:] for block in blocks("") for line in block.splitlines() if " olap " in line]
    assert [command[1] for command in commands] == ["install", "install", "verify", "explain", "status", "refresh"]
    outputs = [run(*command[1:]) for command in commands[:-1]]
    assert "7 views can be installed" in outputs[0] and "mv_asset_fact: created" in outputs[1]
    assert "exact" in outputs[2] and "MERGE INTO" in outputs[3] and "mv_asset_fact" in outputs[4]
    olap.execute(change)
    assert ", 1 changed" in run(*commands[-1][1:]) and "One group has changed." in text
    shutil.rmtree(folder)
    assert "mv_asset_fact: removed" in run("install")


def test_every_key_of_the_file_is_in_the_guide() -> None:
    keys = {field.alias or name for name, field in _ViewFile.model_fields.items()}
    assert [key for key in keys if f"`{key}`" not in GUIDE.read_text()] == []


def test_commands_answer_scripts(olap: Olap, project: Path) -> None:
    assert {view["name"] for view in json.loads(run("status", "--json"))} == {v.name for v in olap.registry.views}
    health = json.loads(run("health", "--json", code=1))
    assert health["health"] == "stale" and "no full sync" in health["problems"][0]
    assert json.loads(run("refresh", "dim_org", "--json"))["reason"] == "Too recent"
    assert "skipped: Too recent" in run("refresh", "dim_org")
    run("pause", "dim_org", "--reason", "test")
    assert "Paused" in run("refresh", "dim_org", "--force")
    assert json.loads(run("history", "dim_org", "--limit", "1", "--json"))[0]["reason"] == "Paused"
    run("resume", "dim_org")
    assert json.loads(run("explain", "mv_cashflow_fact", "--json"))["changed_keys"] == 0
    olap.execute("UPDATE axiom_vision.mv_cashflow_fact SET amount = amount + 1 WHERE time_id = 202301")
    assert json.loads(run("verify", "mv_cashflow_fact", "--json", code=1))["exact"] is False
    assert "run a full sync to repair it" in run("verify", "mv_cashflow_fact", code=1)


def test_unknown_view_is_named_with_the_known_ones(olap: Olap, project: Path) -> None:
    for command in ("refresh", "explain", "verify", "pause", "resume"):
        result = CliRunner().invoke(cli, ["olap", command, "mv_nope"])
        assert "there is no view 'mv_nope'; known: dim_case_type" in str(result.exception)


def test_reading_the_copy_gives_the_project(project: Path, olap: Olap) -> None:
    assert read_views(project).views == olap.registry.views
    assert set(install(olap.database, read_views(project)).views.values()) == {"unchanged"}
