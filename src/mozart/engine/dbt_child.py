"""The process in which dbt runs for one tenant: `python -m mozart.engine.dbt_child`, started by `dbt_run` only.

It speaks JSON lines: a request on stdin, events on the descriptor that was stdout (everything dbt or a library prints
goes to stderr instead). The order is parse → `parsed` → the parent plans → build → `result` per node → `done`.
Importing dbt is most of what a small run costs, so parse and build share one process, and the build gets the parsed
manifest: there is no second parse.

The parent keeps stdin open for as long as it lives. When it ends, for whatever reason, this process ends as well: a
candidate nobody will publish is not worth the memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mozart.engine.duckdb import Limits
from mozart.engine.model_delta import mark_deltas
from mozart.lake.lakehouse import Lakehouse
from mozart.sql import quote_qualified

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

Emit = Callable[[Mapping[str, Any]], None]

EXIT_DBT_FAILED = 3
"""dbt itself refused to go on; the reason was sent as a `failed` event."""
_EXIT_ORPHANED = 4
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve one parent. Returns the exit code."""
    die_with_parent()
    emit = take_over_stdout()
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    manifest = parse(request, emit)
    if manifest is None:
        return EXIT_DBT_FAILED
    line = sys.stdin.readline()
    if not line:
        return 0  # the parent wanted the manifest only, or found nothing to build
    build: dict[str, Any] = json.loads(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return _build(request, build, manifest, emit)


def take_over_stdout() -> Emit:
    """The way to send events; from now on stdout itself goes to stderr."""
    # Private copy first: dbt, DuckDB and plugins may print, and a stray line would break the protocol.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: Mapping[str, Any]) -> None:
        text = json.dumps(event, ensure_ascii=True, default=str)
        with lock:
            channel.write(text + "\n")
            channel.flush()

    return emit


def die_with_parent() -> None:
    """Linux: the kernel kills us with the parent even while we hold the interpreter's lock in a long query."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent() -> None:
    # The descriptor, not sys.stdin: a daemon thread that holds its lock crashes the interpreter's shutdown.
    while os.read(0, 1024):
        pass
    os._exit(_EXIT_ORPHANED)  # no clean-up: the folder is removed by whoever runs this tenant next


def parse(request: Mapping[str, Any], emit: Emit) -> Manifest | None:
    """Parse as asked and say so; None after the reason was sent as a `failed` event."""
    from dbt.cli.main import dbtRunner  # noqa: PLC0415 - after the request: 2 CPU s are not spent on a parent that died
    from dbt.contracts.graph.manifest import Manifest  # noqa: PLC0415

    outcome = dbtRunner().invoke(["parse", *common_arguments(request)])
    if not outcome.success or not isinstance(outcome.result, Manifest):
        emit({"event": "failed", "stage": "parse", "message": failure_reason(outcome.exception)})
        return None
    emit({"event": "parsed"})
    return outcome.result


def _build(request: Mapping[str, Any], build: Mapping[str, Any], manifest: Manifest, emit: Emit) -> int:
    from dbt.cli.main import dbtRunner  # noqa: PLC0415

    _open_session(build, manifest)
    arguments = ["build", *common_arguments(request), "--threads", str(int(build["threads"])), "--no-write-json"]
    runner = dbtRunner(manifest=manifest, callbacks=[lambda message: _progress(message, emit)])
    outcome = runner.invoke([*arguments, "--select", *build["select"]])
    results: Sequence[Any] | None = getattr(outcome.result, "results", None)
    if results is None:
        emit({"event": "failed", "stage": "build", "message": failure_reason(outcome.exception)})
        return EXIT_DBT_FAILED
    for result in results:
        emit(result_event(result))
    if "trino" not in build:
        close_candidates()
    emit({"event": "done"})
    return 0


def _open_session(build: Mapping[str, Any], manifest: Manifest) -> None:
    """Give dbt's adapter what it may reach; which adapter it is, the profile has said."""
    mark_deltas(manifest, build["deltas"])
    if "trino" in build:
        from mozart.engine import dbt_trino  # noqa: PLC0415 - one engine's packages, not both

        _defer_to_published(manifest, build["trino"]["catalog"])
        dbt_trino.open_session(manifest, build["trino"], build["select"], build["deltas"])
        return
    from mozart.engine.dbt_plugin import (  # noqa: PLC0415 - imports dbt
        LAKE,
        DeltaPlace,
        Session,
        open_session,
        read_tables,
    )

    _defer_to_published(manifest, LAKE)
    nodes = {unique_id: manifest.nodes[unique_id] for unique_id in build["deltas"]}
    open_session(
        Session(
            lakehouse=Lakehouse(**build["lakehouse"]),
            candidates=Path(build["candidates"]),
            tables=read_tables(build["tables"]),
            limits=Limits(build["memory"], int(build["threads"]), Path(build["spill"])),
            deltas=tuple(
                DeltaPlace(node.schema, node.alias, build["deltas"][unique_id]["schema"])
                for unique_id, node in nodes.items()
            ),
        )
    )


def _defer_to_published(manifest: Manifest, catalog: str) -> None:
    """Where a unit test finds the columns of an input that has no candidate: in the published table.

    dbt asks there for nothing else, for it is not called with `--defer`.
    """
    from dbt.artifacts.resources.v1.components import DeferRelation  # noqa: PLC0415
    from dbt.contracts.graph.nodes import ModelNode  # noqa: PLC0415

    for node in manifest.nodes.values():
        if isinstance(node, ModelNode):
            node.defer_relation = DeferRelation(
                database=catalog,
                schema=node.schema,
                alias=node.alias,
                relation_name=quote_qualified(catalog, node.schema, node.alias),
                resource_type=node.resource_type,
                name=node.name,
                description="",
                compiled_code=None,
                meta={},
                tags=[],
                config=node.config,
            )


def close_candidates() -> None:
    """Write the candidates' file out; the parent opens it as soon as it hears that we are done."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415

    environment = DuckDBConnectionManager._ENV
    if environment is not None:
        environment.close()


def common_arguments(request: Mapping[str, Any]) -> list[str]:
    """dbt's options for every command of a tenant."""
    # Equal in every run of a tenant: dbt parses everything anew when the target or a profile value differs.
    return [
        *("--project-dir", request["project"], "--profiles-dir", request["profiles"], "--target", request["target"]),
        *("--target-path", request["target_path"], "--log-path", request["log_path"]),
        *("--log-level", "none", "--log-level-file", "none", "--quiet", "--no-use-colors"),
        *("--no-send-anonymous-usage-stats", "--no-version-check", "--cache-selected-only"),
    ]


def _progress(message: Any, emit: Emit) -> None:
    name = message.info.name
    if name not in ("NodeStart", "NodeFinished"):
        return
    info = message.data.node_info
    event: dict[str, Any] = {
        "event": "node_started" if name == "NodeStart" else "node_finished",
        "unique_id": info.unique_id,
        "resource_type": info.resource_type,
        "name": info.node_name,
    }
    if name == "NodeFinished":
        outcome = message.data.run_result
        event |= {"status": outcome.status, "message": outcome.message, "seconds": outcome.execution_time}
    emit(event)


def result_event(result: Any) -> dict[str, Any]:
    """dbt's result of one node."""
    return {
        "event": "result",
        "unique_id": result.node.unique_id,
        "resource_type": str(result.node.resource_type),
        "status": str(result.status),
        "message": result.message or "",
        "failures": result.failures,
        "seconds": result.execution_time,
    }


def failure_reason(error: BaseException | None) -> str:
    """Why dbt itself gave up."""
    return f"{type(error).__name__}: {error}" if error else "dbt gave no reason"


if __name__ == "__main__":
    sys.exit(main())
