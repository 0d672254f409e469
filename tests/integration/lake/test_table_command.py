"""`mozart table` on a real source and lake; only the blocks, which a deploy makes, are stood in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mozart.cli import table as table_command
from mozart.lake.tenant_run import TenantPlace
from mozart.tenancy.names import Namespaces
from tests.integration.lake.test_load import ORDERS

TENANT = """tenant:
  id: acme
  source: {type: postgresql, host: h, database: d, username: u, password: "${P}"}
tables:
  - {name: orders, source_schema: public, source_table: orders, primary_key: [id], incremental_column: updated_at,
     mode: incremental}
  - {name: gone, source_schema: public, source_table: gone}
"""


@pytest.fixture
def orders(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    root = tmp_path / "project"
    (root / "tenants" / "acme").mkdir(parents=True)
    (root / "tenants" / "acme" / "tenant.yaml").write_text(TENANT)
    monkeypatch.setenv("MOZART_ROOT", str(root))
    spaces = Namespaces(catalog="iceberg", raw=bench.namespace, core=f"{bench.namespace}_core")
    place = TenantPlace(bench.connection, {}, bench.lakehouse, spaces)
    monkeypatch.setattr(table_command, "_place", lambda _settings, _tenant: place)
    bench.source.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text, updated_at timestamptz)")
    bench.source.execute("INSERT INTO orders SELECT g, 'x', now() - interval '1 h' FROM generate_series(1, 50) g")
    return bench


def call(*words: str) -> Result:
    return CliRunner().invoke(table_command.command, [*words], catch_exceptions=False)


def test_a_plan_says_what_would_be_read_and_what_would_fail_and_does_nothing(orders: Any) -> None:
    said = call("plan", "acme")
    assert said.exit_code == 1
    assert (
        "orders: full_refresh (raw has no commit record): would read all rows and replace raw by 50 rows" in said.output
    )
    assert "gone: would fail: " in said.output and "public.gone does not exist" in said.output
    orders.load(ORDERS)
    orders.source.execute("INSERT INTO orders VALUES (51, 'y', now() - interval '1 minute')")
    planned = json.loads(call("plan", "acme", "orders", "--json").output)["orders"]
    assert (planned["mode"], planned["rows"], planned["window"].split(" > ")[0]) == ("incremental", 1, "updated_at")
    assert orders.snapshots("orders") == 1


def test_history_and_replay(orders: Any) -> None:
    orders.load(ORDERS)
    orders.source.execute("INSERT INTO orders VALUES (51, 'y', now() - interval '1 minute')")
    orders.load(ORDERS)
    entries = json.loads(call("history", "acme", "orders", "--json").output)
    assert [entry["rows"] for entry in entries] == [51, 50]
    number = str(entries[-1]["snapshot_id"])
    said = call("replay", "acme", "orders", "--snapshot", number, "--dry-run")
    assert f"50 rows of snapshot {number} in the place of 51" in said.output and orders.snapshots("orders") == 2
    assert call("replay", "acme", "orders", "--snapshot", number, "--yes").exit_code == 0
    assert orders.raw("orders", "count(*)") == [(50,)]
    assert "replay: 50 rows" in call("history", "acme", "orders").output
