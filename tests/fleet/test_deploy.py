"""`mozart deploy` on a living server: nothing twice, nothing of others, branches beside production, tenants that leave.

What the server holds is compared whole, before and after: every deployment with its schedule, block, limit and
automation. A fourth tenant, meadow, is atlas under another name; it comes and goes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mozart.lake.object_store import ObjectStore
from tests.fleet.deployed_fleet import DeployedFleet, edited
from tests.integration.tenants.test_three_sources import MARTS

GUEST, TWIN = "meadow", "atlas"
BRANCH = "trial"
FLOWS = ("tenant-pipeline", "lake-deletes", "lake-maintenance")
BUCKETS = ("landing", "warehouse")


@dataclass(frozen=True)
class Server:
    """What the Prefect server and the lake hold, in a form that can be compared."""

    fleet: DeployedFleet

    @property
    def project(self) -> Any:
        return self.fleet.project

    def inventory(self) -> dict[str, Any]:
        """Everything on the server by kind and name; ids and times of change left out."""
        project = self.project
        deployments = project.post("deployments/filter", {"limit": 200})
        documents = project.post("block_documents/filter", {"limit": 200, "include_secrets": True})
        limits = project.post("v2/concurrency_limits/filter", {"limit": 200})
        automations = project.post("automations/filter", {"limit": 200})
        return {
            **{f"deployment {_flow(d)}/{d['name']}": _stable(d) for d in deployments},
            **{f"block {d['name']}": d["data"] for d in documents if d["name"]},
            **{f"limit {row['name']}": row["limit"] for row in limits if not row["name"].startswith("deployment:")},
            **{f"automation {row['name']}": row["trigger"] for row in automations},
        }

    def traces(self, word: str) -> list[str]:
        """Every name in the server and the lake that has `word` in it: also runs, namespaces and objects."""
        runs = self.project.post("flow_runs/filter", {"limit": 200})
        named = [f"run {run['name']}" for run in runs if word in json.dumps([run["tags"], run["parameters"]])]
        named += [name for name, values in self.inventory().items() if word in name or word in json.dumps(values)]
        named += [".".join(name) for name in self.project.catalog.list_namespaces() if word in ".".join(name)]
        return named + self.objects(word)

    def objects(self, word: str) -> list[str]:
        """The objects of the store whose path has `word` in it."""
        store = ObjectStore(self.project.stack.seaweedfs.lakehouse)
        pages = [
            page
            for bucket in BUCKETS
            for page in store._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        ]
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        assert keys
        return [key for key in keys if word in key and not key.endswith("/")]


def _flow(deployment: dict[str, Any]) -> str:
    return str(deployment["entrypoint"]).partition(":")[2].replace("_", "-")


def _stable(deployment: dict[str, Any]) -> dict[str, Any]:
    keys = ("description", "tags", "parameters", "job_variables", "work_pool_name", "paused", "pull_steps")
    schedules = [{**row["schedule"], "active": row["active"]} for row in deployment["schedules"]]
    return {"schedules": schedules, **{key: deployment[key] for key in keys}}


@pytest.fixture(scope="module")
def server(deployed_fleet: DeployedFleet) -> Server:
    return Server(deployed_fleet)


@contextmanager
def _guest(server: Server) -> Generator[Path]:
    """The fourth tenant's folder, for as long as the block lasts."""
    tenants = server.project.root / "tenants"
    folder = tenants / GUEST
    shutil.copytree(tenants / TWIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        text = re.sub(rf"(?<!samples/){TWIN}", GUEST, file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
        file.rename(file.with_name(file.name.replace(TWIN, GUEST)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rows(table: pa.Table) -> Counter[str]:
    return Counter(repr(row) for row in table.to_pylist())


def planned_then_deployed(server: Server) -> str:
    """What `mozart deploy` said, after `mozart plan` has said the same and changed nothing."""
    before = server.inventory()
    planned = server.project.must("plan")
    assert server.project.mozart("plan", "--check").returncode == 1
    assert server.inventory() == before, "a plan changes nothing"
    done = server.project.must("deploy")
    announced = {line.replace(": to be ", ": ") for line in planned.splitlines() if line.startswith("  ")}
    assert announced == {line for line in done.splitlines() if line.startswith("  ")} != set()
    return done


def test_deploying_again_changes_nothing_and_says_so(server: Server) -> None:
    before = server.inventory()
    assert server.project.must("plan", "--check").strip() == "Nothing to change."
    assert {f"deployment {flow}/{name}" for flow in FLOWS for name in ("acme", "atlas", "harbor")} <= set(before)
    assert server.project.must("deploy").startswith("Nothing to change:")
    assert server.inventory() == before


def test_deploy_brings_back_what_somebody_changed_on_the_server(server: Server) -> None:
    before = server.inventory()
    deployment = server.project.deployment("acme")
    server.project.patch(f"deployments/{deployment['id']}", {"description": "by hand", "tags": ["lakehouse"]})
    assert server.inventory() != before
    output = planned_then_deployed(server)
    assert "deployment tenant-pipeline/acme: updated" in output
    assert "1 updated" in output
    assert server.inventory() == before


def test_prefect_deploys_the_generated_file_to_the_same(server: Server) -> None:
    before = server.inventory()
    server.project.must("sync")
    output = server.project.prefect("--no-prompt", "deploy", "--all")
    assert "acme" in output
    server.project.must("deploy")
    assert server.inventory() == before


def test_tenants_with_mistakes_stay_as_they_are_and_the_others_are_deployed(server: Server) -> None:
    before, tenants = server.inventory(), server.project.root / "tenants"
    with (
        edited(tenants / "harbor" / "tenant.yaml", "type: postgresql", "type: [postgresql"),
        edited(tenants / "atlas" / "tenant.yaml", "${ATLAS_DB_FILE:.mozart/samples/atlas.db}", "${NOT_SET_ANYWHERE}"),
        edited(tenants / "acme" / "tenant.yaml", "29 2 *", "30 4 *"),
    ):
        done = server.project.mozart("deploy")
        after = server.inventory()
    assert done.returncode == 2
    mistakes = done.stderr.strip().splitlines()
    assert len(mistakes) == 2, done.stderr
    assert all(line.startswith("not deployed, left as it was: tenants/") for line in mistakes)
    assert any("harbor/tenant.yaml" in line for line in mistakes)
    assert any("NOT_SET_ANYWHERE" in line for line in mistakes)
    assert [name for name in before if after.get(name) != before[name]] == ["deployment tenant-pipeline/acme"]
    assert set(after) == set(before)
    server.project.must("deploy")
    assert server.inventory() == before


def test_a_tenant_that_leaves_takes_its_own_and_its_data_goes_when_asked(server: Server) -> None:
    project, before = server.project, server.inventory()
    with _guest(server):
        planned_then_deployed(server)
        came = {name for name in server.inventory() if name not in before}
        assert came == {
            *(f"deployment {flow}/{GUEST}" for flow in FLOWS),
            f"block {GUEST}-source",
            f"block {GUEST}-lakehouse",
            f"limit source-{GUEST}",
        }
        project.complete(GUEST)
        marts = {mart: project.read_by_pyiceberg(GUEST, mart).num_rows for mart in MARTS}
        refused = project.mozart("tenant", "drop", GUEST, "--yes")
        assert refused.returncode == 2
        assert "is still there" in refused.stderr
    refused = project.mozart("tenant", "drop", GUEST, "--yes")
    assert refused.returncode == 2
    assert "run `mozart deploy`" in refused.stderr

    output = planned_then_deployed(server)
    assert f"`mozart tenant drop {GUEST}`" in output
    assert server.inventory() == before
    assert {mart: project.read_by_pyiceberg(GUEST, mart).num_rows for mart in MARTS} == marts
    assert server.objects(f"raw/{GUEST}/")

    others = {name: project.snapshots(name, f"{name}_raw") for name in ("harbor",)}
    assert "tables" in project.must("tenant", "drop", GUEST, "--dry-run")
    assert server.objects(f"raw/{GUEST}/")
    assert project.must("tenant", "drop", GUEST, "--yes").rstrip().endswith("is gone.")
    assert not [name for name in project.catalog.list_namespaces() if GUEST in name[0]]
    assert server.objects(GUEST) == []
    assert {name: project.snapshots(name, f"{name}_raw") for name in others} == others
    assert "There is no data" in project.must("tenant", "drop", GUEST, "--yes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("acme",), "is still there"),
        (("gone", "--schema", "harbor"), "'harbor' writes there too"),
        (("gone", "--prefix", "raw"), "writes there too"),
        (("gone", "--prefix", "raw/atlas/cases"), "'atlas' writes there too"),
        (("../acme",), "must match"),
    ],
)
def test_nothing_of_a_tenant_that_is_there_can_be_dropped(
    server: Server, arguments: tuple[str, ...], says: str
) -> None:
    before = server.objects("harbor")
    done = server.project.mozart("tenant", "drop", *arguments, "--yes")
    assert done.returncode == 2
    assert says in done.stderr
    assert server.objects("harbor") == before


def test_a_branch_runs_on_the_real_source_beside_production_and_goes_without_a_trace(server: Server) -> None:
    project, before = server.project, server.inventory()
    server.fleet.change_sources()
    project.complete(TWIN)
    production = project.snapshots(TWIN, f"{TWIN}_raw")
    assert not server.traces(BRANCH)

    project.must("deploy", MOZART_BRANCH=BRANCH)
    branched = server.inventory()
    assert {name: branched[name] for name in before} == before
    own = [name for name in branched if name.startswith("deployment") and name.endswith(f"_{BRANCH}")]
    assert len(own) == len(FLOWS) * 3
    assert not any(schedule["active"] for name in own for schedule in branched[name]["schedules"])
    beside = project.start(TWIN)
    project.complete(f"{TWIN}_{BRANCH}")
    assert project.wait(beside).type == "COMPLETED"
    for mart in MARTS:
        ours, theirs = (_rows(project.read_by_pyiceberg(name, mart)) for name in (f"{TWIN}_{BRANCH}", TWIN))
        assert ours
        assert ours == theirs
    assert project.snapshots(TWIN, f"{TWIN}_raw") == production, "an unchanged source commits nothing"

    assert "there is none" in project.mozart("deploy", "--remove", "--yes").stderr
    project.must("deploy", "--remove", "--yes", MOZART_BRANCH=BRANCH)
    assert server.traces(BRANCH) == []
    assert not list((project.root / ".mozart" / "dbt").glob(f"*/{BRANCH}"))
    assert server.inventory() == before
    assert project.snapshots(TWIN, f"{TWIN}_raw") == production
    again: subprocess.CompletedProcess[str] = project.mozart("deploy", "--remove", "--yes", MOZART_BRANCH=BRANCH)
    assert again.stdout.startswith("There is nothing of branch")
