"""A source that is reached by TLS: what `sslmode` and `sslrootcert` of tenant.yaml accept and refuse, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mozart.connectors.base import SourceConnection, TableRead
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.errors import TerminalError, TransientError
from mozart.services.postgres import Database
from tests.integration.connectors.tls_front import Authority, tls_front

HOST = "localhost"
Connect = Callable[..., SourceConnection]


@pytest.fixture
def place(database: Callable[..., Database]) -> Database:
    made = database()
    with made.connect(autocommit=True) as source:
        source.execute("CREATE TABLE cases (id bigint PRIMARY KEY)")
        source.execute("INSERT INTO cases SELECT generate_series(1, 5000)")
    return made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "right-ca")


@pytest.fixture
def behind_tls(place: Database, authority: Authority) -> Iterator[Connect]:
    """`behind_tls(sslmode=…)` → the source at a server whose certificate is for `localhost`."""
    with tls_front(place.host, place.port, authority.context(HOST)) as front:
        yield lambda **options: at(place, front.port, options)


def at(place: Database, port: int, options: Mapping[str, Any], host: str = HOST) -> SourceConnection:
    return SourceConnection(
        type="postgresql",
        host=host,
        port=port,
        database=place.name,
        username=place.user,
        password=place.password,  # pyright: ignore[reportArgumentType] - pydantic wraps it
        options={name: str(value) for name, value in options.items()},
    )


def read(source: SourceConnection, extensions: Path) -> int:
    """The rows of `cases`, by both roads: psycopg for the snapshot and the catalog, DuckDB for the rows."""
    connector = create_connector(source)
    connector.check()
    with (
        connect(extensions=connector.extensions, extension_folder=extensions) as engine,
        connector.open() as reader,
    ):
        reader.attach(engine)
        table = reader.describe("public", "cases")
        cursor = engine.cursor()
        reader.begin(cursor)
        relation = reader.relation(cursor, TableRead(table, table.columns, {}, None))
        return cursor.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_right_authority_is_accepted(
    behind_tls: Connect, authority: Authority, extensions: Path, mode: str
) -> None:
    assert read(behind_tls(sslmode=mode, sslrootcert=authority.file), extensions) == 5000


def test_require_alone_asks_for_no_authority(behind_tls: Connect, extensions: Path) -> None:
    assert read(behind_tls(sslmode="require"), extensions) == 5000


def test_a_client_without_tls_is_not_served(behind_tls: Connect) -> None:
    """Shows that the reads above were encrypted: the same server serves nobody else."""
    with pytest.raises(TransientError, match="cannot be reached"):
        create_connector(behind_tls(sslmode="disable")).check()


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_another_authority_is_refused(behind_tls: Connect, tmp_path: Path, mode: str) -> None:
    wrong = Authority(tmp_path, "wrong-ca")
    refused(behind_tls(sslmode=mode, sslrootcert=wrong.file), "certificate verify failed")


def test_another_name_is_refused(place: Database, authority: Authority) -> None:
    """verify-ca takes any server of the authority; verify-full the one that was asked for."""
    with tls_front(place.host, place.port, authority.context("db.example")) as front:
        options = {"sslrootcert": authority.file}
        create_connector(at(place, front.port, {**options, "sslmode": "verify-ca"})).check()
        refused(at(place, front.port, {**options, "sslmode": "verify-full"}), 'does not match host name "localhost"')


def test_a_plain_server_is_refused(place: Database, authority: Authority) -> None:
    for options in ({"sslmode": "require"}, {"sslmode": "verify-full", "sslrootcert": authority.file}):
        refused(at(place, place.port, options, host=place.host), "does not support SSL")


def test_an_authority_that_is_no_file_is_named(behind_tls: Connect, tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    refused(behind_tls(sslmode="verify-full", sslrootcert=missing), f'"{missing}" does not exist')


def refused(source: SourceConnection, reason: str) -> None:
    """A final error of one line: which source, and why; not its password."""
    with pytest.raises(TerminalError) as caught:
        create_connector(source).open()
    text = str(caught.value)
    assert text.startswith(source.address) and reason in text and "\n" not in text
    assert source.password is not None and source.password.get_secret_value() not in text


def test_duckdb_itself_refuses_another_authority(behind_tls: Connect, tmp_path: Path, extensions: Path) -> None:
    """The rows come by another client than the snapshot: its options must be the same."""
    wrong = Authority(tmp_path, "wrong-ca")
    connector = create_connector(behind_tls(sslmode="require"))
    with connect(extensions=connector.extensions, extension_folder=extensions) as engine, connector.open() as reader:
        connector.connection = behind_tls(sslmode="verify-full", sslrootcert=wrong.file)
        with pytest.raises(TransientError, match="cannot be attached"):
            reader.attach(engine)
