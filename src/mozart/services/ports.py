"""TCP ports on the loopback address: which are free, and who holds one that is not."""

from __future__ import annotations

import errno
import random
import socket
from collections import deque
from dataclasses import dataclass

import psutil

from mozart.errors import TransientError

# Below the range that the kernel hands to outgoing connections, so that a free port stays free until it is bound.
_RANDOM_RANGE = (14000, 22000)
_given: set[int] = set()
# The ports given last, claimed against other processes until their servers have bound them.
_claims: deque[socket.socket] = deque()
_MOST_CLAIMS = 200
_TRIES = 20_000


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port. Unknown (pid None) when it belongs to another user."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else self.name


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on `port` of `host`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def find_holder(port: int) -> Holder:
    """Who listens on `port`, as far as this user may see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        connections = []
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
            continue
        if connection.laddr.port == port:
            try:
                return Holder(connection.pid, psutil.Process(connection.pid).name())
            except psutil.NoSuchProcess:
                continue
    return Holder(None, "a process of another user")


def find_free_ports(count: int) -> list[int]:
    """`count` different free ports, for servers that tests start."""
    return [find_free_block(1)[0] for _ in range(count)]


def find_free_block(count: int) -> range:
    """`count` free ports in a row, for a port is free until somebody binds it.

    No port is given twice by one process, nor (on Linux) by two that run side by side.
    """
    for _ in range(_TRIES):
        first = random.randrange(*_RANDOM_RANGE)  # noqa: S311 - spreads test runs, no secret
        block = range(first, first + count)
        if _given.isdisjoint(block) and all(is_free(port) for port in block) and _claim_all(block):
            _given.update(block)
            return block
    raise TransientError(
        f"no {count} free ports in a row from {_RANDOM_RANGE[0]} to {_RANDOM_RANGE[1]} of the loopback"
    )


def _claim_all(block: range) -> bool:
    """Whether nobody else was given a port of the block; claims all of them or none."""
    claims: list[socket.socket] = []
    if not all(_claim(port, claims) for port in block):
        for holder in claims:
            holder.close()
        return False
    _claims.extend(claims)
    while len(_claims) > _MOST_CLAIMS:
        _claims.popleft().close()
    return True


def _claim(port: int, claims: list[socket.socket]) -> bool:
    """Whether nobody else was given the port: a local socket of an abstract name, which goes with its process."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0mozart-port-{port}")
    except OSError as error:
        holder.close()
        return error.errno != errno.EADDRINUSE  # elsewhere than on Linux there are no such names
    claims.append(holder)
    return True
