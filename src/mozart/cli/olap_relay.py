"""`mozart olap relay`: the daemon that carries committed business events from the outbox into the event stream."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mozart.cli.olap_daemon import log, readiness, stop_on_signals
from mozart.olap.database import olap_database_from_settings
from mozart.olap.event_stream import EventStream
from mozart.olap.redis_server import redis_from_settings
from mozart.olap.relay import BATCH, OutboxRelay
from mozart.settings import load_settings


@click.command(epilog="Example: mozart olap relay")
@click.option("--once", is_flag=True, help="Publish what is there now, and end.")
@click.option("--batch", default=BATCH, show_default=True, help="Events in one transaction.")
@click.option("--json", "as_json", is_flag=True, help="With --once: report as one JSON object.")
@click.option("--ready-file", type=click.Path(path_type=Path), hidden=True)
def command(once: bool, batch: int, as_json: bool, ready_file: Path | None) -> None:
    """Carry business events from event_outbox into the event stream, until SIGTERM.

    Any number may run; each may be killed at any time. Reports its lag, the age of the oldest event not yet published,
    every 30 seconds in which there was something to do. A lost database or Redis is waited for.
    """
    settings = load_settings()
    database = olap_database_from_settings(settings)
    relay = OutboxRelay(database, EventStream(redis_from_settings(settings)), batch=batch)
    if not once:
        relay.run(stop_on_signals(), log, readiness(ready_file))
        log(f"stopped after {relay.published} events")
        return
    with database.connect() as connection:
        published = relay.drain(connection)
        lag = relay.lag(connection)
    if as_json:
        answer = {"published": published, "unpublished": lag.unpublished, "lag_seconds": lag.oldest_seconds}
        click.echo(json.dumps(answer))
    else:
        click.echo(f"{published} events published, {lag.unpublished} to go")
