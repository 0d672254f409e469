"""The sweep: deletes files of one tenant that no snapshot of its tables can reach.

Unfinished multipart uploads to the same places, begun before the grace period, are aborted. What is deleted must be
all of this: it lies below the tenant's landing prefix or in the metadata or data folder of one
of its tables, where Mozart and Iceberg writers put files; it is of a kind they write; it is older than the grace
period; and no snapshot, metadata file or metadata log of any of the tenant's tables names it.

The order makes it safe. First the files are listed, then the tables are read: a file that was committed before or
while the list was made is named by what is read after it. A file that is committed later was, when listed, older than
the grace period and still uncommitted; loads take hours at most, so none is in flight (that also covers a commit in
doubt: its files are kept for the whole period). Before each batch is deleted every table is asked for its metadata
again, and read again where it changed: a rollback, a foreign commit or a new table in between is seen. One table that
cannot be read ends the sweep before it deletes anything more: what it needs is not known.

Which tables can need a landing file is not left to one listing: for each folder the table of that name is asked for in
every namespace of the tenant, present and earlier. Earlier ones, and tables dropped of late, are known from a note the
sweep keeps at `{landing}/_mozart/sweep.json`: a dropped table's files stay for a grace period after it was last seen.

Pitfalls: two tenants must not share a landing prefix (`mozart.tenancy.footprint` refuses it). Files that a foreign
writer registers from the landing prefix into a table of another namespace are not known here. A table whose location
is not named like itself is left alone, for others' files may lie there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pyiceberg.catalog import Catalog

from mozart.errors import TerminalError
from mozart.lake.commit import Identifier
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.object_store import BATCH, ObjectStore, StoredFile
from mozart.lake.references import TableReferences, file_key, list_tables, load_table, references_of
from mozart.tenancy.names import Namespaces, identifier_mistake

Progress = Callable[[str], None]

_NOTE = "_mozart/sweep.json"
_SHOWN = 20
_METADATA = {".metadata.json": "metadata", ".avro": "manifest", ".puffin": "statistics", ".stats": "statistics"}
_DATA = {".parquet": "data", ".avro": "data", ".orc": "data", ".puffin": "data"}


@dataclass(frozen=True)
class SweepPolicy:
    """`grace`: how old a file must be, by the store's clock; longer than any load takes."""

    grace: timedelta = timedelta(days=3)

    def __post_init__(self) -> None:
        if self.grace < timedelta(hours=1):
            raise ValueError("a grace period below an hour would take the files of loads in flight")


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found and did. Sizes in bytes; `kinds` counts orphans by what they are (landing, data, manifest,
    metadata, statistics); `young` are unreachable or not yet committed files within the grace period and all others
    that are not old enough to be looked at; `examples` are some of the orphans' paths; `uploads` those begun before
    the grace period and never completed; `notes` what was left alone."""

    listed: int
    young: int
    orphans: int
    orphan_size: int
    kinds: Mapping[str, int]
    examples: tuple[str, ...] = ()
    deleted: int = 0
    deleted_size: int = 0
    uploads: int = 0
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line for a log."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items())) or "none"
        text = f"{self.listed} files, {self.orphans} orphans ({kinds}; {self.orphan_size} bytes)"
        text += f", {self.deleted} deleted ({self.deleted_size} bytes)"
        text += f", {self.uploads} unfinished uploads" if self.uploads else ""
        return f"{text}, {len(self.failed)} could not be deleted" if self.failed else text


@dataclass(frozen=True)
class _Orphan:
    file: StoredFile
    kind: str


@dataclass(frozen=True)
class _Folder:
    """A place to list. `kinds`: what a file is by its ending; `holds_tables`: it has `{table}/{load id}/` below it."""

    uri: str
    kinds: Mapping[str, str]
    holds_tables: bool = False

    def kind_of(self, file: StoredFile) -> str | None:
        """What the file is; None for one that nobody of us writes there."""
        parts = file.path[len(self.uri) + 1 :].split("/")
        # what people put beside the tables is theirs
        if self.holds_tables and (len(parts) < 3 or identifier_mistake(parts[0]) is not None):
            return None
        return next((kind for ending, kind in self.kinds.items() if file.path.endswith(ending)), None)


@dataclass
class _Note:
    """What earlier sweeps saw: each table as `namespace.table` with the moment it was last there."""

    catalog: str
    tables: dict[str, datetime]

    @property
    def namespaces(self) -> set[str]:
        return {name.rpartition(".")[0] for name in self.tables}

    def to_json(self) -> str:
        tables = {name: seen.isoformat() for name, seen in sorted(self.tables.items())}
        return json.dumps({"catalog": self.catalog, "tables": tables}, indent=1)


class Sweep:
    """One sweep of one tenant. `clock` gives the present in UTC, for tests; the store's own time otherwise."""

    def __init__(
        self,
        lakehouse: Lakehouse,
        catalog: Catalog,
        namespaces: Namespaces,
        *,
        policy: SweepPolicy | None = None,
        clock: Callable[[], datetime] | None = None,
        progress: Progress = lambda _line: None,
    ) -> None:
        self._landing = lakehouse.landing_uri
        self._lakehouse = lakehouse
        self._catalog = catalog
        self._namespaces = (namespaces.raw, namespaces.core)
        self._policy = policy or SweepPolicy()
        self._store = ObjectStore(lakehouse)
        self._clock = clock
        self._progress = progress
        self._notes: list[str] = []

    def run(self, *, dry_run: bool = False) -> SweepResult:
        """Find the orphans and delete them; with `dry_run` only say which.

        Raises TransientError or TerminalError when the store or a table cannot be read; what was deleted before that
        was nobody's. Objects that the store refuses to delete are in the result, not raised.
        """
        now = self._clock() if self._clock else self._store.now(self._landing)
        note = self._read_note()
        listed, young, candidates = self._list(now)
        known = self._tables_of(note, candidates)
        references = {identifier: self._references(identifier) for identifier in known}
        if not dry_run:
            self._write_note(note, references, now)
        kept_names = self._lately_dropped(note, references, now)
        needed = _needed(references)
        orphans = [
            orphan
            for orphan in candidates
            if file_key(orphan.file.path) not in needed and self._folder_name(orphan) not in kept_names
        ]
        result = SweepResult(
            listed=listed,
            young=young,
            orphans=len(orphans),
            orphan_size=sum(orphan.file.size for orphan in orphans),
            kinds=dict(Counter(orphan.kind for orphan in orphans)),
            uploads=self._abort_uploads(now, dry_run=dry_run),
            examples=tuple(orphan.file.path for orphan in orphans[:_SHOWN]),
            notes=tuple(self._notes),
        )
        return result if dry_run else self._delete(orphans, references, result)

    # -- what is there ------------------------------------------------------------------------------------------

    def _list(self, now: datetime) -> tuple[int, int, list[_Orphan]]:
        """How many files there are, how many are too young, and those old enough to be looked at."""
        oldest_kept = now - self._policy.grace
        listed = young = 0
        candidates: list[_Orphan] = []
        for folder in self._folders():
            for file in self._store.list_files(folder.uri):
                listed += 1
                kind = folder.kind_of(file)
                if file.modified >= oldest_kept:
                    young += 1
                elif kind is not None:
                    candidates.append(_Orphan(file, kind))
        return listed, young, candidates

    def _folders(self) -> Iterator[_Folder]:
        """The landing prefix, and metadata and data of each table that lies where its name says."""
        yield _Folder(self._landing, {".parquet": "landing"}, holds_tables=True)
        identifiers = [name for namespace in self._namespaces for name in list_tables(self._catalog, namespace)]
        locations: dict[str, Identifier] = {}
        for identifier in identifiers:
            table = load_table(self._catalog, identifier)
            if table is None:
                continue
            location = table.location().rstrip("/")
            if not is_named_like(location, identifier) or location in locations:
                self._notes.append(f"{'.'.join(identifier)}: {location} is not the table's own; left alone")
                continue
            locations[location] = identifier
        for location in locations:
            yield _Folder(f"{location}/metadata", _METADATA)
            yield _Folder(f"{location}/data", _DATA)

    # -- what is needed -----------------------------------------------------------------------------------------

    def _tables_of(self, note: _Note, candidates: Sequence[_Orphan]) -> list[Identifier]:
        """Every table that may need one of the files, whether it exists or not. Read after the files were listed."""
        spaces = sorted({*self._namespaces, *note.namespaces})
        found = {name for namespace in spaces for name in list_tables(self._catalog, namespace)}
        folders = {name for orphan in candidates if (name := self._folder_name(orphan))}
        found |= {(namespace, folder) for namespace in spaces for folder in folders}
        found |= {(space, table) for space, _, table in (name.rpartition(".") for name in note.tables)}
        return sorted(found)

    def _references(self, identifier: Identifier) -> TableReferences | None:
        table = load_table(self._catalog, identifier)
        return None if table is None else references_of(identifier, table)

    def _folder_name(self, orphan: _Orphan) -> str | None:
        """The table whose landing folder the file is in."""
        start = f"{self._landing}/"
        return orphan.file.path[len(start) :].split("/")[0] if orphan.file.path.startswith(start) else None

    def _lately_dropped(
        self, note: _Note, references: Mapping[Identifier, TableReferences | None], now: datetime
    ) -> set[str]:
        """Names of tables that are gone, but were there within the grace period: their files stay for it."""
        return {
            table
            for (namespace, table), needs in references.items()
            if needs is None
            and (seen := note.tables.get(f"{namespace}.{table}")) is not None
            and seen >= now - self._policy.grace
        }

    # -- deleting -----------------------------------------------------------------------------------------------

    def _delete(
        self,
        orphans: Sequence[_Orphan],
        references: dict[Identifier, TableReferences | None],
        result: SweepResult,
    ) -> SweepResult:
        failed: dict[str, str] = {}
        deleted: list[_Orphan] = []
        for start in range(0, len(orphans), BATCH):
            self._refresh(references)
            needed = _needed(references)
            batch = [orphan for orphan in orphans[start : start + BATCH] if file_key(orphan.file.path) not in needed]
            refused = self._store.delete([orphan.file.path for orphan in batch])
            failed.update(refused)
            deleted += [orphan for orphan in batch if orphan.file.path not in refused]
            self._progress(f"{len(deleted)} of {len(orphans)} orphans deleted")
        return replace(
            result,
            deleted=len(deleted),
            deleted_size=sum(orphan.file.size for orphan in deleted),
            failed=failed,
        )

    def _refresh(self, references: dict[Identifier, TableReferences | None]) -> None:
        """Ask every table again, and read it again where its metadata is another."""
        for identifier, known in references.items():
            table = load_table(self._catalog, identifier)
            if table is None:
                continue  # dropped in between: what it needed stays in the books of this sweep
            if known is None or table.metadata_location != known.metadata_location:
                references[identifier] = references_of(identifier, table)

    def _abort_uploads(self, now: datetime, *, dry_run: bool) -> int:
        """End what a killed writer began to upload; no snapshot can name an object that was never completed."""
        old = [
            upload
            for folder in self._folders()
            for upload in self._store.list_uploads(folder.uri)
            if upload.begun < now - self._policy.grace
        ]
        for upload in () if dry_run else old:
            self._store.abort(upload)
        return len(old)

    # -- the note -----------------------------------------------------------------------------------------------

    @property
    def _catalog_name(self) -> str:
        return f"{self._lakehouse.catalog_uri} {self._lakehouse.warehouse}"

    def _read_note(self) -> _Note:
        path = f"{self._landing}/{_NOTE}"
        text = self._store.read_text(path)
        if text is None:
            return _Note(self._catalog_name, {})
        cure = f"look which tables still use {self._landing}, then remove the note; nothing was deleted"
        try:
            value = json.loads(text)
            tables = {str(name): datetime.fromisoformat(seen) for name, seen in value["tables"].items()}
            catalog = str(value["catalog"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TerminalError(f"{path} cannot be read as the sweep's note ({type(error).__name__}); {cure}") from None
        if catalog != self._catalog_name and tables:
            raise TerminalError(
                f"{path} was kept for tables of the catalog {catalog}, and this run's is {self._catalog_name}; {cure}"
            )
        return _Note(self._catalog_name, tables)

    def _write_note(self, note: _Note, references: Mapping[Identifier, TableReferences | None], now: datetime) -> None:
        """Note which tables are there now, and keep those gone for less than the grace period."""
        there = {".".join(identifier): now for identifier, needs in references.items() if needs is not None}
        lately = {name: seen for name, seen in note.tables.items() if seen >= now - self._policy.grace}
        text = _Note(self._catalog_name, {**lately, **there}).to_json()
        self._store.write_text(f"{self._landing}/{_NOTE}", text)


def _needed(references: Mapping[Identifier, TableReferences | None]) -> frozenset[str]:
    return frozenset[str]().union(*(needs.keys for needs in references.values() if needs))


def is_named_like(location: str, identifier: Identifier) -> bool:
    """Whether a location is the table's own by its name: `…/{namespace}[.db]/{table}[-suffix]`."""
    namespace, table = identifier
    parts = location.partition("://")[2].split("/")
    own = parts[-1] == table or parts[-1].startswith(f"{table}-")
    return own and any(part in (namespace, f"{namespace}.db") for part in parts[:-1])
