"""Every command of ours that a container runs exists, with the options it is given."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence

import click
import pytest

from mozart.cli.main import cli
from tests.unit.kit.kit_files import manifests, mozart_services, programs


def container_programs() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of each program that one of Mozart's containers starts, probes included."""
    for name, service in mozart_services().items():
        for command in (service["command"], service.get("healthcheck", {}).get("test")):
            if command:
                yield from ((f"docker-compose.yml: {name}", words) for words in programs(command))
    for file, documents in manifests().items():
        for document in documents:
            worker = document.get("worker", {})
            if "args" in worker:
                yield from ((file, words) for words in programs([*worker["command"], *worker["args"]]))
            for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
                yield file, container["args"]


PROGRAMS = list(container_programs())


@pytest.mark.parametrize(("where", "words"), PROGRAMS, ids=[" ".join(words)[:60] for _, words in PROGRAMS])
def test_program_exists(where: str, words: list[str]) -> None:
    if words[0] == "mozart":
        require_options(cli, words[1:])
    elif words[:2] == ["python", "-m"] and words[2].startswith("mozart."):
        module = importlib.import_module(words[2])
        require_options(getattr(module, "cli", None) or module.main, words[3:])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), where
    else:
        assert words[0] in ("test", "cd", "install"), f"{where}: nobody knows whether the image has {words[0]}"


def require_options(command: click.Command, words: Sequence[str]) -> None:
    """Walk down to the subcommand, and let its parser have the rest; click's error says what is wrong."""
    rest = list(words)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(click.Context(command), rest)
        assert name
        assert found
        command = found
    # Shell variables stand for text or numbers that are known in the container only.
    values = ["1" if word.startswith("${") else word for word in rest]
    command.make_context("kit", values)


def test_every_kind_of_container_is_looked_at() -> None:
    seen = {" ".join(words[:3]) for _, words in PROGRAMS}
    assert {"mozart olap relay", "mozart olap listen", "mozart deploy", "mozart olap install"} <= seen
    assert {"python -m mozart.fleet.process_worker", "python -m mozart.fleet.inline_worker"} <= seen


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(click.UsageError):
        require_options(cli, ["olap", "relay", "--ready-files", "x"])
    with pytest.raises(click.UsageError):
        require_options(cli, ["olap", "relais"])
