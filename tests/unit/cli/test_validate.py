"""`mozart validate` as far as it goes without dbt: exit codes, the report, and who is blamed for what.

The build on empty tables has tests of its own in tests/integration/validate.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mozart.cli import sync, validate
from mozart.fleet.definitions import entrypoint_problems, next_runs
from mozart.fleet.plan import DeploymentSpec, ScheduleSpec
from mozart.tenancy.product_schema import PRODUCT_FILE

ROOT = Path(__file__).parents[3]

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
    """Two tenants without models, so that nothing is built, and everything generated."""
    write_tenant(tmp_path, "acme")
    write_tenant(tmp_path, "beta")
    (tmp_path / "dbt").mkdir()
    shutil.copy(ROOT / PRODUCT_FILE, tmp_path / PRODUCT_FILE)
    shutil.copytree(ROOT / "flows", tmp_path / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    assert CliRunner().invoke(sync.command, ["--root", str(tmp_path)]).exit_code == 0
    return tmp_path


def run(root: Path, *arguments: str) -> Result:
    # No variable of this machine may matter: validate resolves nothing.
    result = CliRunner(env={"PW": "hunter2"}).invoke(validate.command, ["--root", str(root), *arguments])
    assert "Traceback" not in result.output and "hunter2" not in result.output
    return result


def test_a_tenant_without_models_is_one_line(project: Path) -> None:
    result = run(project)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "tenants/acme/models: holds no models",
        "tenants/beta/models: holds no models",
        "acme: 1 problem, 0 models; its models could not be built, so there may be more",
        "beta: 1 problem, 0 models; its models could not be built, so there may be more",
    ]


def test_a_broken_tenant_hides_nobody_and_a_named_one_stands_alone(project: Path) -> None:
    write_tenant(project, "beta", "tenant: {id: beta, sourc: 1}\n")
    report = json.loads(run(project, "--json").stdout)
    acme, beta = report["tenants"]
    assert (acme["id"], [p["message"] for p in acme["problems"]]) == ("acme", ["holds no models"])
    assert {(p["file"], p["line"]) for p in beta["problems"]} == {("tenants/beta/tenant.yaml", 1)}
    assert any("did you mean 'source'?" in p["message"] for p in beta["problems"])
    assert report["problems"] == []
    alone = json.loads(run(project, "acme", "--json").stdout)
    assert [tenant["id"] for tenant in alone["tenants"]] == ["acme"]
    assert alone["problems"] == [] and len(alone["tenants"][0]["problems"]) == 1


def test_generated_files_are_compared(project: Path) -> None:
    file = project / "prefect.yaml"
    file.write_text(file.read_text().replace('name: "beta"', 'name: "gone"'))
    (project / "dbt" / "PRODUCT_SCHEMA.md").write_text("edited\n")
    output = run(project).output
    assert "prefect.yaml: is not what `mozart sync` would write; run it\n" in output
    assert "dbt/PRODUCT_SCHEMA.md: is not what `mozart sync` would write; run it\n" in output
    assert "prefect.yaml" not in run(project, "acme").output
    told = "prefect.yaml: deployment tenant-pipeline/{} is not what `mozart sync` would write"
    assert told.format("beta") in run(project, "beta").output
    file.write_text("deployments: [{name: [1], entrypoint: {}}]")
    assert told.format("acme") in run(project, "acme").output
    file.write_text("deployments: [")
    assert told.format("acme") in run(project, "acme").output


def test_a_broken_product_schema_is_the_projects_mistake(project: Path) -> None:
    (project / PRODUCT_FILE).write_text("version: 1\nmarts: []\n")
    report = json.loads(run(project, "--json").stdout)
    assert report["problems"] == [
        {
            "file": PRODUCT_FILE,
            "line": 2,
            "key": "marts",
            "message": "is an empty list; name at least one or remove the key",
        }
    ]


def test_next_runs_are_told_and_an_unknown_tenant_is_a_usage_error(project: Path) -> None:
    report = json.loads(run(project, "--json").stdout)
    assert len(report["tenants"][0]["next_runs"]) == 3
    result = run(project, "nobody")
    assert "there is no tenant 'nobody'; known: acme, beta" in str(result.exception)


def test_schedules_are_the_servers_own() -> None:
    berlin = ScheduleSpec("0 12 * * *", "Europe/Berlin", active=True)
    after = datetime(2024, 3, 29, 12, tzinfo=UTC)
    runs = [f"{run:%m-%d %H:%M}" for run in next_runs(berlin, 3, after)]
    assert runs == ["03-30 11:00", "03-31 10:00", "04-01 10:00"]  # summer time begins on the 31st


def spec(entrypoint: str, **parameters: str) -> DeploymentSpec:
    return DeploymentSpec("acme", "tenant-pipeline", entrypoint, parameters, None, (), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "flows/x.py: does not exist; deployments start run in it"),
        ("import nothing_of_this_name\n", "flows/x.py: run: cannot be imported: "),
        ("def run(): ...\n", "flows/x.py: run: cannot be imported: "),
        ("from prefect import flow\n@flow\nasync def run(tenant: str): ...\n", "is flow 'run'; deployments name it"),
        (
            "from prefect import flow\n@flow(name='tenant-pipeline')\nasync def run(): ...\n",
            "takes no parameter tenant",
        ),
        ("raise SystemExit(3)\n", "flows/x.py: run: cannot be imported: "),
    ],
)
def test_entrypoints_are_imported(tmp_path: Path, text: str | None, expected: str) -> None:
    (tmp_path / "flows").mkdir()
    if text is not None:
        (tmp_path / "flows" / "x.py").write_text(text)
    problems = entrypoint_problems(tmp_path, [spec("flows/x.py:run", tenant="acme")])
    assert len(problems) == 1
    assert expected in str(problems[0])


def test_the_projects_own_entrypoint_is_right() -> None:
    assert entrypoint_problems(ROOT, [spec("flows/tenant_pipeline.py:tenant_pipeline", tenant="acme")]) == []
