"""Projects in temporary folders, driven as an operator drives one, and the few calls of the Prefect API tests make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mozart.services.ports import find_free_block, find_free_ports
from mozart.services.seaweedfs import INNER_PORTS
from mozart.services.stack import Stack
from mozart.settings import load_settings

PROJECT = Path(__file__).resolve().parent.parent
PROJECT_FILES = (
    *("flows", "tasks", "blocks", "dbt", "docker/trino", "tenants", "views", "samples"),
    *("pyproject.toml", "prefect.yaml"),
)


def make_project(root: Path, *, copied: Iterable[str] = ()) -> None:
    """A project in `root` with random ports in its `.env`, and the named files and folders of this repository."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    for name in copied:
        source = PROJECT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
            shutil.copytree(source, root / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, root / name)
    (root / "tenants").mkdir(exist_ok=True)
    (root / "pyproject.toml").touch()
    names = ("POSTGRES", "VALKEY", "S3", "CATALOG", "PREFECT", "TRINO", "TRINO_INNER")
    lines = [f"MOZART_{name}_PORT={port}" for name, port in zip(names, find_free_ports(len(names)), strict=True)]
    lines.append(f"MOZART_SEAWEEDFS_PORT_BASE={find_free_block(INNER_PORTS)[0]}")
    (root / ".env").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Api:
    """The few calls of the Prefect API that these tests make."""

    url: str

    def deploy(self, pool: str, entrypoint: str, root: Path) -> str:
        flow = self._post("flows/", {"name": entrypoint.split(":")[1]})
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(root)}}
        body = {
            "name": f"{pool}-{entrypoint.replace('/', '-')}",
            "flow_id": flow["id"],
            "entrypoint": entrypoint,
            "work_pool_name": pool,
            "pull_steps": [step],
        }
        return str(self._post("deployments/", body)["id"])

    def run(self, deployment: str, **parameters: Any) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self._post(f"deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return httpx.get(f"{self.url}/flow_runs/{run}", timeout=10).raise_for_status().json()["state"]

    def wait(self, run: str, *kinds: str, seconds: float = 60) -> dict[str, Any]:
        """The run's state once its type is one of `kinds`."""
        end = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in kinds:
            assert time.monotonic() < end, f"the run is {state['type']} ({state.get('message')}), not {kinds}"
            time.sleep(0.1)
        return state

    def cancel(self, run: str) -> None:
        self._post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def events(self, name: str, run: str) -> list[dict[str, Any]]:
        filters = {"event": {"name": [name]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
        return self._post("events/filter", {"filter": filters})["events"]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"{self.url}/{path}", json=body, timeout=10)
        assert answer.is_success, answer.text
        return answer.json()


@dataclass(frozen=True)
class Project:
    """A project of these tests: its folder, and its `mozart` command."""

    root: Path

    def mozart(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MOZART_", "PREFECT_"))
        }
        command = [sys.executable, "-m", "mozart.cli.main", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def up(self) -> str:
        done = self.mozart("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def revive(self) -> None:
        """What `mozart up` does, without the cost of a new process."""
        self.stack.up()

    @property
    def stack(self) -> Stack:
        return Stack(load_settings(self.root, environ={}))

    @property
    def pids(self) -> dict[str, int]:
        return {service.name: service.pid for service in self.stack.status() if service.pid}

    @property
    def api(self) -> Api:
        return Api(self.stack.prefect.api_url)
