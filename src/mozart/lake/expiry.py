"""Which snapshots of a table are forgotten: those that nobody can be reading, and never the memory of the table.

Kept are the newest `snapshots` of the current history, everything younger than `age`, what a tag or another branch
names (with a branch's history), and the history down to the commit record in force. Where that record stands only in
a snapshot due to go (the newer ones are foreign: Trino's optimize, say), it is restamped onto the head first.

Forgetting goes through `mozart.lake.commit.expire`, on the head it was planned on. It removes no file: those of
forgotten snapshots belong to `mozart.lake.sweep`. Pitfall: a reader that pinned a snapshot longer ago than `age` and
`snapshots` allow loses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from mozart.errors import CommitConflictError
from mozart.lake import commit
from mozart.lake.commit import Identifier, TableHead
from mozart.lake.head import keeps_record

_ATTEMPTS = 4


@dataclass(frozen=True)
class ExpiryPolicy:
    """`snapshots`: how many of the newest stay whatever their age; `age`: how long each stays at least."""

    snapshots: int = 10
    age: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if self.snapshots < 1 or self.age < timedelta():
            raise ValueError("a table keeps one snapshot at least, and none is expired before it was made")


@dataclass(frozen=True)
class ExpiryResult:
    """What became of one table: snapshots forgotten (or that would be) and kept; whether its record was restamped."""

    table: str
    expired: int
    kept: int
    restamped: bool = False
    skipped: str | None = None

    @property
    def line(self) -> str:
        """One line for a log."""
        note = " after restamping its commit record" if self.restamped else ""
        note += f" ({self.skipped})" if self.skipped else ""
        return f"{self.table}: {self.expired} snapshots expired, {self.kept} kept{note}"


def plan_expiry(metadata: TableMetadata, policy: ExpiryPolicy, now: datetime) -> frozenset[int]:
    """The ids of the snapshots that may go as far as age, number and names tell; `now` in UTC."""
    youngest_to_go = (now - policy.age).timestamp() * 1000
    known = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    history = list(_history(metadata, metadata.current_snapshot_id))
    young = [place for place, snapshot in enumerate(history) if snapshot.timestamp_ms >= youngest_to_go]
    # Clocks differ between writers; up to the oldest that stays, none may be missing in between.
    kept = {snapshot.snapshot_id for snapshot in history[: max(policy.snapshots, 1 + max(young, default=0))]}
    kept |= {number for number, snapshot in known.items() if snapshot.timestamp_ms >= youngest_to_go}
    for name, ref in metadata.refs.items():
        kept.add(ref.snapshot_id)
        if ref.snapshot_ref_type == "branch" and name != "main":
            kept |= {snapshot.snapshot_id for snapshot in _history(metadata, ref.snapshot_id)}
    return frozenset(known) - kept


def expire_snapshots(
    catalog: Catalog,
    identifier: Identifier,
    *,
    run_id: str,
    policy: ExpiryPolicy | None = None,
    now: datetime | None = None,
    dry_run: bool = False,
) -> ExpiryResult:
    """Forget the snapshots of one table that `policy` lets go at `now` (UTC; the present when None).

    Gives way to other writers: plans again on their head, and after some tries leaves the rest to the next run. Raises
    TransientError or TerminalError when catalog or store refuse; the table then has all it had.
    """
    policy, now = policy or ExpiryPolicy(), now or datetime.now(UTC)
    restamped = False
    for _attempt in range(_ATTEMPTS):
        head = commit.read_head(catalog, identifier)
        if head.table is None:
            return ExpiryResult(head.name, 0, 0)
        total = len(head.table.metadata.snapshots)
        going = plan_expiry(head.table.metadata, policy, now)
        if not going or dry_run:
            return ExpiryResult(head.name, len(going), total - len(going), restamped)
        try:
            if not keeps_record(head, going):
                restamped = _restamp(catalog, head, run_id) or restamped
                continue
            commit.expire(catalog, head, going)
        except CommitConflictError:
            continue
        return ExpiryResult(head.name, len(going), total - len(going), restamped)
    return ExpiryResult(
        ".".join(identifier), 0, 0, restamped, "other writers were first each time; left to the next run"
    )


def _restamp(catalog: Catalog, head: TableHead, run_id: str) -> bool:
    return commit.restamp(catalog, head, run_id=run_id).status == "committed"


def _history(metadata: TableMetadata, snapshot_id: int | None) -> Iterable[Snapshot]:
    start = metadata.snapshot_by_id(snapshot_id) if snapshot_id is not None else None
    return ancestors_of(start, metadata)
