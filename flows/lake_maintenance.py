"""One tenant's lake kept small: compaction, expiry of snapshots, removal of files that nothing reaches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect import flow

from mozart.lake.expiry import ExpiryPolicy
from mozart.lake.maintenance import MaintenanceOptions
from mozart.lake.sweep import SweepPolicy
from tasks.maintenance import maintain, opened_maintenance, report_maintenance


@flow(name="lake-maintenance", flow_run_name="{tenant}", persist_result=False)
async def lake_maintenance(
    tenant: str,
    tables: list[str] | None = None,
    dry_run: bool = False,
    compact_all: bool = False,
    keep_snapshots: int = 10,
    keep_days: float = 7,
    grace_days: float = 3,
) -> dict[str, Any]:
    """Compact, expire and sweep one tenant's tables; safe beside running loads.

    Args:
        tenant: The tenant's id, the name of its folder in tenants/.
        tables: Compact and expire only these tables, by name; the sweep is always the tenant's.
        dry_run: Say what would be done, and do nothing.
        compact_all: Compact every table of more than one file, due or not.
        keep_snapshots: How many of the newest snapshots stay, however old.
        keep_days: How long every snapshot stays.
        grace_days: How old a file must be before the sweep deletes it; longer than any load takes.
    """
    options = MaintenanceOptions(
        compact_all=compact_all,
        dry_run=dry_run,
        expiry=ExpiryPolicy(keep_snapshots, timedelta(days=keep_days)),
        sweep=SweepPolicy(timedelta(days=grace_days)),
    )
    async with opened_maintenance(tenant, options) as run:
        summary = await maintain(run, tables)
    await report_maintenance(summary)
    summary.raise_if_failed()
    return summary.to_dict()
