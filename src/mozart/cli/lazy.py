"""A group of commands of which each is imported when it is called: help and the quick ones stay quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Entry:
    """Where a command is (`module:attribute` below `mozart.cli`) and its line in the group's help."""

    target: str
    summary: str


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports one when it is called."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        command = getattr(importlib.import_module(f"mozart.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"mozart.cli.{entry.target} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])
