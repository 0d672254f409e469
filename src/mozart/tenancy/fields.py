"""Typed reading of a YAML tree: every access notes its mistake with file, line and key, and none raises.

A reader asks a `Fields` for what it expects and gets the value or None; the log then holds every mistake of the file
at once. Messages quote values only where a field cannot hold a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mozart.tenancy.templates import has_template
from mozart.tenancy.yaml_tree import DECIMAL, Items, Node, ProblemLog, Scalar, Section, child, describe

LONGEST_TEXT = 1000


class Fields:
    """One mapping of the file at the dotted `path`."""

    def __init__(self, log: ProblemLog, section: Section, path: str) -> None:
        self.log = log
        self.section = section
        self.path = path

    def note(self, key: str, message: str) -> None:
        """Note a mistake at one of this mapping's keys, or at the mapping itself where the key is absent."""
        node = self.section.entries.get(key)
        line = self.section.key_lines.get(key, self.section.line)
        # A list's mistakes are found where it stands; a scalar's beside its key.
        self.log.add(node.line if isinstance(node, Scalar) else line, child(self.path, key), message)

    def has(self, key: str) -> bool:
        return key in self.section.entries

    def refuse_unknown(self, known: Sequence[str], hint: str = "") -> None:
        """Note every key that is not one of `known`, with the nearest known one or `hint`."""
        for key in self.section.entries:
            if key in known:
                continue
            shown = key if key.isprintable() and len(key) <= 60 else ascii(key)[:60]
            near = difflib.get_close_matches(key[:60], known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else hint or f"known here: {', '.join(known)}"
            line = self.section.key_lines[key]
            self.log.add(line, child(self.path, shown), f"unknown key; {cure}")

    def node(self, key: str, *, required: bool) -> Node | None:
        """The node under `key`; an empty value is a mistake, an absent key only when `required`."""
        node = self.section.entries.get(key)
        if node is None:
            if required:
                self.log.add(self.section.line, child(self.path, key), "is missing")
            return None
        if isinstance(node, Scalar) and (node.kind == "null" or not node.text.strip()):
            self.note(key, "is empty; give a value or remove the key")
            return None
        return node

    def text(self, key: str, *, required: bool = False, template: bool = False) -> str | None:
        """A text value. Numbers are text too only where `template` values are read (a port, a parameter)."""
        node = self.node(key, required=required)
        if node is None:
            return None
        return scalar_text(self.log, node, child(self.path, key), template=template)

    def whole_number(self, key: str, low: int, high: int) -> int | None:
        """A decimal integer between `low` and `high`, both inclusive."""
        node = self.node(key, required=False)
        if node is None:
            return None
        if not isinstance(node, Scalar) or node.kind != "integer" or not DECIMAL.fullmatch(node.text):
            self.note(key, f"must be a whole number; is {describe(node)}")
            return None
        if not low <= int(node.text) <= high:
            self.note(key, f"must lie between {low} and {high}")
            return None
        return int(node.text)

    def fields(self, key: str, *, required: bool = False) -> Fields | None:
        """The mapping under `key`."""
        node = self.node(key, required=required)
        if node is None:
            return None
        if not isinstance(node, Section):
            self.note(key, f"must be a mapping of keys; is {describe(node)}")
            return None
        return Fields(self.log, node, child(self.path, key))

    def items(self, key: str, *, required: bool = False) -> tuple[Node, ...] | None:
        """The items of the list under `key`; an empty list is a mistake."""
        node = self.node(key, required=required)
        if node is None:
            return None
        if not isinstance(node, Items):
            self.note(key, f"must be a list; is {describe(node)}")
            return None
        if not node.nodes:
            self.note(key, "is an empty list; name at least one or remove the key")
            return None
        return node.nodes

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of source names (columns): text, no template, none twice even if they differ by case."""
        nodes = self.items(key)
        if nodes is None:
            return None
        found: dict[str, str] = {}
        listed: set[str] = set()
        for index, node in enumerate(nodes):
            path = child(child(self.path, key), index)
            name = scalar_text(self.log, node, path)
            if name is None:
                continue
            other = found.setdefault(name.lower(), name)
            if other != name:
                self.log.add(node.line, path, f"{name!r} and {other!r} differ only by case; no engine tells them apart")
            elif name in listed:
                self.log.add(node.line, path, f"{name!r} is listed twice")
            listed.add(name)
        return tuple(found.values())


def scalar_text(log: ProblemLog, node: Node, path: str, *, template: bool = False) -> str | None:
    """The node as text, or None with the mistake noted at `path`."""
    if not isinstance(node, Scalar):
        log.add(node.line, path, f"must be text; is {describe(node)}")
        return None
    plain_number = template and node.kind == "integer" and DECIMAL.fullmatch(node.text)
    if node.kind == "null":
        log.add(node.line, path, "is empty; give a value")
    elif node.kind != "text" and not plain_number:
        log.add(node.line, path, f"must be text, but YAML reads it as {describe(node)}; put it in quotes")
    elif not node.text.strip():
        log.add(node.line, path, "is empty; give a value")
    elif node.text != node.text.strip():
        log.add(node.line, path, "begins or ends with a blank")
    elif len(node.text) > LONGEST_TEXT:
        log.add(node.line, path, f"is longer than {LONGEST_TEXT} characters")
    elif not template and has_template(node.text):
        log.add(node.line, path, "${…} is not allowed here; only in source, params, storage and iceberg")
    else:
        return node.text
    return None
