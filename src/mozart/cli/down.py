"""`mozart down`: stop what `mozart up` started, and nothing else."""

from __future__ import annotations

import click

from mozart.services.service import DEADLINE
from mozart.services.stack import Progress, Stack
from mozart.settings import load_settings


@click.command()
@click.option("--deadline", default=DEADLINE, show_default=True, help="Seconds each part gets before it is killed.")
def down(deadline: float) -> None:
    """Stop everything the local stack started.

    Each part is asked to end, then killed when its deadline has passed. Only processes are signalled whose pid and
    creation time are those that `mozart up` recorded, or that carry this project's mark. The data in .mozart/ stay.

    Example: mozart down
    """
    Stack(load_settings()).down(_show, deadline)


def _show(progress: Progress) -> None:
    if progress.event != "was not running":
        click.echo(f"  {progress.service:<10} {progress.event} ({progress.seconds:.1f} s)")
