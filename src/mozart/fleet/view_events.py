"""Sends the Prefect event that asks for a refresh of a view, over HTTP: a daemon need not import Prefect for it.

The event's name and resource are documented in `mozart.olap.event_names`; the automations of
`mozart.fleet.olap_automations` answer it with a run of the view's deployment.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from uuid import uuid4

import httpx

from mozart.errors import TransientError
from mozart.olap.event_names import VIEW_CHANGED, resource_of
from mozart.olap.listener import Announcement
from mozart.settings import Settings

_TIMEOUT = httpx.Timeout(4.0, connect=2.0)


@dataclass(frozen=True)
class ViewEvents:
    """Sends events to one Prefect API. `repr` shows the address alone."""

    api_url: str
    headers: Mapping[str, str]

    @cached_property
    def _client(self) -> httpx.Client:
        """Kept, for making one reads all certificate authorities, which takes longer than the request."""
        return httpx.Client(headers=dict(self.headers), timeout=_TIMEOUT)

    def __repr__(self) -> str:
        return f"ViewEvents({self.api_url})"

    def announce(self, announcement: Announcement) -> None:
        """Send that the view's data changed. TransientError when the API did not take it."""
        event = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": VIEW_CHANGED,
            "resource": resource_of(announcement.view),
            "related": [],
            "payload": {"view": announcement.view, "events": announcement.events, "sender": "mozart olap listen"},
        }
        try:
            answer = self._client.post(f"{self.api_url}/events", json=[event])
        except httpx.HTTPError as error:
            raise TransientError(f"the Prefect API at {self.api_url} does not answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise TransientError(f"the Prefect API at {self.api_url} refused the event: {answer.status_code}")


def view_events_from_settings(settings: Settings) -> ViewEvents:
    """Events to the project's Prefect API; PREFECT_API_KEY or PREFECT_API_AUTH_STRING where it asks for a login."""
    headers: dict[str, str] = {}
    key, login = settings.values.get("PREFECT_API_KEY"), settings.values.get("PREFECT_API_AUTH_STRING")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    elif login:
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return ViewEvents(settings.prefect_api_url, headers)
