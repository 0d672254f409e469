"""The removal of everything one tenant has in the lake: its tables, its namespaces, its landing files.

Asked for by a person only (`mozart tenant drop`, `mozart deploy --remove`); nothing else calls it. Whose places these
are is the caller's to know: nothing here compares them with other tenants'. Does not touch Prefect or the source.

Order: tables first, so that no reader is left with a table whose files are gone; then what they left in their folders
(a catalog may keep the files of a dropped table); then the namespaces; landing files last. Ended half-way, it can be
called again. Pitfall: a load in flight could put a table back; callers make sure that no run is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceNotEmptyError, NoSuchNamespaceError, NoSuchTableError

from mozart.errors import TerminalError, TransientError
from mozart.lake.catalog_client import translated
from mozart.lake.commit import Identifier
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.object_store import ObjectStore
from mozart.lake.references import list_tables, load_table
from mozart.tenancy.names import Namespaces, candidates_namespace

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TenantData:
    """What a tenant has in the lake. `files` and `size` (bytes) are its landing files; tables have theirs."""

    namespaces: tuple[str, ...]
    tables: tuple[Identifier, ...]
    files: int
    size: int

    @property
    def line(self) -> str:
        """One line for a person who is asked."""
        return f"{len(self.tables)} tables, {self.files} landing files ({self.size} bytes)"

    @property
    def is_empty(self) -> bool:
        return not self.namespaces and not self.tables and not self.files


def find_tenant_data(lakehouse: Lakehouse, spaces: Namespaces) -> TenantData:
    """What lies in these namespaces and below the lakehouse's landing prefix. Raises TransientError, TerminalError."""
    catalog = lakehouse.catalog()
    files = list(ObjectStore(lakehouse).list_files(lakehouse.landing_uri))
    # Candidates last: only Trino makes them, and only killed runs leave any.
    places = (spaces.raw, spaces.core, candidates_namespace(spaces.core))
    return TenantData(
        namespaces=tuple(name for name in places if _exists(catalog, name)),
        tables=tuple(table for name in places for table in list_tables(catalog, name)),
        files=len(files),
        size=sum(file.size for file in files),
    )


def remove_tenant_data(lakehouse: Lakehouse, spaces: Namespaces, report: Progress = lambda _line: None) -> TenantData:
    """Remove what `find_tenant_data` finds; returns what was there.

    Raises TerminalError when a namespace holds what is no table or a file cannot be deleted; call it again then.
    """
    found = find_tenant_data(lakehouse, spaces)
    catalog, store = lakehouse.catalog(), ObjectStore(lakehouse)
    for table in found.tables:
        _drop(catalog, store, table)
        report(f"table {'.'.join(table)}: removed")
    for name in found.namespaces:
        _drop_namespace(catalog, name)
        report(f"namespace {name}: removed")
    _delete_below(store, lakehouse.landing_uri)
    if found.files:
        report(f"{found.files} landing files of {lakehouse.landing_uri}: removed")
    return found


def _exists(catalog: Catalog, namespace: str) -> bool:
    with translated(f"looking for namespace {namespace}"):
        return catalog.namespace_exists(namespace)


def _drop(catalog: Catalog, store: ObjectStore, identifier: Identifier) -> None:
    table = load_table(catalog, identifier)
    if table is None:
        return
    location = table.location()
    name = ".".join(identifier)
    with translated(f"dropping table {name}"):
        try:
            catalog.drop_table(identifier)
        except NoSuchTableError:
            return
    # A location that is not named after the table may hold others' files.
    if location.rstrip("/").rpartition("/")[2] == identifier[-1]:
        _delete_below(store, location)


def _drop_namespace(catalog: Catalog, namespace: str) -> None:
    with translated(f"dropping namespace {namespace}"):
        try:
            catalog.drop_namespace(namespace)
        except NoSuchNamespaceError:
            return
        except NamespaceNotEmptyError as error:
            raise TerminalError(
                f"namespace {namespace} holds something that is no table of ours (a view, say); drop that first"
            ) from error


def _delete_below(store: ObjectStore, folder: str) -> None:
    failed: dict[str, str] = store.delete([file.path for file in store.list_files(folder)])
    if failed:
        raise TransientError(_refusal(folder, sorted(failed.items())))


def _refusal(folder: str, failed: Sequence[tuple[str, str]]) -> str:
    path, reason = failed[0]
    return f"{len(failed)} files below {folder} could not be deleted, the first {path} ({reason}); call it again"
