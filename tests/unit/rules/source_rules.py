"""The rules of Python modules. A rule takes a file and gives its violations as lines; no violation, no lines."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from project_files import SourceFile

Rule = Callable[[SourceFile], list[str]]

LONGEST_MODULE = 600
PRODUCT = ("src", "flows", "tasks", "blocks", "samples")
_VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}

# Who may not be imported by whom, by top of the dotted name. `core` is every other part of mozart.
_ABOVE: dict[str, tuple[str, ...]] = {
    "core": ("prefect", "flows", "tasks", "blocks", "mozart.fleet", "mozart.cli"),
    "blocks": ("flows", "tasks", "mozart.fleet", "mozart.cli"),
    "tasks": ("flows", "mozart.fleet", "mozart.cli"),
    "flows": ("mozart.fleet", "mozart.cli"),
    "fleet": ("flows", "tasks", "mozart.cli"),
    "cli": ("flows", "tasks"),
    "plan": ("prefect", "flows", "tasks", "blocks", "mozart.cli"),
}
_PURE_FLEET = {"mozart.fleet.plan", "mozart.fleet.prefect_yaml"}

_SQL = re.compile(
    r"^\s*(select\s.+\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s|merge\s+into\s|with\s+\w+\s+as\s*\("
    r"|create\s+(or\s+replace\s+)?(table|view|materialized|schema|index)\s|drop\s+(table|view|schema)\s|refresh\s+materialized"
    r"|truncate\s|alter\s+table\s)",
    re.IGNORECASE | re.DOTALL,
)
_IO_MODULES = {
    *("os", "pathlib", "io", "shutil", "tempfile", "subprocess", "socket", "sqlite3", "ssl", "urllib", "http"),
    *("requests", "httpx", "aiohttp", "psycopg", "duckdb", "redis", "boto3", "botocore", "pyiceberg", "pyarrow"),
    *("polars", "trino", "sqlalchemy", "yaml", "dotenv"),
}
# The functions that put quotes around values of other languages than SQL: Valkey's configuration, CSV.
_QUOTES_NO_SQL = {("src/mozart/services/valkey.py", "_quote"), ("src/mozart/cli/query.py", "_csv_field")}
# Text around a value that makes it SQL: its words, or nothing but the quotes, dots and commas of a qualified name.
_SQL_TEXT = re.compile(
    r"\b(select|from|join|where|table|schema|index|view|column|into|update|set|on|as|by|with|role|database|grant|to)\b"
    r"|\A[\s\".,()]*\Z",
    re.IGNORECASE,
)
_IO_CALLS = {"open", "print", "input", "exec", "eval"}


def area(file: SourceFile) -> str | None:
    """The layer a file belongs to; None for tests, benchmarks and the like."""
    if file.parts[0] in ("flows", "tasks", "blocks"):
        return file.parts[0]
    if file.parts[0] != "src":
        return None
    if file.module in _PURE_FLEET:
        return "plan"
    package = file.module.split(".")[1:2]
    return package[0] if package in (["fleet"], ["cli"]) else "core"


def imports_go_one_way(file: SourceFile) -> list[str]:
    """flows → tasks → blocks → core; fleet and cli on top, naming flows only by entrypoint."""
    layer = area(file)
    banned = _ABOVE.get(layer or "", ())
    return [
        f"{file.path}:{line}: {layer} must not import {name}"
        for line, name in imported(file)
        if any(name == top or name.startswith((f"{top}.", f"{top}_")) for top in banned)
    ]


def imported(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Every import with its line, wherever it stands: relative ones resolved, `import_module("…")` too."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(file, node)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called_name(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def _absolute(file: SourceFile, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = file.module.split(".")
    if not file.path.endswith("__init__.py"):
        package = package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _called_name(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def flows_only_orchestrate(file: SourceFile) -> list[str]:
    """A file of flows has no SQL, no classes and no I/O of its own."""
    if area(file) != "flows":
        return []
    found: list[str] = []
    docstrings = _docstrings(file.tree)
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ClassDef):
            found.append(f"{file.path}:{node.lineno}: class {node.name} belongs into tasks or the core")
        elif isinstance(node, ast.Constant) and node not in docstrings and _SQL.match(_text(node)):
            found.append(f"{file.path}:{node.lineno}: SQL belongs into the core")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _IO_CALLS:
            found.append(f"{file.path}:{node.lineno}: {node.func.id}() is I/O; it belongs into a task")
    found += [
        f"{file.path}:{line}: {name} does I/O; it belongs into a task"
        for line, name in imported(file)
        if name.split(".")[0] in _IO_MODULES
    ]
    return found


def _docstrings(tree: ast.Module) -> set[ast.AST]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }


def flows_are_async(file: SourceFile) -> list[str]:
    """A sync flow waits a second at its end for the heartbeat thread."""
    if area(file) != "flows":
        return []
    return [
        f"{file.path}:{node.lineno}: flow {node.name} must be async"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef) and any(_is_flow(decorator) for decorator in node.decorator_list)
    ]


def _is_flow(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")) == "flow"


def modules_are_short(file: SourceFile) -> list[str]:
    lines = (file.text or "").count("\n")
    if file.parts[0] not in PRODUCT or lines <= LONGEST_MODULE:
        return []
    return [f"{file.path}: {lines} lines; {LONGEST_MODULE} is the most"]


def names_say_what_is_inside(file: SourceFile) -> list[str]:
    parts = {part.removesuffix(".py") for part in file.parts}
    return [f"{file.path}: {name} says nothing; name the thing" for name in sorted(parts & _VAGUE_NAMES)]


def environment_is_not_read_at_import(file: SourceFile) -> list[str]:
    """What is read at import cannot be set by a test, and is read by everyone who imports."""
    if file.parts[0] not in PRODUCT:
        return []
    readers = ("environ", "environb", "getenv", "load_dotenv", "dotenv_values", "load_settings")
    return [
        f"{file.path}:{node.lineno}: {name} is read at import"
        for node in _run_at_import(file.tree)
        if isinstance(node, ast.Attribute | ast.Name)
        and (name := node.attr if isinstance(node, ast.Attribute) else node.id) in readers
    ]


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes evaluated when the module is imported: all but the bodies of functions and annotations."""
    yield node
    if isinstance(node, ast.Lambda):
        children: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        if child is not None:
            yield from _run_at_import(child)


