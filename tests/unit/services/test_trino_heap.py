"""The heap of the local Trino: that of `docker/trino/jvm.config` or the caller's, and a query's share of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from mozart.errors import ConfigurationError
from mozart.lake.lakehouse import Lakehouse
from mozart.services import trino
from mozart.services.ledger import Ledger
from mozart.services.process import Command
from mozart.services.trino import Trino
from mozart.services.trino_heap import read_heap_mb

CONFIG = Path(__file__).parents[3] / "docker" / "trino"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configuration of the images, on a machine that has a Java for it."""
    monkeypatch.setattr(trino, "find_java", lambda: Path("java"))
    return Path(shutil.copytree(CONFIG, tmp_path / "trino"))


def _server(config: Path, heap_mb: int | None = None) -> Trino:
    state = config.parent / "state"
    (state / "trino").mkdir(parents=True, exist_ok=True)
    lake = Lakehouse(
        s3_endpoint="http://127.0.0.1:1",
        catalog_uri="http://127.0.0.1:2",
        access_key_id="id",
        secret_access_key=SecretStr("secret"),
    )
    home = config.parent / "home"
    return Trino(
        Ledger(state), lakehouse=lake, home=home, config=config, port=3, inner_port=4, password="p", heap_mb=heap_mb
    )


def _heaps(command: Command) -> list[str]:
    return [word for word in command.arguments if word.startswith("-Xmx")]


def _query_memory(command: Command) -> str:
    return command.environment["TRINO_QUERY_MEMORY_PER_NODE"]


def test_without_a_wish_it_is_the_one_of_the_images(config: Path) -> None:
    command = _server(config).command()
    assert (_heaps(command), _query_memory(command)) == (["-Xmx1024M"], "512MB")
    assert read_heap_mb(config / "jvm.config") == 1024


def test_a_larger_one_changes_nothing_else(config: Path) -> None:
    usual, larger = _server(config).command(), _server(config, heap_mb=4096).command()
    assert (_heaps(larger), _query_memory(larger)) == (["-Xmx4096M"], "2048MB")
    assert [*larger.arguments[:2], *larger.arguments[3:]] == [*usual.arguments[:2], *usual.arguments[3:]]
    assert usual.arguments[2] == "-Xmx1024M"


def test_a_query_follows_the_file(config: Path) -> None:
    file = config / "jvm.config"
    file.write_text(file.read_text().replace("-Xmx1G", "# so much:\n  -Xmx1536m"))
    command = _server(config).command()
    assert (_heaps(command), _query_memory(command)) == (["-Xmx1536M"], "768MB")


@pytest.mark.parametrize("line", ["", "#-Xmx1G", "-Xmx1G\n-Xmx2G", "-Xmxlarge"])
def test_a_file_that_does_not_say_it_once_is_named_before_the_start(config: Path, line: str) -> None:
    file = config / "jvm.config"
    file.write_text(file.read_text().replace("-Xmx1G", line))
    with pytest.raises(ConfigurationError, match=r"jvm\.config: one line must say how large the heap is"):
        _server(config).require()
