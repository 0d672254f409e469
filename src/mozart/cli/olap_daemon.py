"""What `mozart olap relay` and `mozart olap listen` share: they stop on SIGTERM, say when they are ready, and log."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; the second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def log(line: str) -> None:
    """One line with the time in UTC; daemons write to their standard output."""
    click.echo(f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')}Z {line}")


def readiness(file: Path | None) -> Callable[[], None]:
    """What a daemon calls once it is connected: it writes its pid into `file`, if there is one."""

    def ready() -> None:
        if file is not None:
            partial = file.with_suffix(".partial")
            partial.write_text(str(os.getpid()))
            partial.replace(file)

    return ready
