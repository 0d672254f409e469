"""The `mozart` command. Each subcommand is a module of its own, imported when it is called: `mozart --help` stays fast.

To add one: write `mozart/cli/<module>.py` with a click command and add a row to `COMMANDS`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from mozart.cli.lazy import Entry, LazyGroup
from mozart.errors import ConfigurationError, MozartError, TransientError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h: the same command may go through later


COMMANDS: Mapping[str, Entry] = {
    "up": Entry("up:up", "Start the local stack and wait until it is ready."),
    "down": Entry("down:down", "Stop everything the local stack started."),
    "ps": Entry("ps:ps", "Show the parts of the local stack."),
    "sync": Entry("sync:command", "Write prefect.yaml and PRODUCT_SCHEMA.md, or check them."),
    "validate": Entry("validate:command", "Check tenants, models and definitions; needs no server."),
    "plan": Entry("plan:command", "Say what deploy would change; changes nothing."),
    "deploy": Entry("deploy:command", "Apply deployments, blocks, limits and automations to Prefect."),
    "status": Entry("status:command", "Show the tenants' last runs, and who is unwell."),
    "doctor": Entry("doctor:command", "Find what keeps the fleet from working, with the cure."),
    "query": Entry("query:command", "Ask the lake a question in SQL."),
    "tenant": Entry("tenant:command", "List the tenants, show one, drop the data of one that left."),
    "table": Entry("table:command", "Plan a load, see a raw table's snapshots, replay one."),
    "olap": Entry("olap:command", "The OLAP layer: install, look, refresh, check."),
    "demo": Entry("demo:command", "The whole way on this machine, with what happened in figures."),
}


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mozart")
def cli() -> None:
    """Many tenants' databases into an Iceberg lakehouse, and an OLAP layer kept fresh.

    Exit codes: 0 done, 1 failed or not healthy, 2 wrong usage or configuration, 75 try again later.

    Example: mozart up && mozart ps
    """


def main() -> None:
    """Run the command; a Mozart error becomes one message on stderr and an exit code, without a traceback."""
    try:
        cli.main()
    except MozartError as error:
        click.secho(f"mozart: {error}", fg="red", err=True)
        sys.exit(exit_code(error))


def exit_code(error: MozartError) -> int:
    """The exit code that scripts can tell the kinds of failure by."""
    if isinstance(error, ConfigurationError):
        return EXIT_USAGE
    if isinstance(error, TransientError):
        return EXIT_TRANSIENT
    return EXIT_FAILED


if __name__ == "__main__":
    main()
