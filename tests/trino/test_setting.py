"""One setting moves a project to Trino: `mozart query` and the models follow it."""

from __future__ import annotations

import json
import os
import secrets

import pytest
from click.testing import CliRunner

from mozart.cli.query import command
from mozart.engine.dbt_run import build_models
from mozart.engine.trino_client import TrinoSession
from mozart.engine.trino_maintenance import TrinoUpkeep
from mozart.engine.upkeep import create_upkeep
from mozart.fleet.engine_health import find_login_problem, find_server_problem
from mozart.fleet.logins import apply_logins
from mozart.lake.maintenance import EmbeddedUpkeep
from mozart.services.ports import find_free_ports
from mozart.services.trino import Trino
from mozart.settings import load_settings
from mozart.tenancy.names import Namespaces, namespaces
from tests.integration.engine.conftest import TinyTenant
from tests.trino.conftest import Login


@pytest.fixture
def on_trino(trino: Trino, tiny: TinyTenant, monkeypatch: pytest.MonkeyPatch) -> TinyTenant:
    """The tiny tenant in a project whose environment says Trino."""
    address = trino.address
    for name, value in {
        "MOZART_ROOT": str(tiny.root),
        "MOZART_ENGINE": "trino",
        "MOZART_TRINO_HOST": address.host,
        "MOZART_TRINO_PORT": str(address.port),
        "MOZART_TRINO_PASSWORD": address.password.get_secret_value(),
        "MOZART_TRINO_CERTIFICATE": str(address.certificate),
    }.items():
        monkeypatch.setenv(name, value)
    return tiny


def test_models_and_queries_follow_the_setting(
    on_trino: TinyTenant, tiny_spaces: Namespaces, login: Login, operator: TrinoSession
) -> None:
    assert login(tiny_spaces)
    results = build_models(on_trino.request(), on_trino.lakehouse)
    assert {result.status for result in results} == {"published"}
    table = f"{on_trino.namespace}.mart_case"
    (user,) = operator.fetch_one(
        f"SELECT element_at(summary, 'trino_user') FROM iceberg.{on_trino.namespace}.\"mart_case$snapshots\" "
        "WHERE element_at(summary, 'trino_user') IS NOT NULL"
    )
    assert user == on_trino.namespace  # the tenant's own login, on Trino

    sql = f"select case_id, cast(total as decimal(9,2)) as total, version() as engine from {table} order by 1"
    done = CliRunner().invoke(command, [sql, "--format", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == [
        {"case_id": 1, "total": "12.00", "engine": "476"},
        {"case_id": 2, "total": "0.00", "engine": "476"},
    ]


def test_the_doctor_asks_the_server_and_every_login(
    on_trino: TinyTenant, tiny_spaces: Namespaces, login: Login
) -> None:
    settings = load_settings(on_trino.root)
    assert login(tiny_spaces)
    assert find_server_problem(settings) is None
    assert find_login_problem(settings, tiny_spaces) is None
    stranger = namespaces("iceberg", "never_deployed")
    assert "run `mozart deploy`" in (find_login_problem(settings, stranger) or "")
    gone = load_settings(on_trino.root, {**os.environ, "MOZART_TRINO_PORT": str(find_free_ports(1)[0])})
    assert "does not answer" in (find_server_problem(gone) or "")
    assert "does not answer" in (find_login_problem(gone, tiny_spaces) or "")


def test_a_deploy_waits_until_the_server_knows_a_new_login(
    on_trino: TinyTenant, trino: Trino, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOZART_TRINO_ACCESS", str(trino.folder / "access"))
    settings = load_settings(on_trino.root)
    newcomer = namespaces("iceberg", f"new_{secrets.token_hex(3)}")
    known = trino.tenants
    (item,) = apply_logins(settings, [newcomer], keep=True)
    assert (item.change, item.note) == ("created", "")
    assert find_login_problem(settings, newcomer) is None
    assert [item.name for item in apply_logins(settings, known)] == [newcomer.core]  # it has left


def test_maintenance_follows_the_setting(on_trino: TinyTenant) -> None:
    assert isinstance(create_upkeep(load_settings(on_trino.root), "iceberg"), TrinoUpkeep)
    embedded = load_settings(on_trino.root, {**os.environ, "MOZART_ENGINE": "duckdb"})
    assert isinstance(create_upkeep(embedded, "iceberg"), EmbeddedUpkeep)


def test_the_query_command_cannot_write(on_trino: TinyTenant) -> None:
    done = CliRunner().invoke(command, [f"drop schema {on_trino.namespace} cascade"])
    assert done.exit_code != 0
    assert "PERMISSION_DENIED" in str(done.exception) + done.output
