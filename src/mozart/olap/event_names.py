"""The Prefect events about views, by name and resource. Any system may send `VIEW_CHANGED` to ask for a refresh.

    event     mozart.view.changed       the view's data changed: an automation runs mv-incremental/{view}
              mozart.view.refreshed     a run refreshed the view
    resource  prefect.resource.id = mozart.view.{view}, prefect.resource.name = {view}
    payload   of changed: anything; Mozart's own listener says how many business events led to it
              of refreshed: generation, rows, changed_rows, duration_seconds

An event is a wish, not a command: it is taken, and its run may still be late or lost. What must not be lost is marked
in the database (`mozart.olap.state.mark_dirty`).
"""

from __future__ import annotations

VIEW_CHANGED = "mozart.view.changed"
VIEW_REFRESHED = "mozart.view.refreshed"


def resource_of(view: str) -> dict[str, str]:
    """The resource of events about a view."""
    return {"prefect.resource.id": f"mozart.view.{view}", "prefect.resource.name": view}
