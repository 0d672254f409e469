"""DuckDB as Mozart uses it: extensions from their wheels, secrets by CREATE SECRET, the lake attached for reading.

DuckDB computes and writes files. It never commits to the catalog: see `mozart.lake.commit` for the reason.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
from duckdb import DuckDBPyConnection

from mozart.errors import TerminalError
from mozart.lake.lakehouse import Lakehouse
from mozart.sql import quote_identifier, quote_literal

LAKE = "lake"
"""The name the catalog is attached under."""

LAKE_EXTENSIONS = ("httpfs", "avro", "iceberg")

CONFIG: Mapping[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_unsigned_extensions": "true",
}
"""What can only be set while connecting: nothing is fetched from anywhere, extension files come from our wheels."""

# The scanner must be loaded under the name it was built with.
_FILE_NAMES = {"postgres": "postgres_scanner", "mysql": "mysql_scanner", "sqlite": "sqlite_scanner"}


@dataclass(frozen=True)
class Limits:
    """What one connection may use. `memory` in DuckDB's notation; spilled data goes to `spill_folder`."""

    memory: str = "512MB"
    threads: int = 2
    spill_folder: Path | None = None


def connect(
    *,
    lakehouse: Lakehouse | None = None,
    extensions: Sequence[str] = (),
    database: str = ":memory:",
    read_only: bool = False,
    limits: Limits | None = None,
    extension_folder: Path | None = None,
) -> DuckDBPyConnection:
    """A connection in UTC with the named extensions, and the lake's secrets and catalog when one is given.

    `extension_folder` is where renamed extension files are kept (needed for postgres, mysql and sqlite). `read_only`
    is about the local `database`; the lake is attached for reading always.
    """
    connection = duckdb.connect(database, read_only=read_only, config=dict(CONFIG))
    apply_limits(connection, limits or Limits())
    load_extensions(connection, [*(LAKE_EXTENSIONS if lakehouse else ()), *extensions], extension_folder)
    connection.execute("SET TimeZone = 'UTC'")
    if lakehouse:
        create_lake_secrets(connection, lakehouse)
        attach_lake(connection, lakehouse)
    return connection


def apply_limits(connection: DuckDBPyConnection, limits: Limits) -> None:
    """Bound the instance's memory and threads; order of insertion is given up for it."""
    connection.execute(f"SET memory_limit = {quote_literal(limits.memory)}")
    connection.execute(f"SET threads = {int(limits.threads)}")
    connection.execute("SET preserve_insertion_order = false")
    if limits.spill_folder:
        connection.execute(f"SET temp_directory = {quote_literal(str(limits.spill_folder))}")


def close_local_files(connection: DuckDBPyConnection) -> None:
    """From here on SQL reaches S3 and this instance's own files (database, spilled data) only; cannot be undone.

    Extensions have to be loaded and catalogs attached before.
    """
    connection.execute("SET allowed_directories = ['s3://']")
    connection.execute("SET enable_external_access = false")


def load_extensions(connection: DuckDBPyConnection, names: Sequence[str], folder: Path | None = None) -> None:
    """Load extensions from their wheels, each once, in the order given (iceberg needs avro before it)."""
    for name in dict.fromkeys(names):
        connection.execute(f"LOAD {quote_literal(str(extension_file(name, folder)))}")


def create_lake_secrets(connection: DuckDBPyConnection, lakehouse: Lakehouse) -> None:
    """The object store's and the catalog's credentials, in this connection's memory only."""
    create_store_secret(connection, lakehouse)
    connection.execute(
        f"CREATE OR REPLACE SECRET lake_catalog (TYPE iceberg, CLIENT_ID {quote_literal(lakehouse.access_key_id)}, "
        f"CLIENT_SECRET {quote_literal(lakehouse.secret_access_key.get_secret_value())}, "
        f"OAUTH2_SERVER_URI {quote_literal(lakehouse.oauth2_server_uri)})"
    )


def create_store_secret(connection: DuckDBPyConnection, lakehouse: Lakehouse) -> None:
    """The object store's credentials alone: enough for `iceberg_scan` of a known metadata file."""
    store = urlsplit(lakehouse.s3_endpoint)
    connection.execute(
        f"CREATE OR REPLACE SECRET lake_store (TYPE s3, KEY_ID {quote_literal(lakehouse.access_key_id)}, "
        f"SECRET {quote_literal(lakehouse.secret_access_key.get_secret_value())}, "
        f"ENDPOINT {quote_literal(store.netloc)}, URL_STYLE 'path', USE_SSL {str(store.scheme == 'https').lower()}, "
        f"REGION {quote_literal(lakehouse.s3_region)})"
    )


def attach_lake(connection: DuckDBPyConnection, lakehouse: Lakehouse, *, name: str = LAKE) -> None:
    """Attach the catalog, read-only: DuckDB itself then refuses every statement that would commit to it.

    Each attach sees the catalog anew; pin a snapshot with `AT (VERSION => …)`. Pitfall: a scan of
    `information_schema.tables` or `SHOW ALL TABLES` lists every namespace of the catalog.
    """
    connection.execute(
        f"ATTACH {quote_literal(lakehouse.warehouse)} AS {quote_identifier(name)} (TYPE iceberg, READ_ONLY, "
        f"ENDPOINT {quote_literal(lakehouse.catalog_uri)}, SECRET lake_catalog, ACCESS_DELEGATION_MODE 'none')"
    )


def extension_file(name: str, folder: Path | None = None) -> Path:
    """The extension's file from its wheel; copied under its built-in name into `folder` where the two differ."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or not spec.submodule_search_locations:
        raise TerminalError(f"the package duckdb-extension-{name} is not installed; run `make install`")
    package = Path(spec.submodule_search_locations[0])
    source = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not source.is_file():
        raise TerminalError(
            f"duckdb-extension-{name} has no file for DuckDB {duckdb.__version__}; install the pinned versions"
        )
    built_as = _FILE_NAMES.get(name)
    if built_as is None:
        return source
    if folder is None:
        raise TerminalError(f"loading the {name} extension needs a folder for its renamed file")
    return _renamed_copy(source, folder / f"v{duckdb.__version__}" / f"{built_as}.duckdb_extension")


def _renamed_copy(source: Path, target: Path) -> Path:
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{id(source)}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)  # atomic: a parallel process never loads half a file
    return target
