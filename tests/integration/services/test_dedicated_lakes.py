"""Two lakes of one tenant each in one SeaweedFS: the identity of one reaches nothing of the other, nor what is shared.

Each attempt is made with the first one's credentials: on the second one's places, and on the shared ones.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO, load_file_io

from blocks import TenantLakehouse
from mozart.cli.query import command
from mozart.cli.tenant_drop import drop_tenant
from mozart.errors import ConfigurationError, MozartError
from mozart.fleet.prune import left_behind
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.object_store import ObjectStore
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.settings import load_settings
from mozart.tenancy.load import load_tenant
from mozart.tenancy.resolve import resolve

Drop = Callable[..., str]
SCHEMA = pa.schema([("id", pa.int64())])
TABLE = ("acme", "cases")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    shared, *dedicated = (
        Lakehouse(
            s3_endpoint=f"http://127.0.0.1:{s3}",
            catalog_uri=f"http://127.0.0.1:{catalog}",
            access_key_id=secrets.token_hex(8),
            secret_access_key=SecretStr(secrets.token_urlsafe(16)),
            bucket=f"landing{name}",
            warehouse=f"warehouse{name}",
        )
        for name in ("", "-acme", "-acme-two")  # names that begin alike
    )
    folder = tmp_path_factory.mktemp("dedicated")
    running = SeaweedFS(Ledger(folder), lakehouse=shared, inner_ports=inner, dedicated=dedicated)
    try:
        running.start()
        for lake in (shared, *dedicated):
            fill(lake)
        yield running
    finally:
        running.stop()


def fill(lake: Lakehouse) -> None:
    """One table with a row, and one landing file."""
    catalog = lake.catalog()
    catalog.create_namespace(TABLE[0])
    catalog.create_table(TABLE, SCHEMA).append(pa.table({"id": [1]}, schema=SCHEMA))
    write(load_file_io(lake.catalog_properties()), f"{lake.landing_uri}/file")


def write(io: FileIO, path: str) -> None:
    with io.new_output(path).create(overwrite=True) as file:
        file.write(b"mine")


@pytest.fixture(params=["another tenant", "the shared lake"])
def other(server: SeaweedFS, request: pytest.FixtureRequest) -> Lakehouse:
    return server.dedicated[1] if request.param == "another tenant" else server.lakehouse


@pytest.fixture
def intruder(server: SeaweedFS, other: Lakehouse) -> Lakehouse:
    """The other's places with the first one's credentials."""
    own = server.dedicated[0]
    return own.model_copy(update={"bucket": other.bucket, "warehouse": other.warehouse})


def _attempts(catalog: Catalog) -> dict[str, object]:
    return {
        "list namespaces": catalog.list_namespaces,
        "list tables": lambda: catalog.list_tables(TABLE[0]),
        "load": lambda: catalog.load_table(TABLE),
        "create namespace": lambda: catalog.create_namespace("mine"),
        "create table": lambda: catalog.create_table((TABLE[0], "mine"), SCHEMA),
        "drop table": lambda: catalog.drop_table(TABLE),
        "purge table": lambda: catalog.purge_table(TABLE),
        "drop namespace": lambda: catalog.drop_namespace(TABLE[0]),
    }


def test_the_catalog_refuses_everything(intruder: Lakehouse, other: Lakehouse) -> None:
    catalog = intruder.catalog()
    granted: list[str] = []
    for name, attempt in _attempts(catalog).items():
        try:
            attempt()  # type: ignore[operator]
            granted.append(name)
        except Exception:  # noqa: BLE001, S112 - each kind of refusal will do; what was granted is the assertion
            continue
    assert granted == []
    assert other.catalog().load_table(TABLE).scan().to_arrow().num_rows == 1
    assert other.catalog().list_namespaces() == [(TABLE[0],)]


def test_the_store_refuses_everything(intruder: Lakehouse, other: Lakehouse) -> None:
    io = load_file_io(intruder.catalog_properties())
    table = other.catalog().load_table(TABLE)
    data_file = next(iter(table.scan().plan_files())).file.file_path
    for path in (table.metadata_location, data_file, f"{other.landing_uri}/file"):
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            io.new_input(path).open().read()
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            write(io, path)
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            io.delete(path)
    for folder in (other.landing_uri, table.location()):
        with pytest.raises(MozartError):
            list(ObjectStore(intruder).list_files(folder))
    assert table.scan().to_arrow().num_rows == 1


def test_no_table_is_laid_over_the_files_of_another(server: SeaweedFS, other: Lakehouse) -> None:
    own = server.dedicated[0].catalog()
    victim = other.catalog().load_table(TABLE)
    with pytest.raises(Exception, match="must be within bucket"):
        own.create_table((TABLE[0], "over"), SCHEMA, location=victim.location())
    with pytest.raises(Exception, match="must be within bucket"):
        own.register_table((TABLE[0], "taken"), victim.metadata_location)


def test_its_own_lake_is_open_to_it(server: SeaweedFS) -> None:
    own = server.dedicated[0]
    table = own.catalog().load_table(TABLE)
    table.append(pa.table({"id": [2]}, schema=SCHEMA))
    assert table.scan().to_arrow().num_rows == 2
    files = [file.path for file in ObjectStore(own).list_files(own.landing_uri)]
    assert files
    assert not ObjectStore(own).delete(files)


def test_the_identities_stand_in_a_private_file(server: SeaweedFS) -> None:
    assert {path.stat().st_mode & 0o077 for path in Path(server.folder).glob("s3.json")} == {0}


TENANT_YAML = """
tenant:
  id: acme
  source: {type: sqlite, database: /nowhere.db}
  storage: {bucket: landing-acme, prefix: raw, access_key_id: "${ACME_KEY}", secret_access_key: "${ACME_SECRET}"}
  iceberg: {catalog: acme_lake, schema: acme, warehouse: warehouse-acme}