def public_things_have_docstrings(file: SourceFile) -> list[str]:
    """Every module of the product; every public function and class of the core."""
    if file.parts[0] not in PRODUCT or not (file.text or "").strip():
        return []
    found = [] if ast.get_docstring(file.tree) else [f"{file.path}:1: the module has no docstring"]
    if area(file) in (None, "flows"):
        return found
    return found + [
        f"{file.path}:{node.lineno}: {node.name} has no docstring"
        for node in file.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]


def identifiers_are_quoted_in_one_place(file: SourceFile) -> list[str]:
    """No f-string or concatenation that puts a value between double quotes; `mozart.sql.quote_identifier` does."""
    if file.parts[0] not in PRODUCT or file.path == "src/mozart/sql.py":
        return []
    message = "quotes an identifier by hand; use mozart.sql.quote_identifier"
    exempt = {
        inner
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef) and (file.path, node.name) in _QUOTES_NO_SQL
        for inner in ast.walk(node)
    }
    return [
        f"{file.path}:{node.lineno}: {message}"
        for node in ast.walk(file.tree)
        if node not in exempt and _quotes_by_hand(node)
    ]


def _quotes_by_hand(node: ast.AST) -> bool:
    return (
        (isinstance(node, ast.JoinedStr) and _wraps_a_value(node))
        or (isinstance(node, ast.BinOp) and _wraps_by_adding(node))
        or (isinstance(node, ast.Call) and _doubles_quotes(node))
    )


def _wraps_a_value(node: ast.JoinedStr) -> bool:
    if not _SQL_TEXT.search("".join(_text(part) for part in node.values)):
        return False
    return any(
        _text(before).endswith('"') and isinstance(value, ast.FormattedValue) and _text(after).startswith('"')
        for before, value, after in zip(node.values, node.values[1:], node.values[2:], strict=False)
    )


def _wraps_by_adding(node: ast.BinOp) -> bool:
    left = node.left
    is_outer = isinstance(node.op, ast.Add) and isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add)
    return is_outer and _text(node.right).startswith('"') and _text(left.left).endswith('"')  # type: ignore[union-attr]


def _doubles_quotes(node: ast.Call) -> bool:
    return _called_name(node) == "replace" and [_text(argument) for argument in node.args[:2]] == ['"', '""']


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        imports_go_one_way,
        flows_only_orchestrate,
        flows_are_async,
        modules_are_short,
        names_say_what_is_inside,
        environment_is_not_read_at_import,
        public_things_have_docstrings,
        identifiers_are_quoted_in_one_place,
    )
}
