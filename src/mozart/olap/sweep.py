"""The sweep: refresh what the database says is due although nobody came to do it, and tidy what was killed.

Knows the marks and the change log in PostgreSQL, not the events: it does the work when Redis, the Prefect server or an
automation is late or lost. While those work it keeps out of their way (`Handover`, and the patience of `is_left`), so
that a burst stays one refresh per view.

Does not decide what is due (`mozart.olap.state`) nor how a view is refreshed (`mozart.olap.refresh`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from mozart.errors import MozartError
from mozart.olap.attempt import LOCK_KEY
from mozart.olap.cache import ViewCache, invalidate
from mozart.olap.database import Connection, OlapDatabase, translate
from mozart.olap.model import View
from mozart.olap.refresh import SyncResult, refresh_view
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import DueView, ViewState, close_killed_attempts, due_views, read_states

SWEEP_SECONDS = 5.0
GRACE_SECONDS = 10.0
"""How long an announced view is left to the run that the announcement starts."""
EVENT_MARK = "event"
"""How the reason of a mark begins that a listener made."""

_LONGEST_BACKOFF = 300.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class SweepReport:
    """What one sweep did. `failed` and `cache_problem` hold reasons; `left` are due views that others will refresh."""

    refreshed: tuple[SyncResult, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    left: tuple[str, ...] = ()
    killed_attempts: int = 0
    repaired_copies: tuple[str, ...] = ()
    cache_problem: str | None = None

    @property
    def line(self) -> str:
        """In one line; empty when there was nothing to do."""
        parts = [
            *(f"{result.view} {result.status}{_because(result.reason)}" for result in self.refreshed),
            *(f"{view} failed: {reason}" for view, reason in self.failed.items()),
        ]
        if self.killed_attempts:
            parts.append(f"{self.killed_attempts} killed attempts closed")
        if self.repaired_copies:
            parts.append(f"cache repaired for {', '.join(self.repaired_copies)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Promise:
    """A run that an announcement will start: when it is late, and the view's last refresh before it."""

    late_at: float
    last_refresh: datetime | None


class Handover:
    """Views that others are about to refresh: a window that is open here, or a run that was promised. For threads.

    A promise is broken when it is late and the view was not refreshed since, however many windows opened after it.
    """

    def __init__(self) -> None:
        self._windows: dict[str, float] = {}
        self._promises: dict[str, _Promise] = {}
        self._changed = threading.Condition()

    def open(self, view: str, seconds: float) -> None:
        """A window of the view is open here, and will end within so many seconds."""
        with self._changed:
            self._windows[view] = time.monotonic() + seconds

    def promise(self, view: str, last_refresh: datetime | None, seconds: float) -> None:
        """The view was announced: within so many seconds a run refreshes it. With 0 nobody comes: sweep now."""
        with self._changed:
            self._windows.pop(view, None)
            self._promises[view] = _Promise(time.monotonic() + seconds, last_refresh)
            if not seconds:
                self._changed.notify_all()

    def forget(self, view: str) -> None:
        """Leave the view to the sweep's ordinary patience."""
        with self._changed:
            self._windows.pop(view, None)
            self._promises.pop(view, None)

    def is_left(self, state: ViewState) -> bool | None:
        """Whether the view is left to others now; None when nothing is known of it here."""
        now = time.monotonic()
        with self._changed:
            promise = self._promises.get(state.name)
            if promise and promise.last_refresh == state.last_refreshed_at:
                return now < promise.late_at
            self._promises.pop(state.name, None)
            until = self._windows.get(state.name)
        return True if until is not None and now < until else None

    def wait(self, seconds: float) -> None:
        """Wait for a broken promise, at most so long."""
        with self._changed:
            self._changed.wait(seconds)


