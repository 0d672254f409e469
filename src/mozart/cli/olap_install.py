"""`mozart olap install`: bring the OLAP database to what `views/` says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mozart.cli.olap_project import json_option, open_project, print_json, root_option
from mozart.olap.database import OlapDatabase
from mozart.olap.install import check
from mozart.olap.install import install as install_views
from mozart.services.olap_daemons import enable_daemons
from mozart.settings import Settings, load_settings


@click.command(epilog="Example: mozart olap install --check")
@click.option("--check", "check_only", is_flag=True, help="Refuse what an install would refuse; change nothing.")
@json_option
@root_option
def install(check_only: bool, as_json: bool, root: Path | None) -> None:
    """Install state, change tracking, views and the role olap_reader; idempotent.

    A view that is new, or whose SQL or strategy changed, is built beside the old one and takes its place in one
    moment. A view whose folder is gone is dropped. Exits 0 when done, 2 when a view is refused, with the cure.
    """
    database, registry = open_project(root)
    if check_only:
        check(database, registry)
        click.echo(f"{len(registry.views)} views can be installed", err=as_json)
        return
    report = install_views(database, registry)
    enable_local_daemons(database, load_settings(root))
    if as_json:
        print_json(asdict(report))
        return
    for table in report.tracked:
        click.echo(f"following {table}")
    for view, what in report.views.items():
        click.echo(f"{view}: {what}")
    for view in report.removed:
        click.echo(f"{view}: removed")


def enable_local_daemons(database: OlapDatabase, settings: Settings) -> None:
    """With the views in the local stack's own server, relay and listener are parts of that stack from its next `up`."""
    if (database.host, database.port) == (settings.get("MOZART_HOST"), settings.port("MOZART_POSTGRES_PORT")):
        enable_daemons(settings.state)
