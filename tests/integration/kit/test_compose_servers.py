"""The servers of docker-compose.yml with the flags and files that it gives them, started here without containers.

Folders and ports are replaced by this test's own; everything else is what the file says.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from click.testing import CliRunner
from psycopg import sql
from pydantic import SecretStr

from mozart.cli import container
from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import SUPERUSER, Database, Postgres, binary
from mozart.services.process import Command
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.valkey import Valkey
from tests.unit.kit.kit_files import ROOT, config_text, interpolate, services

DATABASES = ("prefect", "axiom", "acme", "harbor")
LOGINS = ("prefect", "acme", "harbor")
VALUES = {
    name: secrets.token_hex(12)
    for name in (
        *("MOZART_POSTGRES_PASSWORD", "MOZART_VALKEY_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"),
        *("PREFECT_DB_PASSWORD", "ACME_DB_PASSWORD", "HARBOR_DB_PASSWORD"),
    )
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of this module alone: init.sql makes logins and databases of names that other tests use as well."""
    folder = tmp_path_factory.mktemp("kit")
    folder.chmod(0o755)
    server = Postgres(Ledger(folder), port=find_free_ports(1)[0], password=secrets.token_urlsafe(12), durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def initialised(postgres: Postgres) -> Iterator[Mapping[str, Database]]:
    """A PostgreSQL after docker/postgres/init.sql; the logins' own databases by name."""
    place = postgres.superuser()
    command = [str(binary("psql")), "-h", place.host, "-p", str(place.port), "-U", SUPERUSER, "-d", place.name]
    environment = {**VALUES, "PGPASSWORD": place.password, "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    script = ROOT / "docker" / "postgres" / "init.sql"
    done = subprocess.run(
        [*command, "-X", "-f", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    try:
        assert done.returncode == 0, done.stderr
        yield {
            name: Database(place.host, place.port, name, name, VALUES[f"{name.upper()}_DB_PASSWORD"]) for name in LOGINS
        }
    finally:
        for name in DATABASES:
            postgres.drop_database(name)
        with postgres.superuser().connect(autocommit=True) as connection:
            for name in LOGINS:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("name", LOGINS)
def test_init_sql_makes_logins_that_own_their_database(initialised: Mapping[str, Database], name: str) -> None:
    with initialised[name].connect() as connection:
        connection.execute("CREATE TABLE probe (id int)")
        connection.rollback()
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


def test_the_prefect_server_finds_its_extension(initialised: Mapping[str, Database]) -> None:
    with initialised["prefect"].connect() as connection:
        assert connection.execute("SELECT similarity('mozart', 'mozart')").fetchone() == (1.0,)


@pytest.mark.parametrize(("login", "place"), [("acme", "harbor"), ("harbor", "acme"), ("acme", "prefect")])
def test_nobody_enters_the_database_of_another(initialised: Mapping[str, Database], login: str, place: str) -> None:
    own = initialised[login]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        Database(own.host, own.port, place, own.user, own.password).connect()


def test_the_samples_are_made_where_the_tenants_read_them(
    initialised: Mapping[str, Database], postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service `samples`, with the addresses of this server in the place of those of the network."""
    place, root = postgres.superuser(), _project(tmp_path)
    for name in ("ACME", "HARBOR"):
        monkeypatch.setenv(f"{name}_DB_HOST", place.host)
        monkeypatch.setenv(f"{name}_DB_PORT", str(place.port))
    monkeypatch.setenv("MOZART_OLAP_HOST", place.host)
    monkeypatch.setenv("MOZART_OLAP_PORT", str(place.port))
    monkeypatch.setenv("MOZART_POSTGRES_PASSWORD", place.password)
    monkeypatch.setenv("ATLAS_DB_FILE", str(tmp_path / "samples" / "atlas.db"))
    monkeypatch.setenv("MOZART_ROOT", str(root))
    for _again in range(2):
        done = CliRunner().invoke(container.cli, ["samples", "--scale", "0.01"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    with initialised["acme"].connect() as connection:
        assert connection.execute("SELECT count(*) FROM cases").fetchone() == (400,)
    with initialised["harbor"].connect() as connection:
        assert connection.execute("SELECT count(*) > 0 FROM desk.matters").fetchone() == (True,)
    with postgres.superuser("axiom").connect() as connection:
        assert connection.execute("SELECT count(*) FROM public.cases").fetchone() == (400,)
    assert (tmp_path / "samples" / "atlas.db").is_file()


class ComposedSeaweedFS(SeaweedFS):
    """SeaweedFS with the command of the service `seaweedfs`."""

    def _identities(self) -> str:
        return config_text("seaweedfs", VALUES)

    def command(self) -> Command:
        usual = super().command()
        own = dict(_flag(word) for word in usual.arguments if word.startswith("-") and "=" in word)
        replaced = {
            "dir": str(self.data),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": own["s3.config"],
            **{name: value for name, value in own.items() if ".port" in name or "ocket" in name},
        }
        given = [interpolate(word, VALUES) for word in services()["seaweedfs"]["command"]]
        flags = {**dict(_flag(word) for word in given if word.startswith("-")), **replaced}
        flags.pop("logtostderr")
        words = ["-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in flags.items())]
        assert given[:2] == words[:2]
        return Command([usual.arguments[0], *words], usual.environment, usual.folder)


def _flag(word: str) -> tuple[str, str]:
    name, _, value = word.lstrip("-").partition("=")
    return name, value


def test_the_store_starts_and_serves_bucket_and_catalog(tmp_path: Path) -> None:
    """Ready means: the landing bucket is listed with the identity of .env, and the catalog gives out a token."""
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    lakehouse = Lakehouse(
        s3_endpoint=f"http://127.0.0.1:{s3}",
        catalog_uri=f"http://127.0.0.1:{catalog}",
        access_key_id=VALUES["S3_ACCESS_KEY_ID"],
        secret_access_key=SecretStr(VALUES["S3_SECRET_ACCESS_KEY"]),
    )
    server = ComposedSeaweedFS(Ledger(tmp_path), lakehouse=lakehouse, inner_ports=inner)
    try:
        server.start()
        client = lakehouse.catalog()
        client.create_namespace("kit")
        assert ("kit",) in client.list_namespaces()
        assert client.properties["s3.endpoint"] == lakehouse.s3_endpoint
        check = services()["seaweedfs"]["healthcheck"]["test"][1].split("&&")[0].strip()
        assert check.startswith("wget -q -O /dev/null http://127.0.0.1:9000/")
        assert httpx.get(f"{lakehouse.s3_endpoint}/{check.rsplit('/', 1)[1]}", trust_env=False).is_success
    finally:
        server.stop()


class ComposedValkey(Valkey):
    """Valkey with the configuration of the service `valkey`."""

    def prepare(self) -> None:
        super().prepare()
        own = config_text("valkey", VALUES).replace("dir /data", f"dir {self.folder}")
        file = self.folder / "valkey.conf"
        file.write_text(f"{own}\nbind 127.0.0.1\nport {self.ports['valkey'].number}\n")


def test_valkey_starts_and_asks_for_its_password(tmp_path: Path) -> None:
    port = find_free_ports(1)[0]
    server = ComposedValkey(Ledger(tmp_path), port=port, password=VALUES["MOZART_VALKEY_PASSWORD"])
    try:
        server.start()
        with server.client() as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.stop()


def _project(folder: Path) -> Path:
    root = folder / "project"
    (root / "tenants").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    return root
