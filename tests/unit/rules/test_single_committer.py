"""Only `mozart.lake.commit` writes the lake's tables: no pyiceberg write, and no DuckDB write on the attached lake.

A commit elsewhere would carry no record, could be rebased onto a head it was not planned on, and, from DuckDB, has
deleted the files of a commit whose reply was lost. What is looked for, in every Python and SQL file of the project:
- pyiceberg's writing machinery being imported, and writing methods called on what is a table or a catalog;
- SQL that changes `lake.…`, written out or put together with LAKE.
Not seen: SQL whose catalog only a variable names, and writes hidden behind getattr.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCANNED = ("src", "flows", "tasks", "blocks", "dbt", "tenants")
COMMITTERS = {f"src/mozart/lake/{name}.py" for name in ("commit", "snapshots", "schema_plan")}

# In the dbt process `lake` is a database in memory that holds views on pinned snapshots; no catalog is attached.
MEMORY_LAKE = "src/mozart/engine/dbt_plugin.py"
_ALLOWED_IN_MEMORY = re.compile(r"changes the lake in SQL: CREATE (SCHEMA|VIEW)\b")

# Nothing but an Iceberg table or catalog has these methods.
WRITES = {
    "add_files", "create_table", "create_table_if_not_exists", "create_table_transaction", "commit_table",
    "dynamic_partition_overwrite", "manage_snapshots", "overwrite", "register_table", "update_snapshot", "update_spec",
    "update_sort_order", "upsert",
}  # fmt: skip
# Lists, databases and file systems have these too: they count on what is known to be a table.
TABLE_WRITES = {"append", "delete", "transaction", "update_schema"}
WRITING_MODULES = ("pyiceberg.table.update", "pyiceberg.manifest")
WRITING_NAMES = {"Transaction", "CreateTableTransaction"}
# What describes files and writes none; maintenance reads manifests by it.
READING_NAMES = {"DataFile", "DataFileContent", "ManifestContent", "ManifestFile"}

_CHANGES = (
    r"(insert\s+(or\s+\w+\s+)?into|merge\s+into|update|delete\s+from|truncate(\s+table)?|copy\s+from\s+database"
    r"|alter\s+table(\s+if\s+exists)?|(drop|comment\s+on)\s+(table|view|schema)(\s+if\s+exists)?"
    r"|create(\s+or\s+replace)?\s+(table|view|schema)(\s+if\s+not\s+exists)?)"
)
_LAKE = r"""("?lake"?|⟨[^⟩]*\bLAKE\b[^⟩]*⟩|⟨[^⟩]*\(\s*["']lake["'][^⟩]*⟩)"""
LAKE_SQL = re.compile(rf"\b{_CHANGES}\s+{_LAKE}\s*(\.|⟨|$|\s|\()|set_iceberg_table_properties\s*\(", re.IGNORECASE)


def offences(path: str, source: str) -> list[str]:
    """What in this file writes the lake, as `path:line: what`."""
    if path in COMMITTERS:
        return []
    if not path.endswith(".py"):
        return [f"{path}:{line}: {text}" for line, text in _sql_offences(source, 1)]
    tree = ast.parse(source)
    found = [*_imports(tree), *_calls(tree)]
    for line, text in _texts(tree):
        found.extend(_sql_offences(text, line))
    if path == MEMORY_LAKE:
        found = [(line, text) for line, text in found if not _ALLOWED_IN_MEMORY.match(text)]
    return [f"{path}:{line}: {text}" for line, text in sorted(set(found))]


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyiceberg"):
            module = node.module or ""
            imported = {alias.name for alias in node.names}
            names = imported & WRITING_NAMES
            if (module.startswith(WRITING_MODULES) and imported - READING_NAMES) or names:
                yield node.lineno, f"imports {module} ({', '.join(sorted(names)) or 'all of it writes'})"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(WRITING_MODULES):
                    yield node.lineno, f"imports {alias.name}"


def _calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    tables = _table_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, receiver = node.func.attr, node.func.value
        if name in WRITES or (name in TABLE_WRITES and _is_table(receiver, tables)):
            yield node.lineno, f"calls {ast.unparse(node.func)}()"


def _table_names(tree: ast.AST) -> set[str]:
    """Names that are bound to a table: by load_table, from a head, or by their annotation."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_table(node.value, found):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.NamedExpr) and _is_table(node.value, found):
            found.add(node.target.id)
        elif isinstance(node, ast.arg) and node.annotation and _names_table(node.annotation):
            found.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _names_table(node.annotation):
            found.add(node.target.id)
    return found


def _names_table(annotation: ast.expr) -> bool:
    return re.search(r"(^|[\s|\[.])Table($|[\s|\]])", ast.unparse(annotation).strip("'\"")) is not None


def _is_table(node: ast.expr, tables: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in tables
    if isinstance(node, ast.Attribute):
        return node.attr == "table" and ast.unparse(node.value).split(".")[-1].endswith("head")
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load_table"


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string of the program but documentation; an f-string with its expressions between ⟨ and ⟩."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(_part(value) for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | prose:
            yield node.lineno, node.value


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.FormattedValue):
        return f"⟨{ast.unparse(value.value)}⟩"
    return str(value.value) if isinstance(value, ast.Constant) else ""


def _sql_offences(text: str, first_line: int) -> Iterator[tuple[int, str]]:
    for match in LAKE_SQL.finditer(text):
        line = first_line + text[: match.start()].count("\n")
        yield line, f"changes the lake in SQL: {' '.join(match.group().split())}"


def project_files() -> list[Path]:
    return [
        path
        for folder in SCANNED
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".sql") and not {"target", "dbt_packages", "__pycache__"} & set(path.parts)
    ]


def test_nobody_else_writes_the_lake() -> None:
    sources = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in project_files()}
    found = [line for path, source in sources.items() for line in offences(path, source)]
    assert not found, "only mozart.lake.commit may write the lake's tables:\n" + "\n".join(found)


def test_the_committers_exist_and_would_be_found() -> None:
    for path in COMMITTERS:
        source = (ROOT / path).read_text("utf-8")
        assert offences("src/elsewhere.py", source), f"{path} does not write any more; take it from the list"


def test_the_lake_in_memory_is_in_memory() -> None:
    source = (ROOT / MEMORY_LAKE).read_text("utf-8")
    assert "ATTACH ':memory:' AS" in source and "attach_lake(" not in source and "TYPE iceberg" not in source
    assert offences(MEMORY_LAKE, "c.execute(f'INSERT INTO {quote_qualified(LAKE, a, b)} SELECT 1')")


VIOLATIONS = {
    "manifest writer": "from pyiceberg.manifest import DataFile, write_manifest",
    "append": "t = catalog.load_table('a.b')\nt.append(frame)",
    "chained": "catalog.load_table(('a', 'b')).append(frame)",
    "walrus": "if (t := catalog.load_table('a.b')):\n    t.delete('x = 1')",
    "parameter": "def f(table: Table) -> None:\n    table.append(frame)",
    "optional parameter": "def f(table: 'Table | None') -> None:\n    table.transaction()",
    "head": "head.table.append(frame)",
    "overwrite": "anything.overwrite(frame)",
    "create": "catalog.create_table('a.b', schema)",
    "stage": "catalog.create_table_transaction('a.b', schema)",
    "add files": "transaction.add_files(paths)",
    "import": "from pyiceberg.table.update.snapshot import _FastAppendFiles",
    "transaction": "from pyiceberg.table import Table, Transaction",
    "insert": "c.execute('INSERT INTO lake.ns.t SELECT 1')",
    "merge": "c.execute('''\n merge  into\n \"lake\".ns.t using d''')",
    "ctas": "c.execute('create or replace table lake.ns.t as select 1')",
    "ddl": "c.execute('DROP TABLE IF EXISTS lake.a.b')",
    "schema": "c.execute('create schema if not exists lake.cc')",
    "constant": "c.execute(f'DELETE FROM {LAKE}.ns.t')",
    "quoted": "c.execute(f'INSERT INTO {quote_qualified(LAKE, ns, name)} SELECT 1')",
    "literal": "c.execute(f'UPDATE {quote_qualified(\"lake\", ns, name)} SET a = 1')",
    "properties": "c.execute(f\"call set_iceberg_table_properties('lake.a.b', {{}})\")",
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_found(name: str) -> None:
    assert offences("tasks/lake.py", VIOLATIONS[name]), VIOLATIONS[name]


INNOCENT = {
    "manifest reading": "from pyiceberg.manifest import DataFile, DataFileContent",
    "lists": "rows = []\nrows.append(1)\nfiles.delete(path)\nconnection.transaction()",
    "reading": "t = catalog.load_table('a.b')\nt.scan().to_arrow()\nt.maintenance.expire_snapshots()",
    "reading SQL": "c.execute('SELECT * FROM lake.ns.t AT (VERSION => 1)')",
    "copy": "c.execute(\"COPY (SELECT * FROM lake.ns.t) TO 's3://x' (FORMAT parquet)\")",
    "elsewhere": "c.execute('create table lake_copy as select * from lake.ns.t')\nc.execute('insert into t select 1')",
    "memory": "c.execute(f'CREATE TABLE {name} AS SELECT * FROM {quote_qualified(LAKE, ns, t)}')",
    "prose": '"""Never INSERT INTO lake.x: see commit."""\ndef f():\n    "delete from lake.x"',
    "types": "from pyiceberg.table import Table\nfrom pyiceberg.schema import Schema",
    "other": "self.tables.append(name)\ntables_of(x).append(1)",
}


@pytest.mark.parametrize("name", INNOCENT)
def test_the_innocent_are_left_alone(name: str) -> None:
    assert offences("tasks/lake.py", INNOCENT[name]) == []


def test_sql_files_are_read_too() -> None:
    assert offences("dbt/macros/publish.sql", "select 1;\ninsert into lake.{{ schema }}.t select 2") == [
        "dbt/macros/publish.sql:2: changes the lake in SQL: insert into lake."
    ]
    assert offences("tenants/acme/models/stg.sql", "select * from {{ source('acme_raw', 'lake') }}") == []
