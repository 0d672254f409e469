"""`mozart ps`: the parts of the local stack and whether they run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from mozart.services.service import ServiceStatus
from mozart.services.stack import Stack
from mozart.settings import load_settings

_COLUMNS = ("SERVICE", "STATE", "PID", "PORT", "UPTIME", "LOG")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list; uptime in seconds.")
def ps(as_json: bool) -> None:
    """Show the parts of the local stack.

    `dead` was started and is gone (`mozart up` restarts it); `stopped` was not started. Exit code 0 when all
    run, else 1.

    Example: mozart ps --json
    """
    settings = load_settings()
    statuses = Stack(settings).status()
    if as_json:
        click.echo(json.dumps([asdict(status) for status in statuses], indent=2))
    else:
        click.echo(_table(statuses, settings.root))
    sys.exit(0 if all(status.state == "running" for status in statuses) else 1)


def _table(statuses: Sequence[ServiceStatus], root: Path) -> str:
    rows = [_COLUMNS, *(_row(status, root) for status in statuses)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(status: ServiceStatus, root: Path) -> tuple[str, ...]:
    log = Path(status.log)
    return (
        status.name,
        status.state,
        str(status.pid or "-"),
        str(status.port or "-"),
        _duration(status.uptime),
        str(log.relative_to(root) if log.is_relative_to(root) else log),
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
