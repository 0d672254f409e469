"""No secret is left anywhere but where it belongs, also by runs that fail at a login or at the store."""

from __future__ import annotations

import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet
import pytest

from mozart.services.ports import find_free_ports
from mozart.services.secrets import STACK_SECRETS
from tests.e2e.deployment import TENANT, Deployed, wait_until
from tests.e2e.secret_search import PRIVATE_FILES, SecretSearch, open_store

pytestmark = pytest.mark.e2e

BRANCH = "storeless"
# The name of an identity is no secret; the rest is.
SECRETS = ("ACME_DB_PASSWORD", *(name for name in STACK_SECRETS if name != "S3_ACCESS_KEY_ID"))


@pytest.fixture
def search(deployed: Deployed, wrong_password: str) -> SecretSearch:
    """A search for every secret of the project, the Prefect server's own and the refused one among them."""
    passwords = {name: deployed.settings.get(name) for name in SECRETS}
    server = (deployed.root / ".mozart/prefect/pgpass").read_text().strip().rsplit(":", 1)[1]
    more = {"password of the server's database": server, "the refused password": wrong_password}
    return SecretSearch({**passwords, **more})


@pytest.fixture
def wrong_password(deployed: Deployed) -> Iterator[str]:
    """The source's block holds this password, which the source refuses; the true one is put back."""
    password = f"wrong-{secrets.token_urlsafe(24)}"
    deployed.must("deploy", ACME_DB_PASSWORD=password)
    yield password
    deployed.must("deploy")


@pytest.fixture
def storeless(deployed: Deployed) -> str:
    """A branch's deployment whose block says that the store is where nobody listens."""
    deployed.must("deploy", MOZART_BRANCH=BRANCH, S3_ENDPOINT=f"http://127.0.0.1:{find_free_ports(1)[0]}")
    return f"{TENANT}_{BRANCH}"


def test_no_secret_is_left_anywhere_even_by_runs_that_fail(
    deployed: Deployed, search: SecretSearch, storeless: str
) -> None:
    deployed.change_source(seed=401)
    with search.processes() as commands:
        unstored = deployed.start(storeless, tables=["cases"])
        _, refused = deployed.run()
        assert refused.type == "FAILED"
        assert "refuses the login" in refused.message
        deployed.must("deploy")
        deployed.complete()
        state = deployed.wait(unstored)
        assert state.type == "FAILED"
        assert f"{TENANT}.cases" in state.message
    for process in ("prefect.engine", "mozart.engine.dbt_child", "process_worker", "uvicorn"):
        assert any(process in command for command in commands), f"{process} was not looked at"

    assert search.files(deployed) > 100
    assert {"log", "flow_run_state", "task_run_state", "artifact", "events"} <= search.database(deployed)
    assert search.objects(deployed) > 100
    assert search.found == set()


def test_files_that_hold_secrets_by_design_are_private(deployed: Deployed) -> None:
    for name in PRIVATE_FILES:
        assert stat.S_IMODE((deployed.root / name).stat().st_mode) == 0o600, name
    assert (deployed.root / ".env").read_text().count(deployed.settings.get("ACME_DB_PASSWORD")) == 1


def test_search_finds_what_is_planted_in_every_place(deployed: Deployed) -> None:
    places = (
        *("log file", "log", "state message", "artifact", "event"),
        *("object's key", "object", "compressed object", "arguments", "environment"),
    )
    planted = {place: f"planted-{secrets.token_urlsafe(24)}" for place in places}
    search = SecretSearch(planted)
    file = deployed.root / ".mozart" / "logs" / "planted.log"
    file.write_text(f"password={planted['log file']}\n")
    objects = _plant_objects(deployed, planted)
    try:
        _plant_in_server(deployed, planted)
        with search.processes() as seen, _planted_process(planted) as process:
            wait_until(lambda: any(planted["arguments"] in command for command in seen), 10, "the process is seen")
            process.kill()
        search.files(deployed)
        search.objects(deployed)
        wait_until(lambda: "event" in _names(search, deployed), 20, "the event is written")
    finally:
        file.unlink()
        store = open_store(deployed.stack.seaweedfs.lakehouse)
        for path in objects:
            store.delete_file(path)
    assert _names(search, deployed) == set(places)


def _names(search: SecretSearch, deployed: Deployed) -> set[str]:
    search.database(deployed)
    return {finding.split(" in ")[0] for finding in search.found}


def _planted_process(planted: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", planted["arguments"]],
        env={"PASSWORD": planted["environment"]},
    )


def _plant_objects(deployed: Deployed, planted: dict[str, str]) -> list[str]:
    lake = deployed.stack.seaweedfs.lakehouse
    store = open_store(lake)
    folder = f"{lake.bucket}/planted"
    paths = [f"{folder}/{name}" for name in (planted["object's key"], "plain", "rows.parquet")]
    for path, content in zip(paths[:2], (b"-", planted["object"].encode()), strict=True):
        with store.open_output_stream(path) as stream:
            stream.write(content)
    rows = pa.table({"text": [planted["compressed object"]] * 50})
    pyarrow.parquet.write_table(rows, paths[2], filesystem=store, compression="zstd", use_dictionary=False)
    return paths


def _plant_in_server(deployed: Deployed, planted: dict[str, str]) -> None:
    now = "2026-01-01T00:00:00Z"
    log = {"name": "planted", "level": 20, "message": planted["log"], "timestamp": now}
    deployed.post("artifacts/", {"type": "markdown", "data": planted["artifact"]})
    event = {"occurred": now, "event": "planted", "id": str(uuid4()), "resource": {"prefect.resource.id": "planted"}}
    flow = deployed.post("flows/", {"name": "planted"})
    state = {"type": "COMPLETED", "message": planted["state message"]}
    run = deployed.post("flow_runs/", {"flow_id": flow["id"], "state": state})
    deployed.post("logs/", [{**log, "flow_run_id": run["id"]}])
    deployed.post("events", [{**event, "payload": {"note": planted["event"]}}])
