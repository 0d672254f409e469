"""`mozart olap refresh | explain | verify | pause | resume`: act on one view, or ask about it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from mozart.cli.olap_project import json_option, open_project, print_json, root_option
from mozart.errors import MozartError
from mozart.olap.cache import ViewCache, invalidate
from mozart.olap.database import OlapDatabase
from mozart.olap.redis_server import redis_from_settings
from mozart.olap.refresh import refresh_view
from mozart.olap.state import pause_view, require_installed, resume_view
from mozart.olap.verify import explain_view, verify_view
from mozart.settings import find_root, load_settings

DIFFERS = 1


@click.command(epilog="Example: mozart olap refresh mv_cashflow_fact --force")
@click.argument("view")
@click.option("--force", is_flag=True, help="Do not wait for the view's minimum interval to pass.")
@json_option
@root_option
def refresh(view: str, force: bool, as_json: bool, root: Path | None) -> None:
    """Refresh one view now, its stale dimensions first. Exits 0 when refreshed or skipped with a reason."""
    database, registry = open_project(root)
    result = refresh_view(database, registry, view, kind="incremental", force=force)
    if result.status == "completed":
        _invalidate(database, root)
    if as_json:
        click.echo(result.model_dump_json())
    elif result.status == "skipped":
        click.echo(f"{view}: skipped: {result.reason}; it is refreshed when it may be")
    else:
        changed = "" if result.changed_rows is None else f", {result.changed_rows} changed"
        why = f" ({result.reason})" if result.reason else ""
        click.echo(f"{view}: {result.rows} rows{changed}, {result.duration_seconds * 1000:.0f} ms{why}")


def _invalidate(database: OlapDatabase, root: Path | None) -> None:
    """Let readers of the cache see what is committed; without Redis the next sweep does."""
    settings = load_settings((root or find_root()).resolve())
    try:
        with closing(ViewCache(redis_from_settings(settings))) as cache, closing(database.connect()) as connection:
            invalidate(cache, connection)
    except MozartError as error:
        click.echo(f"the cache was not invalidated, the next sweep will: {error}", err=True)


@click.command(epilog="Example: mozart olap explain mv_business_fact --sql")
@click.argument("view")
@click.option("--sql", is_flag=True, help="Show the generated SQL too.")
@json_option
@root_option
def explain(view: str, sql: bool, as_json: bool, root: Path | None) -> None:
    """Say what the next refresh of a view would do; changes nothing."""
    found = explain_view(*open_project(root), view)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"{found.view}, strategy {found.strategy}: {found.plan}")
    if sql:
        click.echo(f"\n-- the view\n{found.full_query}")
        if found.delta_statement:
            click.echo(f"\n-- what a refresh runs\n{found.delta_statement}")


@click.command(epilog="Example: mozart olap verify mv_business_fact")
@click.argument("view")
@json_option
@root_option
def verify(view: str, as_json: bool, root: Path | None) -> None:
    """Compare a view with its full query; exits 1 when a row differs. Changes nothing."""
    found = verify_view(*open_project(root), view)
    if as_json:
        print_json({**asdict(found), "exact": found.is_exact})
    elif found.is_exact:
        click.echo(f"{view}: exact ({found.duration_seconds:.1f} s)")
    else:
        why = "; changes are pending, refresh it first" if found.pending else "; run a full sync to repair it"
        click.echo(f"{view}: {found.extra} rows too many, {found.missing} missing{why}", err=True)
    if not found.is_exact:
        raise SystemExit(DIFFERS)


@click.command(epilog="Example: mozart olap pause mv_business_fact --reason 'year-end closing'")
@click.argument("view")
@click.option("--reason", default="", help="Why; shown to whoever looks.")
@root_option
def pause(view: str, reason: str, root: Path | None) -> None:
    """Skip every refresh of a view until it is resumed; what is asked for meanwhile is kept."""
    database, registry = open_project(root)
    registry.get(view)
    with closing(database.connect()) as connection:
        require_installed(connection)
        pause_view(connection, view, reason=reason)
    click.echo(f"{view}: paused")


@click.command(epilog="Example: mozart olap resume mv_business_fact")
@click.argument("view")
@root_option
def resume(view: str, root: Path | None) -> None:
    """Let a paused view be refreshed again; what was asked for meanwhile is due at the next sweep."""
    database, registry = open_project(root)
    registry.get(view)
    with closing(database.connect()) as connection:
        require_installed(connection)
        resume_view(connection, view)
    click.echo(f"{view}: resumed")
