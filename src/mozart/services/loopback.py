"""One HTTP client for all questions to the stack's own servers.

Shared because making a client loads the machine's certificates, some 30 ms of CPU, and readiness is asked many times a
second while the servers need that CPU. Proxies of the environment are ignored: the servers are on this machine.
"""

from __future__ import annotations

from functools import cache

import httpx


@cache
def client() -> httpx.Client:
    """A client for the servers of this machine: no proxy, five seconds an answer."""
    return httpx.Client(trust_env=False, timeout=httpx.Timeout(5.0))


def reason(error: httpx.HTTPError) -> str:
    """An HTTP error in one line."""
    return f"{type(error).__name__}: {error}"
