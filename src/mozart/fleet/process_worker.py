"""Prefect's process worker, started without Prefect's command line.

It does what `prefect worker start --pool mozart --type process` does, and that command may serve the pool as well. But
the command line and the worker's own first heartbeat import every installed integration, of which a process worker uses
none: its runs are processes of their own (5.3 CPU s to the command line's first heartbeat). `mozart.fleet.serving` says
how it is served: started beside the server, drained by SIGTERM or SIGINT, ended at once by a second one.

Run as `python -m mozart.fleet.process_worker --pool mozart --limit 4`.
"""

from __future__ import annotations

import asyncio
import os
import signal

import click
from prefect.client.schemas.objects import WorkerMetadata
from prefect.workers.process import ProcessWorker

from mozart.fleet.serving import serve
from mozart.services.pools import PROCESS_POOL


async def _serve(pool: str, name: str, limit: int, poll_seconds: float) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    worker = ProcessWorker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)
    worker._worker_metadata = _no_metadata
    await serve(worker, pool, poll_seconds, stop)


async def _no_metadata() -> WorkerMetadata | None:
    """In place of the list of the integrations' versions, for which they would all be imported."""
    return None


@click.command()
@click.option("--pool", default=PROCESS_POOL, show_default=True, help="The work pool to serve.")
@click.option("--name", default="worker", show_default=True, help="The worker's name in the pool.")
@click.option("--limit", default=4, show_default=True, help="How many runs at a time.")
@click.option("--poll", default=1.0, show_default=True, help="Seconds between two looks for runs.")
def main(pool: str, name: str, limit: int, poll: float) -> None:
    """Serve a process pool until SIGTERM."""
    asyncio.run(_serve(pool, name, limit, poll))


if __name__ == "__main__":
    main()
