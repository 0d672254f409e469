"""The rules of files, whatever is in them. A rule takes a file and gives its violations as lines."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable
from functools import cache

from project_files import SourceFile

Rule = Callable[[SourceFile], list[str]]

LARGEST_FILE = 600_000
# Put together, so that this file does not break its own rules.
_MACHINE_PATH = re.compile(
    r"(?<![\w.~$}>:/-])/(?:" + "|".join(("home", "root", "Users", "work", "mnt")) + r")/[\w.-]{2,}"
)
_LEFTOVER = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_INDEX_OPTION = re.compile(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host|--no-index)\b")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[^\s;]+( ; .+)?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def files_are_small(file: SourceFile) -> list[str]:
    size = len(file.content)
    return [f"{file.path}: {size} bytes; {LARGEST_FILE} is the most"] if size > LARGEST_FILE else []


def no_path_of_a_machine(file: SourceFile) -> list[str]:
    """A path of somebody's machine works on that machine only. A name of one letter is an example."""
    return _matching_lines(file, _MACHINE_PATH, "is a path of one machine")


def nothing_is_left_for_later(file: SourceFile) -> list[str]:
    """What is not done is in an issue, not in the code."""
    return _matching_lines(file, _LEFTOVER, "do it or open an issue")


def dbt_holds_no_python(file: SourceFile) -> list[str]:
    """`dbt/__init__.py` would hide the installed dbt from every worker."""
    if file.parts[0] == "dbt" and file.is_python:
        return [f"{file.path}: the dbt project holds no Python; put it into mozart.engine"]
    return []


def nothing_hides_an_installed_module(file: SourceFile) -> list[str]:
    """A file entrypoint puts `flows/` and the project's root first on sys.path."""
    name = _importable_name(file)
    if name and name in _installed_names():
        return [f"{file.path}: hides the installed module {name!r}; choose another name"]
    return []


def _importable_name(file: SourceFile) -> str | None:
    parts = file.parts[1:] if file.parts[0] == "flows" and len(file.parts) > 1 else file.parts
    if file.is_python and len(parts) == 1 and parts[0] != "__init__.py":
        return parts[0].removesuffix(".py")
    return parts[0] if len(parts) == 2 and parts[1] == "__init__.py" else None


@cache
def _installed_names() -> frozenset[str]:
    packages = importlib.metadata.packages_distributions()
    others = {name for name, owners in packages.items() if set(owners) != {"mozart"}}
    return frozenset(others | set(sys.stdlib_module_names))


def lock_files_hold_names_and_hashes_only(file: SourceFile) -> list[str]:
    """An address would tie an installation to one machine's registry; a missing hash would trust any."""
    if file.parts[0] != "requirements" or not file.path.endswith(".txt"):
        return []
    found: list[str] = []
    logical = re.sub(r"\\\n", " ", file.text or "")
    for line in (line.strip() for line in logical.splitlines()):
        if not line or line.startswith("#"):
            if "://" in line:
                found.append(f"{file.path}: an address in {line!r}")
            continue
        requirement = line.split(" --hash")[0].strip()
        if "://" in line or _INDEX_OPTION.match(line):
            found.append(f"{file.path}: an address or an index option in {requirement!r}")
        elif not _PINNED.fullmatch(requirement):
            found.append(f"{file.path}: {requirement!r} is not pinned")
        elif not _HASH.search(line):
            found.append(f"{file.path}: {requirement!r} has no hash")
    return found


def _matching_lines(file: SourceFile, pattern: re.Pattern[str], message: str) -> list[str]:
    lines = (file.text or "").splitlines()
    return [
        f"{file.path}:{number}: {match.group()!r} {message}"
        for number, line in enumerate(lines, 1)
        if (match := pattern.search(line))
    ]


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        files_are_small,
        no_path_of_a_machine,
        nothing_is_left_for_later,
        dbt_holds_no_python,
        nothing_hides_an_installed_module,
        lock_files_hold_names_and_hashes_only,
    )
}
