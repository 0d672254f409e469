"""Free and taken ports."""

from __future__ import annotations

import os
import socket

from mozart.services.ports import find_free_block, find_free_ports, find_holder, is_free


def test_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert find_holder(port).pid == os.getpid()
        assert str(find_holder(port)).endswith(f"(pid {os.getpid()})")
    assert is_free(port)
    assert find_holder(port).pid is None


def test_free_ports_are_different() -> None:
    assert len(set(find_free_ports(20))) == 20
    assert len(find_free_block(9)) == 9
