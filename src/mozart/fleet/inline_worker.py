"""A Prefect worker that executes short flow runs inside its own process.

A process per run costs two CPU seconds before the first line of a flow; here a run starts within the poll interval. For
short async flows only: they share one event loop and one set of imported modules, so a flow that blocks the loop holds
up the others, and changed code is seen after a restart (`mozart down`, `mozart up`). A run that is cancelled is
cancelled at its next await.

A flow that cannot be loaded ends as Crashed with the reason. Runs send Prefect's heartbeats when
PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set.

Pitfall: Prefect's engine takes over SIGTERM while a flow runs in the main thread, and concurrent runs would put each
other's handlers back in the wrong order. So the loop runs in a thread of its own, and the main thread alone hears
SIGTERM and SIGINT: the first one drains (see `mozart.fleet.serving`), the second one ends at once.

Run as `python -m mozart.fleet.inline_worker --pool mozart-inline --limit 8`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from typing import Any, ClassVar, Self
from uuid import UUID

import anyio
import anyio.abc
import anyio.to_thread
import click
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, StateType, WorkerMetadata, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectException
from prefect.flow_engine import run_flow_async, run_flow_sync
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Cancelled
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import PrivateAttr

from mozart.errors import ConfigurationError
from mozart.fleet.serving import serve
from mozart.services.pools import INLINE_POOL, INLINE_TYPE

_CANCEL_POLL_SECONDS = 2.0

logger = logging.getLogger("prefect.mozart.inline")


class InlineJob(BaseJobConfiguration):
    """What the base class has read of a run's deployment, so that it need not be read once more."""

    _entrypoint: str | None = PrivateAttr(default=None)

    @property
    def entrypoint(self) -> str | None:
        """Where the deployment's flow is: `path.py:function`."""
        return self._entrypoint

    @classmethod
    async def resolve_for_flow_run(
        cls,
        flow_run: FlowRun,
        *,
        client: PrefectClient,
        work_pool: WorkPool,
        worker_name: str,
        worker_id: UUID | None = None,
        deployment: DeploymentResponse | None = None,
    ) -> Self:
        """The run's job. Nothing is templated and no flow is read: there is no infrastructure to describe."""
        if deployment is None and flow_run.deployment_id is not None:
            deployment = await client.read_deployment(flow_run.deployment_id)
        job = cls()
        job.prepare_for_flow_run(
            flow_run, deployment, work_pool=work_pool, worker_name=worker_name, worker_id=worker_id
        )
        job._entrypoint = deployment.entrypoint if deployment is not None else None
        return job


class InlineWorker(BaseWorker[InlineJob, BaseVariables, BaseWorkerResult]):
    """Runs each flow run of its pool as a task of this process's event loop. Needs no infrastructure."""

    type: str = INLINE_TYPE
    job_configuration: type[InlineJob] = InlineJob
    _display_name = "Inline"
    _description = "Executes short async flow runs inside the worker's own process."

    # By entrypoint: a flow is imported once in the life of this process.
    _flows: ClassVar[dict[str, Flow[Any, Any]]] = {}
    _loading: ClassVar[threading.Lock] = threading.Lock()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: InlineJob,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> BaseWorkerResult:
        """Execute the run. What is raised before `started` makes BaseWorker report a crash with the reason."""
        flow = await self._load(flow_run, configuration)
        if task_status is not None:
            task_status.started(os.getpid())
        is_finished = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_when_cancelled, flow_run, group.cancel_scope)
            await _execute(flow, flow_run)
            is_finished = True
            with contextlib.suppress(httpx.HTTPError, PrefectException):
                await super()._give_worker_labels_to_flow_run(flow_run.id)
            group.cancel_scope.cancel()
        if not is_finished:
            cancelled = Cancelled(message="Cancelled in the inline worker.")
            await self.client.set_flow_run_state(flow_run.id, cancelled, force=True)
        return BaseWorkerResult(status_code=0, identifier=str(os.getpid()))

    async def _load(self, flow_run: FlowRun, configuration: InlineJob) -> Flow[Any, Any]:
        if flow_run.deployment_id is None:
            raise ConfigurationError("the inline pool runs deployments only")
        if not configuration.entrypoint:
            raise ConfigurationError(f"the deployment of the run {flow_run.name} names no entrypoint")
        return await anyio.to_thread.run_sync(self._load_once, configuration.entrypoint)

    def _load_once(self, entrypoint: str) -> Flow[Any, Any]:
        with self._loading:
            if entrypoint not in self._flows:
                self._flows[entrypoint] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            return self._flows[entrypoint]

    async def _stop_when_cancelled(self, flow_run: FlowRun, scope: anyio.CancelScope) -> None:
        while True:
            await anyio.sleep(_CANCEL_POLL_SECONDS)
            try:
                state = (await self.client.read_flow_run(flow_run.id)).state
            except (httpx.HTTPError, PrefectException):
                continue
            if state is not None and state.type == StateType.CANCELLING:
                break
        scope.cancel()

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Nothing before the run, which would wait for it; `run` does it at the end."""

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Nothing: no infrastructure is started that a run would wait for, and the state costs 0.1 s."""

    async def _worker_metadata(self) -> WorkerMetadata | None:
        """Nothing: the base class imports every installed integration to list their versions."""
        return None


async def _execute(flow: Flow[Any, Any], flow_run: FlowRun) -> None:
    """Run the flow to a final state. Its failures are that state's business, not this worker's."""
    try:
        if flow.isasync:
            await run_flow_async(flow, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")
            return
        await anyio.to_thread.run_sync(
            lambda: run_flow_sync(flow, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")
        )
    except Exception:
        logger.exception("the flow run %s ended with an error of the engine", flow_run.name)


class _LoopThread(threading.Thread):
    """The event loop, away from the main thread, which keeps the signals."""

    def __init__(self, pool: str, name: str, limit: int, poll_seconds: float) -> None:
        super().__init__(name="inline-worker", daemon=True)
        self._pool = pool
        # No prefetch: a run that is taken up early would wait in a slot for its time.
        self._worker = InlineWorker(
            work_pool_name=pool, name=name, limit=limit, prefetch_seconds=0, create_pool_if_not_found=False
        )
        self._poll_seconds = poll_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Event | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - carried to the main thread, which reports it
            self.failure = error

    async def _main(self) -> None:
        self._loop, self._asked = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._worker, self._pool, self._poll_seconds, self._asked)

    def drain(self) -> None:
        if self._loop and self._asked:
            self._loop.call_soon_threadsafe(self._asked.set)


@click.command()
@click.option("--pool", default=INLINE_POOL, show_default=True, help="The work pool to serve.")
@click.option("--name", default="inline", show_default=True, help="The worker's name in the pool.")
@click.option("--limit", default=8, show_default=True, help="How many runs at a time.")
@click.option("--poll", default=0.15, show_default=True, help="Seconds between two looks for runs.")
def main(pool: str, name: str, limit: int, poll: float) -> None:
    """Serve an inline pool until SIGTERM."""
    thread = _LoopThread(pool, name, limit, poll)
    asked = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()
        thread.drain()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)  # a join without a limit would not let signals through
        if asked.is_set():
            thread.drain()
    if thread.failure is not None:
        logger.error("the inline worker ended", exc_info=thread.failure)
        sys.exit(1)


if __name__ == "__main__":
    main()
