"""Free and taken ports."""

from __future__ import annotations

import os
import socket

import pytest

from mozart.services import ports
from mozart.services.ports import find_free_block, find_free_ports, find_holder, is_free


def test_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert find_holder(port).pid == os.getpid()
        assert str(find_holder(port)).endswith(f"(pid {os.getpid()})")
    assert is_free(port)
    assert find_holder(port).pid is None


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANDOM_RANGE", (23000, 23060))
    monkeypatch.setattr(ports, "_given", set[int]())
    single = find_free_ports(15)
    block = find_free_block(9)
    assert len(block) == 9
    assert len({*single, *block, *find_free_ports(5)}) == 29
