"""Where a secret may have been left: files, the server's database, the object store, processes. Looks everywhere.

A secret is searched in each form it may have been written in (plain, percent-encoded, base64, escaped for JSON). Values
are never printed: a finding says the secret's name and the place. By design secrets stand in `.env` and in the servers'
own configuration (`PRIVATE_FILES`, mode 0600), in block documents (encrypted), and in PostgreSQL's roles as verifiers.

Pitfall: the servers' own data folders are read as they lie on disk, where pages may be compressed; the tables of the
Prefect server and the objects of the store are therefore read through the servers as well.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import urllib.parse
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import psutil
import pyarrow.fs
import pyarrow.parquet
from psycopg import sql
from pyiceberg.avro.file import AvroFile
from pyiceberg.io import load_file_io

from mozart.lake.lakehouse import Lakehouse
from tests.e2e.deployment import Deployed

PRIVATE_FILES = (".env", ".mozart/prefect/pgpass", ".mozart/seaweedfs/s3.json", ".mozart/valkey/valkey.conf")
SMALL = 4_000_000
_PAUSE = 0.5


@dataclass(frozen=True)
class SecretSearch:
    """The secrets by name, and what was found so far as `name in place`."""

    secrets: Mapping[str, str] = field(repr=False)
    found: set[str] = field(default_factory=set[str])

    def look(self, place: str, content: bytes | str) -> None:
        data = content.encode(errors="replace") if isinstance(content, str) else content
        for name, secret in self.secrets.items():
            if any(form in data for form in _forms(secret)):
                self.found.add(f"{name} in {place}")

    def files(self, deployed: Deployed) -> int:
        """Every file of the project's folder: logs, dbt's target, scratch, prefect.yaml; how many were read."""
        count = 0
        for path in deployed.root.rglob("*"):
            name = str(path.relative_to(deployed.root))
            if not path.is_file() or name in PRIVATE_FILES:
                continue
            self.look(f"name of {name}", name)
            try:
                self.look(name, path.read_bytes())
            except (FileNotFoundError, PermissionError):  # a server's file that has gone, or is its user's alone
                continue
            count += 1
        return count

    def database(self, deployed: Deployed) -> set[str]:
        """Every row of every table of the Prefect server, as text; the tables that were read."""
        with deployed.stack.postgres.superuser("prefect").connect() as connection:
            listed = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables"
                " WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for schema, table in listed:
                query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
                for (row,) in connection.execute(query):
                    self.look(f"the server's table {table}", str(row))
        return {str(table) for _, table in listed}

    def objects(self, deployed: Deployed) -> int:
        """Every object of the landing bucket and of the warehouse, keys and contents; how many were read."""
        lake = deployed.stack.seaweedfs.lakehouse
        store = open_store(lake)
        count = 0
        for bucket in (lake.bucket, lake.warehouse):
            for entry in store.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=True)):
                self.look(f"key {entry.path}", entry.path)
                if entry.is_file and entry.size < SMALL:
                    with store.open_input_file(entry.path) as stream:
                        self._object(lake, entry.path, stream.read())
                    count += 1
        return count

    def _object(self, lake: Lakehouse, path: str, content: bytes) -> None:
        self.look(path, content)
        if path.endswith((".gz", ".gz.metadata.json")):
            self.look(path, gzip.decompress(content))
        elif path.endswith(".parquet"):
            data = pyarrow.parquet.read_table(BytesIO(content))
            self.look(path, f"{data.schema.metadata} {data.to_pylist()}")
        elif path.endswith(".avro"):
            location = f"s3://{path}"
            with AvroFile(load_file_io(lake.catalog_properties(), location).new_input(location)) as records:
                self.look(path, repr(list(records)))

    @contextmanager
    def processes(self) -> Generator[set[str]]:
        """While the block runs: arguments and environment of every process that may be seen; gives the arguments."""
        seen: set[str] = set()
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(_PAUSE):
                self._watch_once(seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join()

    def _watch_once(self, seen: set[str]) -> None:
        for process in psutil.process_iter():
            try:
                command, environment = " ".join(process.cmdline()), json.dumps(process.environ())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            seen.add(command)
            self.look("the arguments of a process", command)
            self.look(f"the environment of a process ({command[:60]})", environment)


def open_store(lake: Lakehouse) -> pyarrow.fs.S3FileSystem:
    return pyarrow.fs.S3FileSystem(
        access_key=lake.access_key_id,
        secret_key=lake.secret_access_key.get_secret_value(),
        endpoint_override=lake.s3_endpoint,
        region=lake.s3_region,
    )


def _forms(secret: str) -> set[bytes]:
    """The secret as it may have been written; base64 at each of its three alignments."""
    plain = secret.encode()
    encoded = {base64.b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)}
    quoted = {urllib.parse.quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}
    return {plain, *quoted, *(form for form in encoded if len(form) > 8)}
