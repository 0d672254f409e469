"""While a table is read in parts, the run shows how far it is and how fast, before it ends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.deployment import RUN_SECONDS, TENANT, Deployed, wait_until

pytestmark = pytest.mark.e2e

TABLE = "cash_flow_entries"
LINE = f"{TENANT}.{TABLE}: "


@contextmanager
def _parts_of(deployed: Deployed, rows: int) -> Generator[None]:
    """The tenant's tables are read in parts of so many rows; afterwards its file is as it was, and deployed."""
    file = deployed.root / "tenants" / TENANT / "tenant.yaml"
    kept = file.read_text()
    at = "    type: postgresql\n"
    assert kept.count(at) == 1
    file.write_text(kept.replace(at, f"{at}    options: {{chunk_rows: {rows}}}\n"))
    try:
        deployed.must("deploy")
        yield
    finally:
        file.write_text(kept)
        deployed.must("deploy")


def _progress(deployed: Deployed, run: str) -> dict[str, Any]:
    """The table's progress artifact of this run; empty before there is one."""
    key = f"{TENANT}-{TABLE.replace('_', '-')}-rows"
    body = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}, "type": {"any_": ["progress"]}}}
    found = deployed.post("artifacts/filter", body)
    return found[0] if found else {}


def _lines(deployed: Deployed, run: str) -> list[str]:
    body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    return [row["message"] for row in deployed.post("logs/filter", body)]


def test_a_big_table_shows_how_far_it_is_while_the_run_goes_on(deployed: Deployed) -> None:
    with _parts_of(deployed, 1000):
        with deployed.hold("stakeholders"):
            run = deployed.start(full_refresh=True, tables=[TABLE, "stakeholders"])
            wait_until(lambda: _progress(deployed, run).get("data") == 100.0, RUN_SECONDS, f"all of {TABLE} is landed")
            assert deployed.state(run).type == "RUNNING", "the other table is held: the figure came before the end"
            shown = _progress(deployed, run)
        deployed.wait(run, "COMPLETED")
        parts = int(shown["description"].split("part ")[1].split(" ")[0])
        assert parts >= 5 and shown["description"].endswith("rows/s")
        assert shown["task_run_id"], "the figure stands at the table's own task"
        told = [line for line in _lines(deployed, run) if line.startswith(LINE) and "rows/s" in line]
        assert [f"part {number} of {parts} " in line for number, line in enumerate(told, 1)] == [True] * parts
