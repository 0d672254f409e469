"""The daily full sync of the OLAP views: validate → dimensions → facts → cache → record."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.olap import FullSyncRun, begin_sync, finish_sync, open_olap, refresh_all


@flow(name="olap-full-sync", flow_run_name="full sync", persist_result=False)
async def olap_full_sync(retry_delay_seconds: float = 300) -> dict[str, Any]:
    """Refresh every view, whatever changed; incremental ones are recomputed, compared and repaired.

    A killed sync goes on where it was: its next run repeats no view that is done.

    Args:
        retry_delay_seconds: The pause before each of a step's three retries after a transient failure.
    """
    run = FullSyncRun(await open_olap(), retry_delay_seconds)
    await begin_sync(run)
    await refresh_all(run)
    return await finish_sync(run)