class Sweep:
    """The sweeps of one process. Several processes may sweep: the database lets one refresh a view at a time.

    `views` gives the registry anew for each sweep, where it may change.
    """

    def __init__(
        self,
        database: OlapDatabase,
        registry: ViewRegistry,
        cache: ViewCache | None = None,
        *,
        handover: Handover | None = None,
        grace_seconds: float = GRACE_SECONDS,
        views: Callable[[], ViewRegistry] | None = None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._cache = cache
        self._handover = handover or Handover()
        self._grace_seconds = grace_seconds
        self._views = views or (lambda: registry)
        self._failures: dict[str, tuple[int, float]] = {}

    def run(self, stop: threading.Event, log: Log, *, seconds: float = SWEEP_SECONDS) -> None:
        """Sweep every `seconds` until `stop` is set. A lost database is waited for."""
        problem = ""
        while not stop.is_set():
            try:
                report = self.run_once()
            except MozartError as error:
                if str(error) != problem:
                    log(f"sweep: {error}")
                problem = str(error)
            else:
                if report.line:
                    log(f"sweep: {report.line}")
                problem = ""
            self._handover.wait(seconds)

    def run_once(self, *, patient: bool = True) -> SweepReport:
        """One sweep; without `patient`, also of what events or their runs will bring. TransientError: no database."""
        self._registry = self._views()
        try:
            with self._database.connect() as connection:
                killed = len(close_killed_attempts(connection))
                states = {state.name: state for state in read_states(connection)}
                due = due_views(connection, self._registry)
                busy = [view for view in due if _is_refreshing(connection, view.name)]
                left = [view for view in due if view in busy or (patient and self._is_left(view, states[view.name]))]
                refreshed, failed = self._refresh([view for view in due if view not in left])
                repaired, cache_problem = self._repair(connection)
        except psycopg.Error as error:
            raise translate(error, "sweep") from error
        return SweepReport(
            tuple(refreshed), failed, tuple(view.name for view in left), killed, tuple(repaired), cache_problem
        )

    def _is_left(self, due: DueView, state: ViewState) -> bool:
        failure = self._failures.get(due.name)
        if failure and time.monotonic() < failure[1]:
            return True
        known = self._handover.is_left(state)
        if known is not None:
            return known
        return is_left(due, state, self._registry.get(due.name), self._grace_seconds)

    def _refresh(self, due: list[DueView]) -> tuple[list[SyncResult], dict[str, str]]:
        refreshed: list[SyncResult] = []
        failed: dict[str, str] = {}
        for view in due:
            try:
                refreshed.append(refresh_view(self._database, self._registry, view.name, kind="sweep"))
            except MozartError as error:
                failed[view.name] = str(error)
                count = self._failures.get(view.name, (0, 0.0))[0] + 1
                backoff = min(SWEEP_SECONDS * 2**count, _LONGEST_BACKOFF)
                self._failures[view.name] = (count, time.monotonic() + backoff)
            else:
                self._failures.pop(view.name, None)
            self._handover.forget(view.name)
        return refreshed, failed

    def _repair(self, connection: Connection) -> tuple[list[str], str | None]:
        if self._cache is None:
            return [], None
        try:
            return invalidate(self._cache, connection), None
        except MozartError as error:
            return [], str(error)


def is_left(due: DueView, state: ViewState, view: View, grace_seconds: float, now: datetime | None = None) -> bool:
    """Whether events may still bring this refresh: it is due because something changed, and not for long.

    What was asked for by a person or a run, and skipped, is never left.
    """
    if state.dirty_since is not None and not (state.dirty_reason or "").startswith(EVENT_MARK):
        return False
    patience = view.debounce_max_wait_seconds + grace_seconds if view.events else view.debounce_seconds
    return ((now or datetime.now(UTC)) - due.since).total_seconds() < patience


def _is_refreshing(connection: Connection, view: str) -> bool:
    """Whether somebody holds the view's lock. Looks without touching it: a try would make others skip."""
    row = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM pg_locks, {LOCK_KEY} AS key WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objsubid = 1"
        " AND (classid::bigint << 32 | objid::bigint) = key)".encode(),
        [view],
    ).fetchone()
    return bool(row and row[0])


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
