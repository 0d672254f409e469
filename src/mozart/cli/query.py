"""`mozart query`: read the lake with SQL, on the engine that the settings name."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TextIO

import click

from mozart.engine.base import open_query_session
from mozart.engine.rows import Rows
from mozart.settings import load_settings
from mozart.tenancy.load import load_tenant
from mozart.tenancy.resolve import resolve

_TABLE_ROWS = 50
_COUNTED_ROWS = 100_000
_WIDEST_CELL = 60


@click.command(name="query")
@click.argument("sql")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json and csv stream all rows; table shows the first ones.",
)
@click.option("--limit", type=click.IntRange(min=1), default=_TABLE_ROWS, show_default=True, help="Rows of a table.")
@click.option("--tenant", "tenant_id", metavar="TENANT", help="Query the lake that this tenant's tables are in.")
def command(sql: str, style: str, limit: int, tenant_id: str | None) -> None:
    """Run one SQL query on the lake and print its rows.

    Tables are named as everywhere: iceberg.acme.mart_case or acme.mart_case. Only queries run; nothing can be changed.
    In json, decimals are text with all their digits, times are ISO 8601, and a missing value is null; in csv a missing
    value is an empty field and an empty text is "". A tenant with a lake of its own is named by --tenant; its
    catalog is then called as in its tenant.yaml. Exit code 0 done, 1 the query failed, 2 configuration, 75 the lake
    does not answer.

    Example: mozart query "select status, count(*) from acme.mart_case group by status" --format json
    """
    settings = load_settings()
    tenant = resolve(load_tenant(settings.tenants_folder / tenant_id), settings.values) if tenant_id else None
    with open_query_session(settings, tenant) as session:
        result = session.run(sql)
        if style == "table":
            _write_table(result, limit)
        else:
            _WRITERS[style](result, sys.stdout)


def _write_json(result: Rows, out: TextIO) -> None:
    """A JSON array, one object a line."""
    separator = "[\n"
    for row in result.rows:
        pairs = ", ".join(
            f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(_json_value(value), ensure_ascii=False)}"
            for name, value in zip(result.columns, row, strict=True)
        )
        out.write(f"{separator}{{{pairs}}}")
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(result: Rows, out: TextIO) -> None:
    # QUOTE_NOTNULL came with Python 3.12; so text is quoted always and NULL is the one empty field.
    out.write(",".join(_csv_field(name) for name in result.columns) + "\r\n")
    for row in result.rows:
        out.write(",".join(_csv_field(value) for value in row) + "\r\n")


_WRITERS: dict[str, Callable[[Rows, TextIO], None]] = {"json": _write_json, "csv": _write_csv}


def _write_table(result: Rows, limit: int) -> None:
    shown = [[_cell(value) for value in row] for row in itertools.islice(result.rows, limit)]
    lines = [list(result.columns), *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(result.columns))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    left_out = sum(1 for _ in itertools.islice(result.rows, _COUNTED_ROWS))
    if left_out:
        more = "more than " if left_out == _COUNTED_ROWS else ""
        click.echo(f"({more}{left_out} more rows are not shown; use --limit, --format json or --format csv)", err=True)
    else:
        click.echo(f"({len(shown)} row{'' if len(shown) == 1 else 's'})", err=True)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _text(value)


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    text = _text(value)
    if isinstance(value, str) or any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _cell(value: Any) -> str:
    text = "NULL" if value is None else " ".join(_text(value).split())
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 1] + "…"


def _text(value: Any) -> str:
    """A value as text that loses nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple | dict):
        return json.dumps(_json_value(value), ensure_ascii=False)
    return str(value)
