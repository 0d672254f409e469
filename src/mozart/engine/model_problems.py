"""What dbt and DuckDB say about a model, as lines a tenant's engineer can act on: file, line, message.

Pure. dbt's texts are made for a terminal: a heading, an indented message, a table for a broken contract, and a pointer
into the statement it ran. Line numbers are those of the model's file: the compiled SQL is laid beside the source, and
where a template grew lines the nearest line before them is named.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mozart.engine.dbt_verdict import one_line
from mozart.errors import Problem
from mozart.tenancy.model_folder import ModelFile, ModelFolder
from mozart.tenancy.model_properties import DeclaredModel

_HEADING = re.compile(
    r"\A\s*(?:[A-Z]\w*Error: )?\s*(?:[A-Z][a-z]+ )+Error(?: in [\w ]+ \S+ \([^)]*\))?:?\s*\n", re.ASCII
)
_POINTER = re.compile(r"\n+\s*LINE \d+:.*\Z", re.DOTALL)
_TRAILER = re.compile(r"\n+\s*(?:> in macro|> called by|compiled code at|in macro ).*\Z", re.DOTALL | re.IGNORECASE)
_CONTRACT_ROW = re.compile(r"^\s*\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|\s*$", re.MULTILINE)
_TENANT_FILE = re.compile(r"(tenants/[a-z][a-z0-9_]*/models/[^\s'\"()]+?\.(?:sql|yml|yaml))")
_LINE = re.compile(r"\bline (\d+)")
_CONTRACT = "enforced contract"


def build_problems(folder: ModelFolder, model: ModelFile, event: Mapping[str, Any]) -> list[Problem]:
    """The mistakes of one model that could not be built; `event` is the child's result of it."""
    message = str(event.get("message") or "")
    if event.get("plain"):
        line = source_line(model.text, str(event.get("compiled") or ""), event.get("line"))
        return [_at(model.file, line, one_line(str(event["plain"])))]
    if _CONTRACT in message:
        found = list(_contract_problems(folder, model, message))
        if found:
            return found
    return [_at(model.file, _named_line(message) or 1, plain_message(message))]


def test_problem(folder: ModelFolder, file: str, name: str, model: str | None, event: Mapping[str, Any]) -> Problem:
    """A data test that could not be run; `model` is the one it was written for."""
    declared = folder.declared.get(model or "")
    text = str(event.get("plain") or "") or plain_message(str(event.get("message") or ""))
    line = declared.line if declared and declared.file == file else 0
    return _at(file, line, f"test {name} cannot run: {one_line(text)}")


def parse_problem(tenant_id: str, message: str) -> tuple[Problem, str | None]:
    """dbt's refusal to parse, and the file of the tenant's that it blames, where it names one."""
    found = _TENANT_FILE.search(message)
    file = found[1] if found and found[1].startswith(f"tenants/{tenant_id}/") else None
    text = plain_message(message)
    if file is None:
        return Problem(f"tenants/{tenant_id}/models", "", f"dbt cannot parse it: {text}"), None
    return _at(file, _named_line(message) or 1, text), file


def plain_message(message: str) -> str:
    """dbt's message without its heading, its pointer into the compiled statement and its list of callers."""
    text = _POINTER.sub("", message)
    text = _TRAILER.sub("", text)
    for _ in range(3):
        text = _HEADING.sub("", text)
    return one_line(text.replace("../tenants/", "tenants/")) or "dbt gave no reason"


def source_line(source: str, compiled: str, line: int | None) -> int:
    """The line of the model's file that line `line` of its compiled SQL comes from; 1 when nobody knows."""
    if line is None:
        return 1
    before, after = source.splitlines(), compiled.splitlines()
    matcher = difflib.SequenceMatcher(
        None, [text.rstrip() for text in before], [text.rstrip() for text in after], False
    )
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        if j1 <= line - 1 < j2:
            return min(i1 + (line - 1 - j1), max(i2 - 1, i1), max(len(before) - 1, 0)) + 1
    return max(len(before), 1)


def column_line(model: ModelFile, column: str) -> int:
    """The last line of a model that names the column: where its final SELECT makes it; 1 when none does."""
    word = re.compile(rf"(?<![\w]){re.escape(column)}(?![\w])", re.IGNORECASE)
    lines = [number for number, text in enumerate(model.text.splitlines(), 1) if word.search(text)]
    return lines[-1] if lines else 1


def _contract_problems(folder: ModelFolder, model: ModelFile, message: str) -> Iterator[Problem]:
    """dbt's table of mismatches, a line each."""
    declared = folder.declared.get(str(model.name))
    for match in _CONTRACT_ROW.finditer(message):
        column, found, wanted, reason = (part.strip() for part in match.groups())
        if column in ("", "column_name") or set(column) <= {"-", " "}:
            continue
        if "missing in definition" in reason:
            yield _at(*_declared_place(model, declared, column), f"column {column} is declared but not selected")
        elif "missing in contract" in reason:
            yield _at(model.file, column_line(model, column), f"column {column} is selected but not declared")
        else:
            text = f"column {column} is {found or 'of another type'}; its contract says {wanted}"
            yield _at(model.file, column_line(model, column), text)


def _declared_place(model: ModelFile, declared: DeclaredModel | None, column: str) -> tuple[str, int]:
    entry = declared.column(column) if declared else None
    return (declared.file, entry.line) if declared and entry else (model.file, 1)


def _named_line(message: str) -> int | None:
    found = _LINE.search(message)
    return int(found[1]) if found else None


def _at(file: str, line: int, message: str) -> Problem:
    return Problem(f"{file}:{line}" if line else file, "", message)
