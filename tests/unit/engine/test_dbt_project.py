"""The files around a dbt run: what makes a parse stale, what concerns every model, and what the child may see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mozart.engine.dbt_process import child_environment
from mozart.engine.dbt_project import DbtFolder, locked, write_profile
from mozart.engine.dbt_run import ModelRequest
from mozart.errors import ConfigurationError, TerminalError, TransientError


@pytest.fixture
def folder(tmp_path: Path) -> DbtFolder:
    files = {
        "dbt/dbt_project.yml": "name: mozart",
        "dbt/macros/a.sql": "macro",
        "tenants/acme/models/stg.sql": "select 1",
        "tenants/globex/models/stg.sql": "select 2",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    base = tmp_path / ".mozart/dbt/acme/default"
    return DbtFolder(tmp_path, "acme", "acme", "dev", base, tmp_path / ".mozart/dbt")


def with_edit(folder: DbtFolder, name: str) -> DbtFolder:
    (folder.root / name).write_text("changed")
    return replace(folder)  # digests are taken once for each folder object


@pytest.mark.parametrize(
    ("name", "is_stale", "concerns_all"),
    [
        ("dbt/dbt_project.yml", True, True),
        ("dbt/macros/a.sql", True, True),
        ("dbt/PRODUCT_SCHEMA.md", True, False),
        ("tenants/acme/models/stg.sql", True, False),
        ("tenants/acme/models/new.yml", True, False),
        ("tenants/globex/models/stg.sql", False, False),
        ("tenants/acme/tenant.yaml", False, False),
    ],
)
def test_what_an_edit_makes_stale(folder: DbtFolder, name: str, is_stale: bool, concerns_all: bool) -> None:
    parse, shared = folder.digest, folder.shared_digest
    edited = with_edit(folder, name)
    assert (edited.digest != parse) == is_stale
    assert (edited.shared_digest != shared) == concerns_all


def test_a_manifest_is_fresh_only_for_the_files_it_was_made_of(folder: DbtFolder) -> None:
    folder.prepare()
    assert folder.fresh_manifest() is None
    (folder.target_path / "manifest.json").write_text('{"nodes": {}}')
    assert folder.fresh_manifest() is None
    folder.remember_manifest(folder.digest)
    assert folder.fresh_manifest() == {"nodes": {}}
    assert with_edit(folder, "dbt/macros/a.sql").fresh_manifest() is None
    (folder.target_path / "manifest.json").write_text('{"nodes": {')
    assert folder.fresh_manifest() is None
    folder.forget_manifest()
    assert folder.fresh_manifest() is None


def test_another_environment_has_another_parse_state(folder: DbtFolder) -> None:
    assert replace(folder, namespace="acme_feature").digest != folder.digest
    assert replace(folder, target="prod").target_path != folder.target_path


def test_the_profile_is_constant_and_names_nothing_secret(tmp_path: Path) -> None:
    write_profile(tmp_path)
    file = tmp_path / "profiles.yml"
    first = file.stat()
    write_profile(tmp_path)
    assert file.stat().st_mtime_ns == first.st_mtime_ns
    profile = yaml.safe_load(file.read_text())["mozart"]
    assert set(profile["outputs"]) == {"dev", "branch", "prod"}
    assert profile["outputs"]["prod"] == {
        "type": "duckdb",
        "path": "candidates.duckdb",
        "schema": "main",
        "threads": 2,
        "plugins": [{"module": "mozart.engine.dbt_plugin"}],
    }


def test_a_run_removes_what_killed_runs_left(folder: DbtFolder) -> None:
    left = folder.new_run("killed") / "candidates.duckdb"
    left.write_text("x")
    folder.prepare()
    assert not left.exists()
    assert (folder.new_run("next") / "spill").is_dir()


def test_one_run_of_a_tenant_at_a_time(folder: DbtFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mozart.engine.dbt_project._LOCK_SECONDS", 0.0)
    with locked(folder), pytest.raises(TransientError, match="another dbt run of tenant acme"), locked(folder):
        pass
    with locked(folder):
        pass


def test_a_missing_project_or_models_folder_is_named(folder: DbtFolder) -> None:
    with pytest.raises(ConfigurationError, match="tenants/initech/models"):
        replace(folder, tenant="initech").prepare()
    (folder.project / "dbt_project.yml").unlink()
    with pytest.raises(ConfigurationError, match="no dbt project in"):
        folder.prepare()


def test_the_child_sees_an_allow_list() -> None:
    parent = {"PATH": "/bin", "S3_SECRET_ACCESS_KEY": "s", "ACME_DB_PASSWORD": "p", "PYTHONDONTWRITEBYTECODE": "1"}
    seen = child_environment(parent, {"MOZART_TENANT": "acme"})
    assert seen["PATH"] == "/bin"
    assert seen["MOZART_TENANT"] == "acme"
    assert not {"S3_SECRET_ACCESS_KEY", "ACME_DB_PASSWORD", "PYTHONDONTWRITEBYTECODE"} & set(seen)


@pytest.mark.parametrize("changes", [{"run_id": "../x"}, {"tenant": ""}, {"environment": "a/b"}, {"target": "test"}])
def test_names_that_would_leave_their_folder_are_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    given = {"tenant": "acme", "run_id": "r", "namespace": "acme", "raw_namespace": "acme_raw", **changes}
    with pytest.raises(TerminalError):
        ModelRequest(root=tmp_path, state=tmp_path, product=None, **given)
