"""`mozart olap`: the OLAP layer. Each subcommand is imported when it is called; to add one, add a row to `COMMANDS`."""

from __future__ import annotations

from collections.abc import Mapping

import click

from mozart.cli.lazy import Entry, LazyGroup

COMMANDS: Mapping[str, Entry] = {
    "install": Entry("olap_install:install", "Bring the database to what views/ says."),
    "status": Entry("olap_views:status", "Show every view: rows, freshness, what is not applied yet."),
    "health": Entry("olap_views:health", "Healthy or stale, with an exit code."),
    "history": Entry("olap_views:history", "The latest attempts, also skipped, failed and killed ones."),
    "refresh": Entry("olap_actions:refresh", "Refresh one view now."),
    "explain": Entry("olap_actions:explain", "What the next refresh of a view would do, and its SQL."),
    "verify": Entry("olap_actions:verify", "Compare a view with its full query, row by row."),
    "pause": Entry("olap_actions:pause", "Skip every refresh of a view until it is resumed."),
    "resume": Entry("olap_actions:resume", "Let a paused view be refreshed again."),
    "relay": Entry("olap_relay:command", "Send what the outbox holds to the event stream."),
    "listen": Entry("olap_listen:command", "Turn events into refreshes, and sweep."),
    "sweep": Entry("olap_sweep:command", "Refresh what is due although no event told so, once."),
}


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Views over the OLTP tables, kept fresh: install, look, refresh, check.

    Exit codes: 0 done, 1 failed, stale or not exact, 2 wrong usage or configuration, 75 try again later.

    Example: mozart olap install && mozart olap status
    """
