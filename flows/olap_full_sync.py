"""The daily full sync of the OLAP views: validate → dimensions → facts → cache → record."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.olap import FullSyncRun, begin_sync, finish_sync, is_unfinished, open_olap, refresh_all


@flow(name="olap-full-sync", flow_run_name="full sync", persist_result=False)
async def olap_full_sync(retry_delay_seconds: float = 300, only_unfinished: bool = False) -> dict[str, Any]:
    """Refresh every view, whatever changed; incremental ones are recomputed, compared and repaired.

    A killed sync goes on where it was: its next run repeats no view that is done.

    Args:
        retry_delay_seconds: The pause before each of a step's three retries after a transient failure.
        only_unfinished: Go on with a sync that was killed, or do nothing when there is none.
    """
    run = FullSyncRun(await open_olap(), retry_delay_seconds)
    if only_unfinished and not await is_unfinished(run):
        return {"status": "nothing to go on with"}
    await begin_sync(run)
    await refresh_all(run)
    return await finish_sync(run)
