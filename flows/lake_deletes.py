"""One tenant's delete pass: rows that are gone at the source leave raw."""

from __future__ import annotations

from typing import Any

from prefect import flow

from mozart.lake.delete_pass import DeleteOptions
from tasks.maintenance import open_delete_pass, remove_all_deleted, report_deletes


@flow(name="lake-deletes", flow_run_name="{tenant}", persist_result=False)
async def lake_deletes(
    tenant: str,
    tables: list[str] | None = None,
    max_share: float = 0.2,
    consent: bool = False,
    dry_run: bool = False,
) -> list[dict[str, Any]]:
    """Compare the keys of each incremental table with the source's, or read its soft-delete column; safe beside loads.

    Args:
        tenant: The tenant's id, the name of its folder in tenants/.
        tables: Only these tables, by their name in raw; all of them otherwise.
        max_share: The share of a table's rows (of 1) that may go; with more, the table is left and the run fails.
        consent: Remove whatever the share is. For named tables, after a look at the source.
        dry_run: Say how many rows would go, and remove none.
    """
    options = DeleteOptions(max_share, consent, dry_run)
    run = await open_delete_pass(tenant, tuple(tables) if tables else None, options)
    return await report_deletes(tenant, await remove_all_deleted(run))
