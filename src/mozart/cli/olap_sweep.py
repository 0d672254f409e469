"""`mozart olap sweep`: refresh once what the database says is due, and tidy what was killed."""

from __future__ import annotations

import json
import sys

import click

from mozart.cli.main import EXIT_FAILED
from mozart.cli.olap_project import open_project
from mozart.olap.cache import ViewCache
from mozart.olap.redis_server import redis_from_settings
from mozart.olap.sweep import Sweep
from mozart.settings import load_settings


@click.command(epilog="Example: mozart olap sweep --json")
@click.option("--patient", is_flag=True, help="Leave what events are about to bring, as the listener's sweeps do.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(patient: bool, as_json: bool) -> None:
    """Refresh every view that is marked or has changes, unless it is paused, refreshing or too recent.

    Needs neither Prefect nor events. Closes attempts whose process was killed, and repairs the cache's generations.
    Exits 1 when a refresh failed.
    """
    settings = load_settings()
    database, registry = open_project(settings.root)
    report = Sweep(database, registry, ViewCache(redis_from_settings(settings))).run_once(patient=patient)
    if as_json:
        answer = {
            "refreshed": [result.model_dump(mode="json") for result in report.refreshed],
            "failed": dict(report.failed),
            "left": list(report.left),
            "killed_attempts": report.killed_attempts,
            "repaired_copies": list(report.repaired_copies),
            "cache_problem": report.cache_problem,
        }
        click.echo(json.dumps(answer))
    else:
        click.echo(report.line or "Nothing is due.")
        if report.cache_problem:
            click.echo(f"The cache was not looked at: {report.cache_problem}", err=True)
    if report.failed:
        sys.exit(EXIT_FAILED)
