"""One OLAP view brought up to date, on request or because its data changed."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from tasks.olap import explain_one_view, open_olap, refresh_one_view, report_refresh, result_row


@flow(name="mv-incremental", flow_run_name="{view}", persist_result=False)
async def mv_incremental(
    view: str,
    force: bool = False,
    explain: bool = False,
    asked_by: Literal["request", "event"] = "request",
) -> dict[str, Any]:
    """Refresh one view and its stale dimensions, unless it is too recent or another sync is at it.

    Args:
        view: The view's name, that of its folder in views/.
        force: Refresh even within the view's minimum interval; never beside another sync.
        explain: Say what a refresh would do, and do nothing.
        asked_by: Who asks, for the history.
    """
    place = await open_olap()
    if explain:
        return await explain_one_view(place, view)
    result = await refresh_one_view(place, view, "event" if asked_by == "event" else "incremental", force)
    await report_refresh(place, result)
    return result_row(result)
