"""The process in which dbt checks one tenant's models on empty tables: `python -m mozart.engine.validate_child`.

Started by `mozart.engine.validate_models` only, over the same pipe and in the same words as `mozart.engine.dbt_child`;
what differs is that it serves any number of requests until its input ends: `parse` → `parsed`, `build` → `result` per
node → `built`, or `failed`. It needs no lake and no credentials, and connects to nothing.

A model that failed is planned once more, alone: DuckDB's message for the whole statement that dbt runs counts lines of
the statement, not of the model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mozart.engine.dbt_child import (
    EXIT_DBT_FAILED,
    Emit,
    close_candidates,
    common_arguments,
    die_with_parent,
    failure_reason,
    parse,
    result_event,
    take_over_stdout,
)
from mozart.engine.duckdb import Limits

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

_LINE = re.compile(r"\n+LINE (\d+):")


def main() -> int:
    """Serve one parent until it closes its end. Returns the exit code."""
    die_with_parent()
    emit = take_over_stdout()
    manifest: Manifest | None = None
    request: dict[str, Any] = {}
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        if message["do"] == "parse":
            request = message
            manifest = parse(request, emit)
        elif manifest is None:
            return EXIT_DBT_FAILED
        else:
            _build(request, message, manifest, emit)
    return 0


def _build(request: Mapping[str, Any], build: Mapping[str, Any], manifest: Manifest, emit: Emit) -> None:
    from dbt.cli.main import dbtRunner  # noqa: PLC0415 - after the request, as in dbt_child

    from mozart.engine.dbt_plugin import EmptyTable, Session, open_session  # noqa: PLC0415 - imports dbt

    tables = tuple(EmptyTable(t["schema"], t["table"], tuple(map(tuple, t["columns"]))) for t in build["tables"])
    limits = Limits(build["memory"], int(build["threads"]), Path(build["spill"]))
    open_session(Session(None, Path(build["candidates"]), tables, limits))
    arguments = ["build", *common_arguments(request), "--threads", str(int(build["threads"])), "--no-write-json"]
    selection = ["--select", *build["select"], *(["--exclude", *build["exclude"]] if build["exclude"] else [])]
    outcome = dbtRunner(manifest=manifest).invoke([*arguments, *selection])
    results: Sequence[Any] | None = getattr(outcome.result, "results", None)
    if results is None:
        emit({"event": "failed", "stage": "build", "message": failure_reason(outcome.exception)})
        return
    for result in results:
        emit({**result_event(result), **_located(result)})
    close_candidates()
    emit({"event": "built"})


def _located(result: Any) -> dict[str, Any]:
    """What DuckDB says of the model's own SQL, with the line in it; nothing where that SQL can be planned."""
    sql = getattr(result.node, "compiled_code", None)
    if str(result.status) != "error" or not sql:
        return {}
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415

    try:
        handle: Any = DuckDBConnectionManager.env().handle()
        handle.cursor().execute(f"EXPLAIN {sql}")
    except duckdb.Error as error:
        text = str(error)
        found = _LINE.search(text)
        return {"compiled": sql, "line": int(found[1]) if found else None, "plain": _LINE.split(text)[0]}
    return {"compiled": sql}


if __name__ == "__main__":
    sys.exit(main())
