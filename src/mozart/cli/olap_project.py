"""What every `mozart olap` command begins with: the project's views, its database, and how results are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mozart.olap.database import OlapDatabase, olap_database_from_settings
from mozart.olap.registry import ViewRegistry, read_views
from mozart.settings import find_root, load_settings

Option = Callable[[Callable[..., None]], Callable[..., None]]
json_option: Option = click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
root_option: Option = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), help="The project's folder."
)


def open_project(root: Path | None) -> tuple[OlapDatabase, ViewRegistry]:
    """The project's OLAP database and views; ConfigurationError when either is not as it should be."""
    project = (root or find_root()).resolve()
    database = olap_database_from_settings(load_settings(project))
    return database, read_views(project, default_schema=database.view_schema)


def print_json(value: Any) -> None:
    """One JSON value; times as ISO 8601."""
    click.echo(json.dumps(value, default=_plain))


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as what is in them; None is a dash."""
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