tables:
  - {name: cases, source_table: cases}
"""


@pytest.fixture
def project(server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one tenant, whose lake is its own."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "tenants" / "acme").mkdir(parents=True)
    (tmp_path / "tenants" / "acme" / "tenant.yaml").write_text(TENANT_YAML)
    own, shared = server.dedicated[0], server.lakehouse
    for name, value in {
        "MOZART_ROOT": str(tmp_path),
        "S3_ENDPOINT": shared.s3_endpoint,
        "ICEBERG_CATALOG_URI": shared.catalog_uri,
        "S3_ACCESS_KEY_ID": shared.access_key_id,
        "S3_SECRET_ACCESS_KEY": shared.secret_access_key.get_secret_value(),
        "ACME_KEY": own.access_key_id,
        "ACME_SECRET": own.secret_access_key.get_secret_value(),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_a_query_for_a_tenant_reads_its_own_lake(server: SeaweedFS) -> None:
    for lake, number in ((server.dedicated[0], 42), (server.lakehouse, 1)):
        lake.catalog().create_table(("acme", "told"), SCHEMA).append(pa.table({"id": [number]}, schema=SCHEMA))

    def run(*arguments: str) -> str:
        return CliRunner().invoke(command, [*arguments, "--format", "csv"], catch_exceptions=False).stdout

    assert run("select id from acme_lake.acme.told", "--tenant", "acme").split() == ['"id"', "42"]
    assert run("select id from iceberg.acme.told").split() == ['"id"', "1"]
    with pytest.raises(ConfigurationError, match="nobody"):
        run("select 1", "--tenant", "nobody")


@pytest.fixture
def drop(server: SeaweedFS, project: Path, prefect_api_url: str, monkeypatch: pytest.MonkeyPatch) -> Drop:
    """`mozart tenant drop` with these arguments; what it prints."""
    for name, value in {
        "PREFECT_API_URL": prefect_api_url,
        "S3_BUCKET": server.lakehouse.bucket,
        "ICEBERG_WAREHOUSE": server.lakehouse.warehouse,
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(drop_tenant, arguments, catch_exceptions=False).output

    return run


def _left(server: SeaweedFS, project: Path) -> list[str]:
    """The tenant leaves; the arguments of the command that `mozart deploy` then names, with the variables filled in."""
    tenant = resolve(load_tenant(project / "tenants" / "acme"), load_settings().values)
    note = left_behind(TenantLakehouse.of(server.lakehouse, tenant, None).model_dump(), server.lakehouse)
    shutil.rmtree(project / "tenants" / "acme")
    line = note.partition("`mozart tenant drop ")[2].rstrip("`")
    return shlex.split(line.replace("VARIABLE", "ACME_KEY", 1).replace("VARIABLE", "ACME_SECRET", 1))


def test_a_lake_of_its_own_is_emptied_when_asked(server: SeaweedFS, project: Path, drop: Drop) -> None:
    own, others = server.dedicated[0], (server.dedicated[1], server.lakehouse)
    write(load_file_io(own.catalog_properties()), f"{own.landing_uri}/file")
    arguments = _left(server, project)
    assert "a lake of its own is named by --catalog" in drop("nobody", "--yes")
    assert own.catalog().table_exists(TABLE)
    assert "tables, " in drop(*arguments, "--dry-run")
    assert own.catalog().table_exists(TABLE)

    said = drop(*arguments, "--yes")
    assert "Not Mozart's to remove: bucket landing-acme, warehouse warehouse-acme" in said
    assert not own.catalog().namespace_exists(TABLE[0])
    assert not list(ObjectStore(own).list_files(own.landing_uri))
    for lake in others:
        assert lake.catalog().load_table(TABLE).scan().to_arrow().num_rows == 1
        assert list(ObjectStore(lake).list_files(lake.landing_uri))
    assert "There is no data of acme" in drop(*arguments, "--yes")
    fill(own)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--warehouse": None}, "needs also --warehouse"),
        ({"--catalog": None, "--warehouse": None}, "needs also --catalog, --warehouse"),
        ({"--catalog": "iceberg"}, "iceberg is the shared lake's"),
        ({"--warehouse": "warehouse"}, "warehouse is the shared lake's"),
        ({"--secret-access-key": "the-secret-itself"}, "takes the name of a variable"),
        ({"--access-key-id": "S3_REGION"}, "the catalog refused our identity"),
        ({"--warehouse": "warehouse-beta", "--catalog": "other"}, "tenant 'beta' writes there too"),
        ({"--bucket": "landing-beta"}, "tenant 'beta' writes there too"),
    ],
)
def test_nothing_is_dropped_by_half_or_wrong_options(
    server: SeaweedFS, project: Path, drop: Drop, changed: dict[str, str | None], says: str
) -> None:
    arguments = _left(server, project)
    beta = TENANT_YAML.replace("id: acme", "id: beta").replace("acme", "beta").replace("schema: beta", "schema: acme")
    (project / "tenants" / "beta").mkdir()
    (project / "tenants" / "beta" / "tenant.yaml").write_text(beta.replace("ACME_", "BETA_"))
    for option, value in changed.items():
        place = arguments.index(option)
        arguments[place : place + 2] = [option, value] if value else []
    with pytest.raises(MozartError, match=says) as caught:
        drop(*arguments, "--yes")
    assert "the-secret-itself" not in str(caught.value)
    for lake in (server.lakehouse, *server.dedicated):
        assert lake.catalog().load_table(TABLE).scan().to_arrow().num_rows >= 1
