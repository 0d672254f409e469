"""One tenant: source → Parquet → Iceberg raw → dbt staging → dbt marts."""

from __future__ import annotations

from typing import Any

from prefect import flow

from mozart.lake.tenant_run import RunOptions
from tasks.lake import build_all_models, load_tables, opened_tenant, summarise


@flow(name="tenant-pipeline", flow_run_name="{tenant}", persist_result=False)
async def tenant_pipeline(
    tenant: str,
    tables: list[str] | None = None,
    full_refresh: bool = False,
    since: str | None = None,
    until: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Bring one tenant's lakehouse up to date.

    Args:
        tenant: The tenant's id, the name of its folder in tenants/.
        tables: Only these tables, by their name in raw; all of them otherwise.
        full_refresh: Read the tables whole and rebuild every model, whatever changed.
        since: Read rows again whose incremental column is at or above this value (a backfill).
        until: The backfill's end, exclusive.
        dry_run: Say what would be read and committed, and do nothing.
    """
    options = RunOptions(tuple(tables) if tables else None, full_refresh, since, until, dry_run)
    async with opened_tenant(tenant, options) as run:
        loads = await load_tables(run)
    models = [] if dry_run else await build_all_models(run, loads)
    summary = await summarise(run.tenant, loads, models)
    summary.raise_if_failed()
    return summary.to_dict()
