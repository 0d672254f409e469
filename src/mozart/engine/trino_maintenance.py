"""Maintenance of one table by Trino: optimize, expire, orphans, statistics; beside loads, and without losing a record.

The commit record of a table stands in the summary of a snapshot. Trino's own snapshots have none, and its
`expire_snapshots` looks at age alone; so whatever Trino commits is restamped by a commit of ours before anything is
expired, and nothing younger than `retention` (an hour at least) goes. A load that commits meanwhile carries its own
record. Trino gives way to a load that was first (`skipped`), and a load that was second plans again, as after any
other writer.

`remove_orphan_files` cleans the table's own folder only. Landed files lie elsewhere: they stay the affair of
`mozart.lake.sweep`, which has to run on every engine. Needs the operator's login: raw is read-only for tenants.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pyiceberg.catalog import Catalog

from mozart.engine.trino_client import CATALOG, TrinoSession, retrying
from mozart.errors import CommitConflictError, TerminalError, TransientError
from mozart.lake.commit import Identifier, read_head, restamp
from mozart.sql import quote_qualified

LEAST_RETENTION = timedelta(hours=1)
"""Below it a running load could lose files that it has not committed yet."""
DEFAULT_RETENTION = timedelta(days=7)
_STAMP_ATTEMPTS = 5

Step = Literal["optimize", "expire", "orphans", "analyze"]
STEPS: tuple[Step, ...] = ("optimize", "expire", "orphans", "analyze")


@dataclass(frozen=True)
class TrinoMaintenanceResult:
    """What was done to one table, and what was left to the next run because of another writer, with the reason."""

    table: str
    done: tuple[Step, ...]
    skipped: dict[Step, str]

    @property
    def line(self) -> str:
        """One line for a log."""
        left = "".join(f"; {step} skipped: {reason}" for step, reason in self.skipped.items())
        return f"{self.table}: {', '.join(self.done) or 'nothing'} done by Trino{left}"


def maintain_table(
    session: TrinoSession,
    catalog: Catalog,
    identifier: Identifier,
    *,
    run_id: str,
    retention: timedelta = DEFAULT_RETENTION,
    steps: tuple[Step, ...] = STEPS,
) -> TrinoMaintenanceResult:
    """Do these steps to one table, in their order.

    Raises TerminalError for a retention below an hour or below the server's own least, TransientError when the server
    or the catalog does not answer. The table has its rows and its record in any case.
    """
    if retention < LEAST_RETENTION:
        raise TerminalError(f"snapshots and files are kept for {LEAST_RETENTION} at least, not {retention}")
    name = quote_qualified(CATALOG, *identifier)
    age = f"retention_threshold => '{int(retention.total_seconds())}s'"
    statements: dict[Step, str] = {
        "optimize": f"ALTER TABLE {name} EXECUTE optimize",
        "expire": f"ALTER TABLE {name} EXECUTE expire_snapshots({age})",
        "orphans": f"ALTER TABLE {name} EXECUTE remove_orphan_files({age})",
        "analyze": f"ANALYZE {name}",
    }
    done: list[Step] = []
    skipped: dict[Step, str] = {}
    for step in STEPS:
        if step not in steps:
            continue
        try:
            if step == "expire":
                _keep_record(catalog, identifier, run_id)
            _execute(session, statements[step], gives_way=step == "optimize")
            done.append(step)
        except CommitConflictError as error:
            skipped[step] = str(error)
    _keep_record(catalog, identifier, run_id)
    return TrinoMaintenanceResult(".".join(identifier), tuple(done), skipped)


def _execute(session: TrinoSession, sql: str, *, gives_way: bool) -> None:
    def run() -> None:
        session.execute(sql)

    try:
        run() if gives_way else retrying(run)
    except TransientError as error:
        if gives_way and "ICEBERG_COMMIT_ERROR" in str(error):
            raise CommitConflictError("another writer was first") from error
        raise


def _keep_record(catalog: Catalog, identifier: Identifier, run_id: str) -> None:
    """Restamp until the head is ours or another commit with a record. CommitConflictError when others keep winning."""
    for attempt in range(1, _STAMP_ATTEMPTS + 1):
        head = read_head(catalog, identifier)
        if head.record is None or not head.is_foreign:
            return
        try:
            restamp(catalog, head, run_id=run_id)
        except CommitConflictError:
            if attempt == _STAMP_ATTEMPTS:
                raise
        else:
            return
