"""What a load plans on: the newest snapshot of a table and the commit record of its newest ancestor that has one.

The record is a table's only memory of how far it is loaded; nothing outside the table is asked. It is read along the
parents of the *current* snapshot, so a rollback takes the watermark back with the rows. Pitfall: a foreign commit
(Trino's optimize, a hand's repair) has no record; the record of the ancestor still holds, yet expiring that ancestor
would lose it: `mozart.lake.commit.restamp` first.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, ancestors_of

from mozart.lake.catalog_client import translated

PREFIX = "mozart."
_DETAILS = "mozart.details."
CARRIED_LOAD_ID = "carried_load_id"
"""The detail of a maintenance commit that names the load whose rows it keeps."""
_DONE_LOAD_ID = "done_load_id"
"""The detail that names a load whose rows others have changed since: it is done, but the rows are not its own."""
FINGERPRINT = "fingerprint"
"""The detail of a published table that says what it was built from."""

Identifier = tuple[str, str]


@dataclass(frozen=True)
class CommitRecord:
    """What a commit says about itself, kept in the summary of its own snapshot under `mozart.*`.

    `watermark` is the canonical text of the incremental column's value; None when the load has none. `base` is the
    snapshot the load was planned on (the committer sets it). `rows` counts the rows the load brought. `mode` is one of
    full_refresh, incremental, backfill, publish, delete_pass, maintenance. `details` are texts: source identity, high
    mark, digests.

    A load id names one load for ever: committing under an id that the table's history holds does nothing.
    """

    load_id: str
    watermark: str | None
    base: int | None
    rows: int
    run_id: str
    mode: str
    details: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_properties(self) -> dict[str, str]:
        """The record as summary properties; absent values are left out."""
        optional = {"watermark": self.watermark, "base": None if self.base is None else str(self.base)}
        return {
            f"{PREFIX}load_id": self.load_id,
            f"{PREFIX}rows": str(self.rows),
            f"{PREFIX}run_id": self.run_id,
            f"{PREFIX}mode": self.mode,
            **{f"{PREFIX}{key}": value for key, value in optional.items() if value is not None},
            **{f"{_DETAILS}{key}": value for key, value in self.details.items()},
        }

    @staticmethod
    def from_properties(properties: Mapping[str, str]) -> CommitRecord | None:
        """The record in a snapshot's summary; None when there is none or it is not one of ours."""
        try:
            base = properties.get(f"{PREFIX}base")
            return CommitRecord(
                load_id=properties[f"{PREFIX}load_id"],
                watermark=properties.get(f"{PREFIX}watermark"),
                base=None if base is None else int(base),
                rows=int(properties[f"{PREFIX}rows"]),
                run_id=properties[f"{PREFIX}run_id"],
                mode=properties[f"{PREFIX}mode"],
                details={
                    key.removeprefix(_DETAILS): value for key, value in properties.items() if key.startswith(_DETAILS)
                },
            )
        except (KeyError, ValueError):
            return None

    def names(self, load_id: str) -> bool:
        """Whether this commit is that load, or carries it forward."""
        return load_id in (self.load_id, self.details.get(CARRIED_LOAD_ID), self.details.get(_DONE_LOAD_ID))

    def carry_forward(self, *, load_id: str, run_id: str, rows_changed: bool = False) -> CommitRecord:
        """The record of a maintenance commit: same watermark and details, no rows of its own, and an id of its own.

        The id of the load it follows goes along, for the snapshot that named it may be expired later. `rows_changed`:
        others changed rows since, so that whoever compares versions or fingerprints must see another.
        """
        carried = self.details.get(CARRIED_LOAD_ID, self.load_id)
        details = {**self.details, CARRIED_LOAD_ID: carried}
        if rows_changed:
            details = {key: text for key, text in details.items() if key not in (CARRIED_LOAD_ID, FINGERPRINT)}
            details[_DONE_LOAD_ID] = carried
        return replace(self, load_id=load_id, run_id=run_id, rows=0, mode="maintenance", details=details)


@dataclass(frozen=True)
class TableHead:
    """A table as one load sees it. `table` is None when it does not exist, `snapshot_id` None when it is empty.

    `record` belongs to the newest ancestor of the current snapshot that has one. `is_foreign`: the current snapshot
    itself has none.
    """

    identifier: Identifier
    table: Table | None
    snapshot_id: int | None
    record: CommitRecord | None
    is_foreign: bool

    @property
    def name(self) -> str:
        return ".".join(self.identifier)


def read_head(catalog: Catalog, identifier: Identifier) -> TableHead:
    """The table's newest state. Raises TransientError when it cannot be read, TerminalError when we may not."""
    with translated(f"reading table {'.'.join(identifier)}"):
        try:
            table = catalog.load_table(identifier)
        except NoSuchTableError:
            return TableHead(identifier, None, None, None, is_foreign=False)
    return head_of(identifier, table)


def head_of(identifier: Identifier, table: Table) -> TableHead:
    """The head of a table already loaded."""
    current = table.metadata.current_snapshot_id
    records = ((snapshot.snapshot_id, record) for snapshot, record in _history(table) if record is not None)
    owner, record = next(records, (None, None))
    return TableHead(identifier, table, current, record, is_foreign=current is not None and owner != current)


def find_load(head: TableHead, load_id: str) -> int | None:
    """The snapshot in the head's ancestry that is this load (or carries it forward); None when there is none."""
    if head.table is None:
        return None
    return next(
        (snapshot.snapshot_id for snapshot, record in _history(head.table) if record and record.names(load_id)), None
    )


def has_ancestor(head: TableHead, snapshot_id: int) -> bool:
    """Whether the head is this snapshot or grew from it."""
    return head.table is not None and any(snapshot.snapshot_id == snapshot_id for snapshot, _ in _history(head.table))


def keeps_record(head: TableHead, expired: Collection[int]) -> bool:
    """Whether the record in force is still found once these snapshots are gone, and the ancestry up to it with them."""
    if head.table is None or head.record is None:
        return True
    for snapshot, record in _history(head.table):
        if snapshot.snapshot_id in expired:
            return False
        if record is not None:
            return True
    return False


def is_readable(head: TableHead) -> bool:
    """Whether the list of the current snapshot's files is there; an engine may have removed what it thought had failed.

    True of a table without a snapshot. Raises TransientError when the store does not answer.
    """
    snapshot = head.table.current_snapshot() if head.table else None
    if head.table is None or snapshot is None:
        return True
    with translated(f"looking for the files of {head.name}"):
        return head.table.io.new_input(snapshot.manifest_list).exists()


def has_foreign_rows(head: TableHead) -> bool:
    """Whether others may have changed rows since the record in force: a commit that is no mere rewriting of files."""
    if head.table is None or not head.is_foreign:
        return False
    foreign = itertools.takewhile(lambda step: step[1] is None, _history(head.table))
    return any(snapshot.summary is None or snapshot.summary.operation != Operation.REPLACE for snapshot, _ in foreign)


def _history(table: Table) -> Iterator[tuple[Snapshot, CommitRecord | None]]:
    """The current snapshot and its parents, newest first, with their records."""
    for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
        properties = snapshot.summary.additional_properties if snapshot.summary else {}
        yield snapshot, CommitRecord.from_properties(properties)


def visible_rows(snapshot: Snapshot) -> int | None:
    """The rows that a reader of the snapshot sees, as its summary counts them: exact where Mozart or Trino wrote."""
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    total = properties.get("total-records", "")
    return int(total) - int(properties.get("total-position-deletes", 0)) if total.isdigit() else None
