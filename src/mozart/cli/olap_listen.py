"""`mozart olap listen`: the daemon that turns business events into refreshes, and sweeps for what events missed."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import click

from mozart.cli.olap_daemon import log, readiness, stop_on_signals
from mozart.cli.olap_project import open_project
from mozart.fleet.view_events import view_events_from_settings
from mozart.olap.cache import ViewCache
from mozart.olap.database import olap_database_from_settings
from mozart.olap.event_stream import EventStream
from mozart.olap.listener import EventListener
from mozart.olap.redis_server import redis_from_settings
from mozart.olap.relay import OutboxRelay
from mozart.olap.sweep import GRACE_SECONDS, SWEEP_SECONDS, Handover, Sweep
from mozart.olap.view_watch import ViewWatch
from mozart.settings import Settings, load_settings

_SWEEP_ENDS = 10.0
"""How long a sweep under way may go on after SIGTERM; less than `mozart down` gives a daemon before it is killed."""


@click.command(epilog="Example: mozart olap listen")
@click.option("--status", is_flag=True, help="Show how far outbox, stream and dead letters are, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --status: report as one JSON object.")
@click.option("--sweep-seconds", default=SWEEP_SECONDS, show_default=True, help="Seconds between two sweeps.")
@click.option("--grace-seconds", default=GRACE_SECONDS, show_default=True, help="How long a run may take to come.")
@click.option("--ready-file", type=click.Path(path_type=Path), hidden=True)
def command(status: bool, as_json: bool, sweep_seconds: float, grace_seconds: float, ready_file: Path | None) -> None:
    """Mark views for the business events that touch them, and have them refreshed after a quiet moment, until SIGTERM.

    A refresh runs as a run of the view's deployment mv-incremental/{view}, which an automation starts. When no run
    comes within --grace-seconds, and for changes that no event told of, the sweep in this process refreshes the view.
    Any number may run; each may be killed at any time.
    """
    settings = load_settings()
    if status:
        _show_status(settings, as_json=as_json)
        return
    stop = stop_on_signals()
    database, registry = open_project(settings.root)
    views = ViewWatch(settings.root, registry, database.view_schema, log)
    server, handover = redis_from_settings(settings), Handover()
    announce = view_events_from_settings(settings).announce
    waits: _Waits = {"handover": handover, "grace_seconds": grace_seconds, "views": views}
    listener = EventListener(database, registry, EventStream(server), announce, **waits)
    sweep = Sweep(database, registry, ViewCache(server), **waits)
    sweeping = _Sweeping(sweep, stop, sweep_seconds)
    sweeping.start()
    listener.run(stop, log, readiness(ready_file))
    sweeping.join(_SWEEP_ENDS)
    log(f"stopped after {listener.handled} events")
    if sweeping.failure is not None:
        raise sweeping.failure


class _Waits(TypedDict):
    """What the listener and the sweep of one process share."""

    handover: Handover
    grace_seconds: float
    views: ViewWatch


class _Sweeping(threading.Thread):
    """The sweeps, beside the listener. What ends them unexpectedly ends the daemon: it may not live without them."""

    def __init__(self, sweep: Sweep, stop: threading.Event, seconds: float) -> None:
        super().__init__(name="sweep", daemon=True)
        self._sweep = sweep
        self._stopped = stop
        self._seconds = seconds
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._sweep.run(self._stopped, log, seconds=self._seconds)
        except Exception as error:  # noqa: BLE001 - carried to the main thread, which raises it
            self.failure = error
            self._stopped.set()


def _show_status(settings: Settings, *, as_json: bool) -> None:
    database, stream = olap_database_from_settings(settings), EventStream(redis_from_settings(settings))
    with database.connect() as connection:
        lag = OutboxRelay(database, stream).lag(connection)
    answer = {"outbox": asdict(lag), "stream": asdict(stream.status())}
    letters = [{**entry.fields, "dead_letter": entry.id} for entry in stream.dead_letters(10)]
    if as_json:
        click.echo(json.dumps({**answer, "dead_letters": letters}))
        return
    click.echo(f"outbox         {lag.unpublished} events to publish, the oldest {lag.oldest_seconds:.1f} s old")
    click.echo(f"stream         {answer['stream']['undelivered']} to deliver, {answer['stream']['pending']} in hand")
    click.echo(f"dead letters   {answer['stream']['dead_letters']}")
    for letter in letters:
        click.echo(f"  {letter['dead_letter']}  {letter.get('topic', '-')}  {letter.get('reason', '')}")
