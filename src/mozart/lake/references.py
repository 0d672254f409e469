"""Which files a table needs: what any of its snapshots, its metadata and its metadata log can reach.

Read from the metadata that the catalog names now, never from a copy. The answer holds for that metadata only: ask for
`metadata_location` again before acting on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from mozart.lake.catalog_client import translated
from mozart.lake.commit import Identifier

_SLASHES = re.compile(r"/{2,}")


@dataclass(frozen=True)
class TableReferences:
    """A table's needs: `keys` are its files as `file_key` writes them, `location` where it keeps its metadata."""

    identifier: Identifier
    location: str
    metadata_location: str
    keys: frozenset[str]


def file_key(path: str) -> str:
    """A path in the one form in which paths are compared: no scheme, no doubled slash, nothing escaped.

    Different spellings of one object meet (`s3a://`, `%20`). Should two objects meet, both are kept: the safe side.
    """
    return _SLASHES.sub("/", unquote(path.partition("://")[2]))


def load_table(catalog: Catalog, identifier: Identifier) -> Table | None:
    """The table as the catalog has it now; None when it does not exist. Raises TransientError, TerminalError."""
    with translated(f"reading table {'.'.join(identifier)}"):
        try:
            return catalog.load_table(identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None


def list_tables(catalog: Catalog, namespace: str) -> tuple[Identifier, ...]:
    """The tables of a namespace; none when it does not exist."""
    with translated(f"listing the tables of {namespace}"):
        try:
            return tuple(sorted((namespace, identifier[-1]) for identifier in catalog.list_tables(namespace)))
        except NoSuchNamespaceError:
            return ()


def references_of(identifier: Identifier, table: Table) -> TableReferences:
    """Everything the table can reach. Raises TransientError when one manifest of any snapshot cannot be read."""
    with translated(f"reading the manifests of {'.'.join(identifier)}"):
        keys = frozenset(file_key(path) for path in _reachable(table))
    return TableReferences(identifier, table.location(), table.metadata_location, keys)


def _reachable(table: Table) -> Iterator[str]:
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (file.statistics_path for file in (*metadata.statistics, *metadata.partition_statistics))
    manifests: dict[str, ManifestFile] = {}
    for snapshot in metadata.snapshots:
        yield snapshot.manifest_list
        manifests.update((manifest.manifest_path, manifest) for manifest in snapshot.manifests(table.io))
    for path, manifest in manifests.items():
        yield path
        # An entry marked deleted is no need of this snapshot; a snapshot that still has the file says so itself.
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            yield entry.data_file.file_path
