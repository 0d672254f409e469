"""The server itself: it is the Trino we say it is, on loopback only; it knows its clients and leaks nothing."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from mozart.engine.trino_client import TrinoSession, open_trino
from mozart.engine.trino_query import TrinoEngine, open_trino_session
from mozart.errors import TerminalError, TransientError
from mozart.services import trino_download
from mozart.services.ports import find_free_ports
from mozart.services.trino import Trino
from mozart.services.trino_download import TRINO_VERSION, install_trino

CONFIG = Path(__file__).parents[2] / "docker" / "trino"


def test_the_server_says_its_version(operator: TrinoSession) -> None:
    assert operator.execute("SELECT node_version, coordinator FROM system.runtime.nodes") == [(TRINO_VERSION, True)]
    assert operator.fetch_one("SELECT version()") == (TRINO_VERSION,)


def test_it_listens_on_loopback_only(trino: Trino) -> None:
    record = trino.process()
    assert record
    listening = [c.laddr for c in psutil.Process(record.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} == {port.number for port in trino.ports.values()}
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_no_secret_among_the_arguments_in_the_log_or_in_a_readable_file(trino: Trino) -> None:
    record = trino.process()
    assert record
    lake = trino.lakehouse.secret_access_key.get_secret_value()
    words = (lake, trino.address.password.get_secret_value())
    seen = " ".join(psutil.Process(record.pid).cmdline()) + trino.log.read_text()
    assert not [word for word in words if word in seen]
    files = [path for path in trino.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 4
    assert not [path for path in files if any(word.encode() in path.read_bytes() for word in words)]
    private = [path for path in files if path.parent.name == "access" or path.name == "server.pem"]
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_a_wrong_password_is_refused_at_once(trino: Trino) -> None:
    wrong = trino.address.model_copy(update={"password": SecretStr("wrong-password")})
    with open_trino(wrong) as session, pytest.raises(TerminalError, match="MOZART_TRINO_PASSWORD") as caught:
        session.execute("SELECT 1")
    assert "wrong-password" not in str(caught.value)


def test_nobody_gets_in_without_tls(trino: Trino) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{trino.ports['between nodes'].number}/v1/statement",
        content="SELECT 1",
        headers={"X-Trino-User": "mozart"},
        trust_env=False,
    )
    assert answer.status_code in (401, 403)


def test_a_server_that_is_not_there_is_transient(trino: Trino) -> None:
    nowhere = trino.address.model_copy(update={"port": find_free_ports(1)[0]})
    with open_trino(nowhere, attempts=1) as session, pytest.raises(TransientError, match="does not answer"):
        session.execute("SELECT 1")


def test_a_mistake_in_sql_is_terminal_and_says_trinos_reason(operator: TrinoSession) -> None:
    with pytest.raises(TerminalError, match="COLUMN_NOT_FOUND"):
        operator.execute("SELECT nothing FROM system.runtime.nodes")


def test_the_engine_reads_with_exact_types(trino: Trino) -> None:
    table = TrinoEngine(trino.address).query(
        "SELECT CAST(1.10 AS decimal(18,2)) AS d, TIMESTAMP '2024-02-03 04:05:06.123456 UTC' AS at, "
        "DATE '2024-02-29' AS day, 'x' AS t, CAST(NULL AS bigint) AS n"
    )
    assert [str(field.type) for field in table.schema] == [
        "decimal128(18, 2)",
        "timestamp[us, tz=UTC]",
        "date32[day]",
        "string",
        "int64",
    ]
    (row,) = table.to_pylist()
    assert (str(row["d"]), row["at"].isoformat(), row["n"]) == ("1.10", "2024-02-03T04:05:06.123456+00:00", None)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE SCHEMA iceberg.made",
        "DROP SCHEMA iceberg.{schema}",
        "CREATE TABLE iceberg.{schema}.made AS SELECT 1 AS x",
    ],
)
def test_a_query_session_cannot_write(trino: Trino, namespace: str, sql: str) -> None:
    with open_trino_session(trino.address) as session, pytest.raises(TerminalError, match="PERMISSION_DENIED"):
        list(session.run(sql.format(schema=namespace)).rows)


def test_every_variable_of_the_configuration_has_a_value(trino: Trino) -> None:
    files = [*CONFIG.glob("*.properties"), *(CONFIG / "catalog").glob("*.properties")]
    named = {name for file in files for name in re.findall(r"\$\{ENV:([A-Z0-9_]+)\}", file.read_text())}
    assert len(named) > 15
    assert named <= set(trino.command().environment)


def test_another_file_than_expected_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maven is stood in for: it brings what has the right name and the wrong content."""
    artifact = trino_download.ARTIFACTS[1]
    (tmp_path / "bin").mkdir()
    maven = tmp_path / "bin" / "mvn"
    maven.write_text(f'#!/bin/sh\necho other > "$PWD/trino-server-core-{TRINO_VERSION}.tar.gz"\n')
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}:/usr/bin:/bin")
    target = tmp_path / "cache" / artifact.name
    with pytest.raises(TerminalError, match="SHA-256"):
        install_trino(target)
    assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == [f"{target.name}.lock"]


def test_without_maven_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TerminalError, match=r"needs Maven.*MOZART_TRINO_HOME"):
        install_trino(tmp_path / "trino")
