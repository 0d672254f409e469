"""What the containers run beside the commands of people: pools, Trino's first files, and whether somebody is well."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from pydantic import SecretStr

from mozart.cli import container
from mozart.engine.trino_client import TrinoAddress
from mozart.services.pools import INLINE_POOL, PROCESS_POOL
from mozart.services.stack import Stack
from mozart.services.trino_logins import TrinoLogins
from mozart.tenancy.names import namespaces

Run = Callable[..., Result]


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in the stack's project."""
    monkeypatch.setenv("MOZART_ROOT", str(stack.settings.root))
    monkeypatch.setenv("MOZART_TRINO_PASSWORD", "operator-pw")
    return lambda *words: CliRunner().invoke(container.cli, words, catch_exceptions=False)


def test_pools_are_made_again_without_harm(run: Run, stack: Stack) -> None:
    api = stack.prefect.api_url
    before = [httpx.get(f"{api}/work_pools/{name}", trust_env=False).json() for name in (PROCESS_POOL, INLINE_POOL)]
    assert run("pools").exit_code == 0
    after = [httpx.get(f"{api}/work_pools/{name}", trust_env=False).json() for name in (PROCESS_POOL, INLINE_POOL)]
    assert [pool["base_job_template"] for pool in after] == [pool["base_job_template"] for pool in before]


def test_a_server_that_answers_is_well(run: Run, stack: Stack) -> None:
    assert run("health", "--server", stack.prefect.api_url).exit_code == 0
    ill = run("health", "--server", f"http://127.0.0.1:{stack.seaweedfs.ports['s3.port'].number}/nowhere")
    assert ill.exit_code == 1
    assert "answers" in ill.output


def test_a_worker_that_was_heard_of_is_well(run: Run, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("health", "--pool", PROCESS_POOL, "--worker", stack.worker.name).exit_code == 0
    unknown = run("health", "--pool", PROCESS_POOL, "--worker", "worker-elsewhere")
    assert (unknown.exit_code, "knows no worker worker-elsewhere" in unknown.output) == (1, True)
    monkeypatch.setattr(container, "_SILENT", container._SILENT * 0)
    silent = run("health", "--pool", PROCESS_POOL, "--worker", stack.worker.name)
    assert (silent.exit_code, "was last heard of" in silent.output) == (1, True)


def test_trino_gets_a_certificate_for_its_name_and_its_first_logins(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "access"
    assert run("trino-access", str(folder), "--host", "trino").exit_code == 0
    certificate = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "trino"]
    assert {line.split(":")[0] for line in (folder / "password.db").read_text().splitlines()} == {
        "mozart",
        "mozart_reader",
    }
    assert json.loads((folder / "rules.json").read_text())["catalogs"]
    for name in ("server.pem", "password.db", "rules.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_trino_access_again_keeps_tenants_and_certificate(run: Run, tmp_path: Path) -> None:
    assert run("trino-access", str(tmp_path), "--host", "trino").exit_code == 0
    pem = (tmp_path / "server.pem").read_bytes()
    operator = TrinoAddress(host="trino", port=8080, username="mozart", password=SecretStr("operator-pw"))
    TrinoLogins(tmp_path, operator).put("", [namespaces("iceberg", "acme")])
    assert run("trino-access", str(tmp_path), "--host", "trino").exit_code == 0
    assert (tmp_path / "server.pem").read_bytes() == pem
    assert "\nacme:" in (tmp_path / "password.db").read_text()
