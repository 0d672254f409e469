"""The `mozart` command. Each subcommand is a module of its own, imported when it is called: `mozart --help` stays fast.

To add one: write `mozart/cli/<module>.py` with a click command and add a row to `COMMANDS`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import click

from mozart.errors import ConfigurationError, MozartError, TransientError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h: the same command may go through later


@dataclass(frozen=True)
class Entry:
    """Where a subcommand is (`module:attribute` below `mozart.cli`) and its line in `mozart --help`."""

    target: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "up": Entry("up:up", "Start the local stack and wait until it is ready."),
    "down": Entry("down:down", "Stop everything the local stack started."),
    "ps": Entry("ps:ps", "Show the parts of the local stack."),
    "sync": Entry("sync:command", "Write prefect.yaml and PRODUCT_SCHEMA.md, or check them."),
    "validate": Entry("validate:command", "Check tenants, models and definitions; needs no server."),
    "deploy": Entry("deploy:command", "Apply deployments, blocks, limits and automations to Prefect."),
    "query": Entry("query:command", "Ask the lake a question in SQL."),
    "tenant": Entry("tenant:command", "List the tenants, or show one."),
    "demo": Entry("demo:command", "The whole way on this machine, with what happened in figures."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        command = getattr(importlib.import_module(f"mozart.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"mozart.cli.{entry.target} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
