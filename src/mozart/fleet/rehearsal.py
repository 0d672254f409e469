"""A Prefect client that reads and never writes: `mozart plan` is a deploy with it, so the two cannot differ.

Pitfall: a deployment that a rehearsal would have created is known by its name only, and its id is made up.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient

_WRITES = ("create_", "update_", "upsert_", "delete_")


class _Rehearsal:
    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._flows: dict[UUID, str] = {}
        self._created: dict[str, UUID] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("read_"):
            return getattr(self._client, name)
        if name.startswith(_WRITES):
            return _nothing
        raise AttributeError(f"a rehearsal neither reads nor writes by {name}")

    async def create_flow_from_name(self, flow_name: str) -> UUID:
        flow = uuid4()
        self._flows[flow] = flow_name
        return flow

    async def create_deployment(self, flow_id: UUID, name: str, **_values: Any) -> UUID:
        return self._created.setdefault(f"{self._flows[flow_id]}/{name}", uuid4())

    async def read_deployment_by_name(self, name: str) -> Any:
        if name in self._created:
            return SimpleNamespace(id=self._created[name])
        return await self._client.read_deployment_by_name(name)


async def _nothing(*_arguments: Any, **_options: Any) -> None:
    return None


def rehearsing(client: PrefectClient) -> PrefectClient:
    """The client for one rehearsal of a deploy; it does what deploys need, no more."""
    return cast(PrefectClient, _Rehearsal(client))
