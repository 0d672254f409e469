"""`mozart plan`: what `mozart deploy` would do now, found by the deploy itself without its writes."""

from __future__ import annotations

import json

import click

from mozart.cli.deploy import BROKEN, as_plain, deploy, show_problems
from mozart.cli.main import EXIT_FAILED
from mozart.settings import load_settings


@click.command(epilog="Example: mozart plan --json")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--check", is_flag=True, help="Exit 1 when a deploy would change anything.")
def command(as_json: bool, check: bool) -> None:
    """Say what `mozart deploy` would create, update and remove; changes nothing.

    A tenant or view with mistakes is named as a deploy would name it, and the exit code is 2.
    """
    result = deploy(load_settings(), quiet=True, is_rehearsal=True)
    changes = [item for item in result.applied if item.change != "unchanged"]
    if as_json:
        click.echo(json.dumps(as_plain(result)))
    else:
        for item in changes:
            click.echo(f"  {item.kind} {item.name}: to be {item.change}{f'; {item.note}' if item.note else ''}")
        count = f"{len(changes)} of {len(result.applied)} objects would change."
        click.echo(count if changes else "Nothing to change.")
        show_problems(result)
    if result.problems:
        raise SystemExit(BROKEN)
    if check and changes:
        raise SystemExit(EXIT_FAILED)
