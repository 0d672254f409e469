"""A project deployed on the whole stack, driven the way an operator drives it: its commands, its runs, its source.

`Deployed` starts processes and talks HTTP; what it reads of the lake goes through two readers of their own (pyiceberg
and DuckDB). A run that is held back (`hold`) waits at a lock of the source, so that no test depends on being quick.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pyarrow as pa
from psycopg import sql

from mozart.engine.duckdb import connect
from mozart.lake.head import TableHead, read_head
from mozart.services.stack import Stack
from mozart.settings import Settings, load_settings

TENANT = "acme"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
RUN_SECONDS = 180.0
_POLL = 0.2
_OF_THE_OPERATOR = ("MOZART_", "PREFECT_", "ACME_", "S3_", "ICEBERG_")


@dataclass(frozen=True)
class RunState:
    """Where a flow or task run is: `type` is Prefect's, `name` what the UI shows."""

    type: str
    name: str
    message: str


@dataclass(frozen=True)
class Deployed:
    """The deployed project. `source` is the sample's database, `api` the address of its Prefect API."""

    stack: Stack

    @property
    def root(self) -> Path:
        return self.stack.settings.root

    @property
    def settings(self) -> Settings:
        """What the operator's commands see now; `.env` may have changed since the stack was loaded."""
        return load_settings(self.root, environ={})

    @property
    def api(self) -> str:
        return self.stack.prefect.api_url

    # -- commands -----------------------------------------------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        """The operator's environment: this process's without any setting of ours, and `more`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_OPERATOR)}
        return {**kept, **more}

    def mozart(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._command([sys.executable, "-m", "mozart.cli.main", *arguments], environment)

    def must(self, *arguments: str, **environment: str) -> str:
        """The output of a `mozart` command that has to go through."""
        done = self.mozart(*arguments, **environment)
        assert done.returncode == 0, f"mozart {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def prefect(self, *arguments: str) -> str:
        """The output of Prefect's own command line against this stack."""
        program = Path(sys.executable).with_name("prefect")
        done = self._command([str(program), *arguments], {"PREFECT_API_URL": self.api})
        assert done.returncode == 0, f"prefect {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _command(self, command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    # -- the Prefect API ----------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.api}/{path}", timeout=20).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=20)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json() if answer.content else None

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        answer = httpx.patch(f"{self.api}/{path}", json=body, timeout=20)
        assert answer.is_success, f"{path}: {answer.text}"

    def deployment(self, name: str = TENANT) -> dict[str, Any]:
        return self.get(f"deployments/name/tenant-pipeline/{name}")

    def start(self, deployment: str = TENANT, **parameters: Any) -> str:
        """Ask for a run of the tenant's deployment, as `prefect deployment run` does; its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.post(f"deployments/{self.deployment(deployment)['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> RunState:
        return _state(self.get(f"flow_runs/{run}")["state"])

    def wait(self, run: str, *types: str, seconds: float = RUN_SECONDS) -> RunState:
        """The run's state once its type is one of `types`; final ones unless given."""
        wanted = types or FINAL
        wait_until(lambda: self.state(run).type in (*wanted, *FINAL), seconds, f"run {run} {' or '.join(wanted)}")
        state = self.state(run)
        assert state.type in wanted, f"the run is {state.name} ({state.message}), not {wanted}"
        return state

    def run(self, deployment: str = TENANT, **parameters: Any) -> tuple[str, RunState]:
        """Run the tenant to whatever end; the run's id and final state."""
        run = self.start(deployment, **parameters)
        return run, self.wait(run)

    def complete(self, deployment: str = TENANT, **parameters: Any) -> str:
        """Run the tenant to its good end; the run's id."""
        run, state = self.run(deployment, **parameters)
        assert state.type == "COMPLETED", f"{state.name}: {state.message}"
        return run

    def tasks(self, run: str) -> dict[str, RunState]:
        """The state of each task run that the server has written so far, by the name people see."""
        body = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        return {row["name"]: _state(row["state"]) for row in self.post("task_runs/filter", body)}

    def task_states(self, run: str) -> dict[str, RunState]:
        """The final state of each task of an ended run. The server writes them up to seconds after the run's own."""
        states: dict[str, RunState] = {}

        def are_written() -> bool:
            states.clear()
            states.update(self.tasks(run))
            return f"summarise {TENANT}" in states and all(state.type in FINAL for state in states.values())

        wait_until(are_written, 60, f"the states of all tasks of run {run} are written")
        return states

    def rows_of(self, run: str, key: str) -> list[dict[str, Any]]:
        """The rows of a table artifact that the run left."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}}
        found = self.post("artifacts/filter", body)
        return json.loads(found[0]["data"]) if found else []

    def taken_slots(self, deployment: str = TENANT) -> int:
        """How many runs the server believes in flight for this deployment."""
        limit = self.deployment(deployment)["global_concurrency_limit"]
        return int(self.get(f"v2/concurrency_limits/{limit['id']}")["active_slots"])

    # -- the source ---------------------------------------------------------------------------------------------

    def connect_source(self, *, autocommit: bool = False) -> psycopg.Connection:
        """The sample's database, as its owner's applications see it (superuser)."""
        return self.stack.postgres.superuser(TENANT).connect(autocommit=autocommit)

    def change_source(self, *, seed: int, inserts: int = 12, updates: int = 24) -> dict[str, int]:
        """Let business go on at the source."""
        from samples import axiom_core

        with self.connect_source() as connection:
            return axiom_core.apply_changes(connection, seed=seed, inserts=inserts, updates=updates)

    @contextmanager
    def hold(self, table: str = "cases") -> Generator[None]:
        """Runs stop at this source table, running, until the block is left."""
        with self.connect_source() as connection:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
            yield
            connection.rollback()

    # -- the lake -----------------------------------------------------------------------------------------------

    @cached_property
    def catalog(self) -> Any:
        return self.stack.seaweedfs.lakehouse.catalog()

    def head(self, schema: str, table: str) -> TableHead:
        return read_head(self.catalog, (schema, table))

    def tables(self, *schemas: str) -> list[tuple[str, str]]:
        """Every table of the tenant's namespaces, or of the given ones."""
        names = schemas or (f"{TENANT}_raw", TENANT)
        return sorted((schema, str(found[1])) for schema in names for found in self.catalog.list_tables(schema))

    def snapshots(self, *schemas: str) -> dict[tuple[str, str], int | None]:
        """The current snapshot of every table."""
        return {name: self.head(*name).snapshot_id for name in self.tables(*schemas)}

    def read_by_pyiceberg(self, schema: str, table: str) -> pa.Table:
        return self.catalog.load_table((schema, table)).scan().to_arrow()

    def read_by_duckdb(self, schema: str, table: str) -> pa.Table:
        with connect(lakehouse=self.stack.seaweedfs.lakehouse) as connection:
            return connection.execute(f'FROM lake."{schema}"."{table}"').to_arrow_table()

    # -- processes ----------------------------------------------------------------------------------------------

    def worker(self) -> psutil.Process:
        """The living process worker."""
        record = self.stack.worker.process()
        assert record is not None, "the worker is not running"
        return psutil.Process(record.pid)

    def family(self) -> list[psutil.Process]:
        """The worker and everything below it: runs, and the dbt of runs."""
        try:
            worker = self.worker()
            return [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _state(row: Mapping[str, Any]) -> RunState:
    return RunState(row["type"], row["name"], row.get("message") or "")


def wait_until(met: Callable[[], bool], seconds: float, what: str) -> float:
    """Poll until `met`; the seconds it took. Fails saying `what` did not come."""
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(_POLL)
    return time.monotonic() - began


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL to all, at once, and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)
