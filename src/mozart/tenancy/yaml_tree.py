"""A YAML file as a tree whose every node knows its line, read from hostile hands.

Not a general YAML reader: one document of mappings with text keys, lists and scalars. Anchors, aliases, tags and
merge keys are refused, and with them every known way to make a small file grow or run code. Files are bounded in size,
depth and number of nodes, and every mistake becomes a `Problem` with a line; no input raises.

Pitfalls: scalars are told apart as every YAML 1.1 reader does (`no` is a boolean, `0 2` text, `2024-01-01` a date);
a field that wants text says so instead of taking a value that other tools would read differently. No message holds a
scalar's value, for it may be a password.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mozart.errors import Problem

LARGEST_FILE = 1_048_576
DEEPEST = 16
MOST_NODES = 100_000

Kind = Literal["text", "integer", "number", "boolean", "null", "timestamp"]

_KINDS: Mapping[str, Kind] = {
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:timestamp": "timestamp",
}
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Scalar:
    """One value. `text` is as written, `kind` what YAML 1.1 takes it for."""

    text: str
    kind: Kind
    line: int


@dataclass(frozen=True)
class Items:
    """A YAML list."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Section:
    """A YAML mapping; `key_lines` says where each key stands."""

    entries: Mapping[str, Node]
    key_lines: Mapping[str, int]
    line: int


Node = Scalar | Items | Section


class ProblemLog:
    """Collects the mistakes of one file, each with its line."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._noted: list[tuple[int, Problem]] = []

    def add(self, line: int, key: str, message: str) -> None:
        """Note a mistake at `line` (1 is the first; 0 when it concerns the whole file)."""
        where = f"{self.file}:{line}" if line else self.file
        self._noted.append((line, Problem(where, _short(key), _printable(message))))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All mistakes in the order of the file, without repetitions."""
        ordered = sorted(self._noted, key=lambda noted: noted[0])
        return tuple(dict.fromkeys(problem for _, problem in ordered))

    def __bool__(self) -> bool:
        return bool(self._noted)


class _Refused(Exception):  # noqa: N818 -- never leaves this module
    """The file cannot be read further; the mistake is in the log."""


def read_tree(path: Path, log: ProblemLog, *, multiline: bool = False) -> Section | None:
    """The file's root mapping, or None with the mistakes in `log`. Some mistakes leave a tree to check further.

    `multiline` allows line breaks and tabs in values, as descriptions have them.
    """
    text = _read_text(path, log)
    if text is None:
        return None
    try:
        root = _Builder(text, log, multiline=multiline).document()
    except _Refused:
        return None
    except yaml.YAMLError as error:
        _note_yaml_error(error, text, log)
        return None
    if not isinstance(root, Section):
        log.add(root.line, "", f"must be a mapping of keys at the top; is {describe(root)}")
        return None
    return root


def describe(node: Node) -> str:
    """What a node is, for messages; never its value."""
    if isinstance(node, Section):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    article = "an" if node.kind == "integer" else "a"
    return {"text": "text", "null": "empty"}.get(node.kind, f"{article} {node.kind}")


def child(path: str, key: str | int) -> str:
    """The dotted path of a key or the index of an item below `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _read_text(path: Path, log: ProblemLog) -> str | None:
    try:
        # A pipe or a device of this name would block the reader for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            log.add(0, "", "is not a regular file")
            return None
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        log.add(0, "", "does not exist; every folder of tenants/ needs one")
        return None
    except OSError as error:
        log.add(0, "", f"cannot be read: {error.strerror}")
        return None
    if len(raw) > LARGEST_FILE:
        log.add(0, "", f"is larger than {LARGEST_FILE} bytes; split the tenant or list fewer columns")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        log.add(line, "", f"is not UTF-8 (byte {error.start}); save the file as UTF-8")
        return None


def _note_yaml_error(error: yaml.YAMLError, text: str, log: ProblemLog) -> None:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        position = int(getattr(error, "position", 0))
        log.add(text.count("\n", 0, position) + 1, "", "holds a character that YAML does not allow")
        return
    line = int(mark.line) + 1
    lines = text.splitlines()
    content = lines[line - 1] if line <= len(lines) else ""
    if "\t" in content[: len(content) - len(content.lstrip())]:
        log.add(line, "", "a tab cannot indent YAML; use spaces")
        return
    problem = str(getattr(error, "problem", None) or "is not YAML")
    log.add(line, "", f"is not valid YAML here: {' '.join(_printable(problem).split())}")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


class _Builder:
    """Builds the tree from parser events: PyYAML's own composer recurses as deep as the file asks it to."""

    def __init__(self, text: str, log: ProblemLog, *, multiline: bool = False) -> None:
        self._allowed = "\n\t" if multiline else ""
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._resolver = yaml.resolver.Resolver()
        self._log = log
        self._count = 0

    def document(self) -> Node:
        self._next()
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            self._refuse(0, "", "is empty")
        root = self._node(self._next(), "", 0)
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(_line(after), "", "holds more than one YAML document; remove the '---'")
        return root

    def _next(self) -> Any:
        return next(self._events)

    def _refuse(self, line: int, key: str, message: str) -> None:
        self._log.add(line, key, message)
        raise _Refused

    def _node(self, event: Any, path: str, depth: int) -> Node:
        self._refuse_hostile(event, path, depth)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(event, path, depth)
        return self._section(event, path, depth)

    def _refuse_hostile(self, event: Any, path: str, depth: int) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            self._refuse(_line(event), "", f"holds more than {MOST_NODES} values")
        if depth > DEEPEST:
            self._refuse(_line(event), "", f"is nested more than {DEEPEST} levels deep")
        if event.anchor is not None:  # of an alias too
            self._refuse(_line(event), path, "anchors and aliases (&, *) are not allowed; write the value out")
        if event.tag is not None:
            self._refuse(_line(event), path, "tags (!) are not allowed; write a plain value")

    def _scalar(self, event: Any, path: str) -> Scalar:
        text: str = event.value
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in self._allowed for c in text):
            self._log.add(_line(event), path, "holds a line break or another control character")
        tag = self._resolver.resolve(yaml.ScalarNode, text, event.implicit)
        return Scalar(text, _KINDS.get(tag, "text"), _line(event))

    def _items(self, event: Any, path: str, depth: int) -> Items:
        nodes: list[Node] = []
        while not isinstance(item := self._next(), yaml.SequenceEndEvent):
            nodes.append(self._node(item, child(path, len(nodes)), depth + 1))
        return Items(tuple(nodes), _line(event))

    def _section(self, event: Any, path: str, depth: int) -> Section:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(key_event := self._next(), yaml.MappingEndEvent):
            key = self._node(key_event, path, depth + 1)
            value_event = self._next()
            if not isinstance(key, Scalar) or key.kind != "text":
                self._log.add(key.line, path, f"a key must be text; this one is {describe(key)}")
                self._node(value_event, path, depth + 1)
                continue
            value = self._node(value_event, child(path, key.text), depth + 1)
            if key.text in entries:
                first = lines[key.text]
                self._log.add(key.line, child(path, key.text), f"is given twice; first in line {first}")
                continue
            entries[key.text], lines[key.text] = value, key.line
        return Section(entries, lines, _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _short(path: str) -> str:
    """A path fit for one line of a message, whatever the keys of the file are."""
    text = _printable(path)
    return text if len(text) <= 120 else text[:117] + "..."
