"""`mozart sync` and `mozart tenant`: exit codes, what is written and, above all, what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mozart.cli import sync, tenant

GOOD = """\
tenant:
  id: {id}
  source: {{type: postgresql, host: h, database: d, username: u, password: "${{PW}}"}}
  schedule: "0 3 * * *"
tables: [{{name: cases, source_schema: public, source_table: cases}}]
"""


def write_tenant(root: Path, tenant_id: str, text: str | None = None) -> None:
    folder = root / "tenants" / tenant_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tenant.yaml").write_text(text if text is not None else GOOD.format(id=tenant_id))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tenant(tmp_path, "acme")
    write_tenant(tmp_path, "beta")
    return tmp_path


def run_sync(root: Path, *arguments: str) -> Result:
    # No variable of this machine may matter: sync resolves nothing.
    return CliRunner(env={"PW": None}).invoke(sync.command, ["--root", str(root), *arguments])


def test_sync_writes_once_and_then_leaves_the_file_alone(project: Path) -> None:
    result = run_sync(project)
    assert (result.exit_code, result.output) == (0, "prefect.yaml: written\n")
    file = project / "prefect.yaml"
    assert {entry["name"] for entry in yaml.safe_load(file.read_text())["deployments"]} == {"acme", "beta"}
    before = (file.stat().st_mtime_ns, file.stat().st_ino)
    result = run_sync(project)
    assert (result.exit_code, result.output) == (0, "prefect.yaml: up to date\n")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    assert sorted(entry.name for entry in project.iterdir()) == ["prefect.yaml", "tenants"]


def test_check_writes_nothing_and_shows_the_difference(project: Path) -> None:
    result = run_sync(project, "--check")
    assert result.exit_code == 1
    assert not (project / "prefect.yaml").exists()
    run_sync(project)
    assert run_sync(project, "--check").exit_code == 0
    file = project / "prefect.yaml"
    edited = file.read_text().replace("0 3 * * *", "0 4 * * *", 1)
    file.write_text(edited)
    result = run_sync(project, "--check")
    assert result.exit_code == 1
    assert '-      - cron: "0 4 * * *"\n+      - cron: "0 3 * * *"\n' in result.stdout
    assert file.read_text() == edited


@pytest.mark.parametrize("damage", [b"\r\n", b"\xff", b"x"])
def test_any_other_byte_is_drift(project: Path, damage: bytes) -> None:
    run_sync(project)
    file = project / "prefect.yaml"
    file.write_bytes(file.read_bytes() + damage)
    assert run_sync(project, "--check").exit_code != 0
    assert file.read_bytes().endswith(damage)


def test_other_line_ends_are_drift(project: Path) -> None:
    run_sync(project)
    file = project / "prefect.yaml"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert run_sync(project, "--check").exit_code == 1
    assert run_sync(project).exit_code == 0
    assert b"\r" not in file.read_bytes()


def test_a_deployment_goes_with_its_tenant(project: Path) -> None:
    run_sync(project)
    (project / "tenants" / "beta" / "tenant.yaml").unlink()
    (project / "tenants" / "beta").rmdir()
    assert run_sync(project, "--check").exit_code == 1
    assert run_sync(project).exit_code == 0
    left = yaml.safe_load((project / "prefect.yaml").read_text())["deployments"]
    assert {entry["name"] for entry in left} == {"acme"}


@pytest.mark.parametrize("arguments", [(), ("--check",), ("--json",)])
def test_a_broken_tenant_writes_nothing(project: Path, arguments: tuple[str, ...]) -> None:
    run_sync(project)
    before = (project / "prefect.yaml").read_bytes()
    write_tenant(project, "gamma")
    write_tenant(project, "beta", "tenant: {id: beta, sourc: 1}\n")
    result = run_sync(project, *arguments)
    assert result.exit_code == 2
    assert (project / "prefect.yaml").read_bytes() == before
    assert "tenants/beta/tenant.yaml:1" in result.output
    assert "did you mean 'source'?" in result.output


def test_json_reports_the_same(project: Path) -> None:
    report = json.loads(run_sync(project, "--check", "--json").stdout)
    assert report["tenants"] == ["acme", "beta"]
    assert [(entry["path"], entry["status"]) for entry in report["files"]] == [("prefect.yaml", "drift")]
    assert json.loads(run_sync(project, "--json").stdout)["files"][0]["status"] == "written"
    entry = json.loads(run_sync(project, "--json").stdout)["files"][0]
    assert (entry["status"], entry["diff"]) == ("unchanged", "")
    write_tenant(project, "beta", "")
    (problem,) = json.loads(run_sync(project, "--json").stdout)["problems"]
    assert problem == {"file": "tenants/beta/tenant.yaml", "key": "", "message": "is empty"}


def test_the_environment_does_not_shape_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(project)
    monkeypatch.setenv("MOZART_ENV", "branch")
    monkeypatch.setenv("MOZART_BRANCH", "dev")
    assert run_sync(project, "--check").exit_code == 0


def test_a_failed_write_leaves_the_old_file_and_no_rest(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    (project / "prefect.yaml").write_text("old\n")
    monkeypatch.setattr(Path, "replace", refuse)
    result = run_sync(project)
    assert result.exit_code == 2
    assert "prefect.yaml: cannot be written: Permission denied" in result.output.replace(": :", ":")
    assert (project / "prefect.yaml").read_text() == "old\n"
    assert sorted(entry.name for entry in project.iterdir()) == ["prefect.yaml", "tenants"]


def run_tenant(root: Path, *arguments: str) -> Result:
    return CliRunner(env={"PW": "hunter2"}).invoke(tenant.command, [*arguments, "--root", str(root)])


def test_tenants_are_listed_and_the_broken_named(project: Path) -> None:
    result = run_tenant(project, "list")
    assert (result.exit_code, result.stdout) == (
        0,
        "acme: postgresql, 1 table, 0 3 * * * UTC\nbeta: postgresql, 1 table, 0 3 * * * UTC\n",
    )
    write_tenant(project, "beta", "x: 1\n")
    result = run_tenant(project, "list", "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert ([entry["id"] for entry in report["tenants"]], report["broken"]) == (["acme"], ["beta"])


def test_a_tenant_is_shown_without_its_secrets(project: Path) -> None:
    for arguments in (("show", "acme"), ("show", "acme", "--json")):
        result = run_tenant(project, *arguments)
        assert result.exit_code == 0
        assert "${PW}" in result.output
        assert "hunter2" not in result.output
    assert run_tenant(project, "show", "nobody").exit_code == 2
