"""The command line: every command loads, has help with an example, and `--help` itself imports none of them."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mozart.cli.main import COMMANDS, cli, exit_code
from mozart.errors import ConfigurationError, DataQualityError, MozartError, TerminalError, TransientError


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom mozart.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "heavy = {'prefect', 'psutil', 'duckdb', 'pyiceberg', 'httpx', 'mozart.services'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_command_has_help_with_an_example(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Group) or "Example" in done.output


def test_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["nothing"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigurationError("x"), 2), (TransientError("x"), 75), (TerminalError("x"), 1), (DataQualityError("x"), 1)],
)
def test_exit_codes(error: MozartError, code: int) -> None:
    assert exit_code(error) == code
