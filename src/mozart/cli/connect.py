"""The Prefect API as commands reach it: the address from the settings, one clear line when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from mozart.errors import TransientError
from mozart.settings import Settings


@asynccontextmanager
async def prefect_client(settings: Settings) -> AsyncGenerator[PrefectClient]:
    """A client of the project's Prefect API, also for what Prefect calls by itself within the block."""
    with temporary_settings({PREFECT_API_URL: settings.prefect_api_url}):
        async with get_client() as client:
            try:
                await client.hello()
            except httpx.HTTPError as error:
                raise TransientError(
                    f"no Prefect API at {settings.prefect_api_url} ({type(error).__name__}); start it with `mozart up`"
                ) from None
            yield client
