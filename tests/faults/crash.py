"""`kill -9` at a named step: a child process runs a job and is gone, without a word, where it says.

A step is a function of the core (or of the catalog's client) and a side of it. The child wraps that function before it
starts the job and sends itself SIGKILL when the call is reached: no handler, no `finally`, no goodbye to a server. A
step that the job never comes to lets the child end as usual, which `kill_at` reports, so that a renamed function or a
wrong list cannot make a test pass that tests nothing.

Children are forked from a server process that has imported everything and opened nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from typing import Any, Literal

from mozart.errors import MozartError
from tests.faults.jobs import Job

_PRELOADED = (
    "mozart.lake.load",
    "mozart.lake.maintenance",
    "mozart.connectors.postgresql",
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
    "boto3",
)

_LONGEST = 60.0

ENDED, KILLED, FAILED = 0, -signal.SIGKILL, 7
"""How a child ended: the job was done; it was killed; the job raised one of Mozart's errors."""


@dataclass(frozen=True)
class Step:
    """A place in the protocol: `side` of the `nth` call of `function` (`module:name.of.it`)."""

    name: str
    function: str
    side: Literal["before", "after"] = "after"
    nth: int = 1


_COMMIT = "pyiceberg.catalog.rest:RestCatalog.commit_table"

READING = (
    Step("head read", "mozart.lake.commit:read_head"),
    Step("source described", "mozart.connectors.postgresql:PostgresqlReader.describe"),
    Step("load planned", "mozart.lake.load:plan_load"),
    Step("source snapshot imported", "mozart.connectors.postgresql:PostgresqlReader.begin"),
)
COMMITTING = (
    Step("manifests written", "mozart.lake.commit:_stage"),
    Step("commit about to be sent", _COMMIT, "before"),
    Step("commit answered", _COMMIT, "after"),
)
FULL_REFRESH = (*READING, Step("files landed", "mozart.lake.extract:land"), *COMMITTING)
INCREMENTAL = (
    *READING,
    Step("files landed", "mozart.lake.load:land"),
    Step("deletes written", "mozart.lake.load:write_position_deletes"),
    *COMMITTING,
    Step("load committed, nothing compacted", "mozart.lake.load:compact_after_load", "before"),
)
COMPACTING = (
    Step("copy written", "mozart.lake.compaction:land"),
    Step("copy compared", "mozart.lake.compaction:digest_rows", nth=2),
    *COMMITTING,
)
COMPACTING_AFTER_LOAD = (
    Step("copy written", "mozart.lake.compaction:land"),
    Step("compaction about to be sent", _COMMIT, "before", nth=2),
    Step("compaction answered", _COMMIT, "after", nth=2),
)
_FOLDED = (
    Step("rows folded", "mozart.lake.fold:land"),
    Step("rows compared", "mozart.lake.fold:digest_rows", nth=2),
    Step("deletes folded", "mozart.lake.fold:write_folded_deletes"),
)
FOLDING = (*_FOLDED, *COMMITTING)
FOLDING_AFTER_LOAD = (
    *_FOLDED,
    Step("fold about to be sent", _COMMIT, "before", nth=2),
    Step("fold answered", _COMMIT, "after", nth=2),
)
PART_NOTED = Step("a part landed and noted", "mozart.lake.extract:_InParts._land", nth=2)
PART_LANDED = Step("a part's files landed, not noted", "mozart.lake.extract:land")
DELETE_PASS = (
    Step("head read", "mozart.lake.commit:read_head"),
    Step("deletes written", "mozart.lake.delete_pass:write_position_deletes"),
    *COMMITTING,
)
EXPIRING = (
    Step("expiry about to be sent", _COMMIT, "before"),
    Step("expiry answered", _COMMIT, "after"),
)
RESTAMPING = (
    Step("record restamped", "mozart.lake.commit:restamp"),
    Step("expiry about to be sent", _COMMIT, "before", nth=2),
)
SWEEPING = (
    Step("note written", "mozart.lake.sweep:Sweep._write_note"),
    Step("files about to be deleted", "mozart.lake.object_store:ObjectStore.delete", "before"),
    Step("a batch deleted", "mozart.lake.object_store:ObjectStore.delete", "after"),
)


def start(job: Job, step: Step | None = None) -> ForkServerProcess:
    """The child that runs `job`; whoever starts it without a step kills it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    child = context.Process(target=_run, args=(job, step), daemon=True)
    child.start()
    return child


def wait(child: ForkServerProcess) -> int:
    """How the child ended: ENDED, KILLED or FAILED."""
    child.join(_LONGEST)
    code = child.exitcode
    if code is None:
        child.kill()
        child.join()
        raise AssertionError(f"a child did not end within {_LONGEST:.0f} s")
    assert code in (ENDED, KILLED, FAILED), f"a child ended with {code}; its traceback is above"
    return code


def kill_at(job: Job, step: Step) -> int:
    """Run the job in a child that is killed at `step`; how it ended."""
    return wait(start(job, step))


def _run(job: Job, step: Step | None) -> None:
    if step is not None:
        _arm(step)
    try:
        job.run()
    except MozartError as error:
        print(f"the child's job failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _arm(step: Step) -> None:
    module, _, path = step.function.partition(":")
    *owners, name = path.split(".")
    owner = pkgutil.resolve_name(f"{module}:{'.'.join(owners)}" if owners else module)
    original: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def armed(*args: Any, **kwargs: Any) -> Any:
        is_it = next(calls) == step.nth
        if is_it and step.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, armed)
