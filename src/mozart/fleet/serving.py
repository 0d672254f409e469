"""How the local stack's workers serve their pools: wait for the pool, poll, drain, and leave no run behind as running.

Different from the loop of `BaseWorker.start`: it outlives a server that does not answer (that one gives up after a few
minutes), and a worker that is told to stop lets its runs end first. Runs that outlast `DRAIN_SECONDS` are ended and
reported as crashed, so that they do not look alive until something finds that their heartbeat stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Crashed
from prefect.workers.base import BaseWorker

DRAIN_SECONDS = 10.0
"""Less than `mozart down` gives a worker before it is killed."""

_SYNC_SECONDS = 30.0
_FIRST_WAIT = 0.2
_SOON = 0.1  # after runs were found, for they often come in groups: one event refreshes several views
_SLOWEST_WAIT = 5.0

AnyWorker = BaseWorker[Any, Any, Any]

logger = logging.getLogger("prefect.mozart.serving")


async def serve(worker: AnyWorker, pool: str, poll_seconds: float, stop: asyncio.Event) -> None:
    """Serve `pool` until `stop` is set. The worker needs a limit: its limiter knows the runs in flight."""
    if not await _wait_for_pool(pool, stop):
        return
    async with worker:
        async with anyio.create_task_group() as loops:
            loops.start_soon(_forever, worker.sync_with_backend, _SYNC_SECONDS)
            loops.start_soon(_forever, worker.get_and_submit_flow_runs, poll_seconds)
            await stop.wait()
            loops.cancel_scope.cancel()
        left = await _drain(worker)
    await _report_crashed(left)


async def _wait_for_pool(pool: str, stop: asyncio.Event) -> bool:
    """True when the server answers and has the pool; False when `stop` came first."""
    while not stop.is_set():
        try:
            async with get_client() as client:
                await client.read_work_pool(pool)
                return True
        except (httpx.HTTPError, ObjectNotFound, RuntimeError):  # RuntimeError: the server is still starting
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _FIRST_WAIT)
    return False


async def _forever(work: Callable[[], Awaitable[Any]], seconds: float) -> None:
    failures = 0
    while True:
        found: object = None
        try:
            found = await work()
            failures = 0
        except (httpx.HTTPError, PrefectException, OSError) as error:
            failures += 1
            if failures in (1, 10, 100, 1000):
                logger.warning("the Prefect API does not answer (%s, %d times)", type(error).__name__, failures)
        if failures:
            await anyio.sleep(min(_FIRST_WAIT * 2 ** min(failures, 8), _SLOWEST_WAIT))
        else:
            await anyio.sleep(min(_SOON, seconds) if found else seconds)


async def _drain(worker: AnyWorker) -> list[UUID]:
    """Wait for the runs in flight, then cancel those that are left; returns their ids."""
    with anyio.move_on_after(DRAIN_SECONDS):
        while worker.limiter.borrowed_tokens:  # noqa: ASYNC110 - the base class has no event for this
            await anyio.sleep(0.05)
    left = [run for run in worker.limiter.statistics().borrowers if isinstance(run, UUID)]
    if left and worker._runs_task_group is not None:
        worker._runs_task_group.cancel_scope.cancel()
    return left


async def _report_crashed(runs: Sequence[UUID]) -> None:
    crashed = Crashed(message="The worker was stopped before this run ended.")
    for run in runs:
        try:
            async with get_client() as client:
                state = (await client.read_flow_run(run)).state
                if state is None or not state.is_final():
                    await client.set_flow_run_state(run, crashed, force=True)
        except (httpx.HTTPError, PrefectException, RuntimeError) as error:
            logger.warning("the run %s could not be reported as crashed: %s", run, type(error).__name__)
