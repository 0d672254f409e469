"""The deployment kit as its readers see it: interpolated, merged, and reduced to what the tests ask for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "docker-compose.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
MOZART_IMAGE = "mozart"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z0-9_]+)(?:(?P<kind>:[-?])(?P<text>[^}]*))?\})")
_OF_TRINO = re.compile(r"\$\{ENV:([A-Z0-9_]+)\}")

Service = Mapping[str, Any]


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors merged, not interpolated."""
    return yaml.safe_load(COMPOSE.read_text())


def services() -> dict[str, Service]:
    return compose()["services"]


def mozart_services() -> dict[str, Service]:
    """Those that run Mozart's own image."""
    return {name: service for name, service in services().items() if service["image"].split(":")[0] == MOZART_IMAGE}


def runs_once(service: Service) -> bool:
    return service.get("restart") == "no"


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """As Compose does; KeyError for a variable that must be set and is not."""

    def value(match: re.Match[str]) -> str:
        name, kind = match["name"], match["kind"]
        if name is None:
            return "$"
        if values.get(name):
            return values[name]
        if kind == ":-":
            return match["text"]
        raise KeyError(f"{name} must be set: {match['text']}")

    return _VARIABLE.sub(value, text)


def variables(tree: Any) -> Iterator[tuple[str, str | None, str]]:
    """(name, `:-` or `:?` or None, text) of every variable in a tree of YAML."""
    for text in texts(tree):
        for match in _VARIABLE.finditer(text):
            if match["name"]:
                yield match["name"], match["kind"], match["text"] or ""


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value)


def config_text(name: str, values: Mapping[str, str]) -> str:
    """The content of one of the file's `configs`, as the container finds it."""
    return interpolate(compose()["configs"][name]["content"], values)


def trino_variables() -> set[str]:
    """What the files in docker/trino take from the environment."""
    files = [path for path in (ROOT / "docker" / "trino").rglob("*") if path.is_file()]
    found = {name for path in files for name in _OF_TRINO.findall(path.read_text())}
    return found | set(re.findall(r"\$\{(TRINO_[A-Z_]+)\}", (ROOT / "docker" / "trino" / "health-check").read_text()))


def programs(command: Any) -> Iterator[list[str]]:
    """The program calls in a command: itself, or what stands in a `sh -c` text, split at `&&` and without `exec`."""
    words = [str(word) for word in (command if isinstance(command, list) else shlex.split(str(command)))]
    if words[:2] == ["sh", "-c"]:
        for part in words[2].split("&&"):
            yield [word for word in shlex.split(part.strip()) if word != "exec"]
    elif words[:1] == ["CMD-SHELL"]:
        yield shlex.split(words[1])
    elif words[:1] == ["CMD"]:
        yield words[1:]
    else:
        yield words


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Every YAML document of deploy/kubernetes, by file name."""
    return {path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted(KUBERNETES.glob("*.yaml"))}
