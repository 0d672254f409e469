"""`mozart up`: start what is not running of the local stack, and wait until all of it is ready."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mozart.services.stack import Progress, Stack, load_stack


@click.command()
def up() -> None:
    """Start the local stack and wait until it is ready.

    Starts PostgreSQL, Valkey, SeaweedFS (S3 and Iceberg catalog), Trino when MOZART_ENGINE says so, the Prefect server,
    and the workers of the pools `mozart` and `mozart-inline`. What runs already is left alone, so a second `up`
    restarts dead parts only. Everything listens on 127.0.0.1 and keeps its state in .mozart/; secrets are made into
    .env on first use.

    Example: mozart up
    """
    start_stack()


def start_stack(root: Path | None = None) -> Stack:
    """Start the stack of the project with visible progress, and return it when all of it is ready."""
    began = time.monotonic()
    stack = load_stack(root)
    click.echo(f"Starting the stack of {stack.settings.root}")
    stack.up(_show)
    click.echo(f"All ready after {time.monotonic() - began:.1f} s. Prefect: {stack.prefect.ui_url}")
    return stack


def _show(progress: Progress) -> None:
    click.echo(f"  {progress.service:<10} {progress.event} ({progress.seconds:.1f} s)")
