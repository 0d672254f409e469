"""Free and taken ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque

import pytest

from mozart.errors import TransientError
from mozart.services import ports
from mozart.services.ports import find_free_block, find_free_ports, find_holder, is_free

OTHER = """
import sys
from mozart.services import ports
ports._RANDOM_RANGE = (int(sys.argv[1]), int(sys.argv[2]))
print(*ports.find_free_ports(40), flush=True)
sys.stdin.read()
"""


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
    monkeypatch.setattr(ports, "_claims", deque[socket.socket]())
    block = find_free_block(9)
    single = find_free_ports(15)
    assert len(block) == 9
    assert len({*single, *block, *find_free_ports(5)}) == 29


def test_no_room_is_an_error_and_not_a_search_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANDOM_RANGE", (23070, 23090))
    monkeypatch.setattr(ports, "_given", set(range(23070, 23110, 4)))
    monkeypatch.setattr(ports, "_TRIES", 500)
    with pytest.raises(TransientError, match="no 4 free ports in a row from 23070 to 23090"):
        find_free_block(4)


def test_a_block_that_cannot_be_had_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANDOM_RANGE", (23200, 23201))
    monkeypatch.setattr(ports, "_given", set[int]())
    monkeypatch.setattr(ports, "_claims", deque[socket.socket]())
    monkeypatch.setattr(ports, "_TRIES", 5)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.bind("\0mozart-port-23202")
        with pytest.raises(TransientError):
            find_free_block(3)
    assert list(find_free_block(3)) == [23200, 23201, 23202]


def test_two_processes_are_never_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    first = 23100
    monkeypatch.setattr(ports, "_RANDOM_RANGE", (first, first + 100))
    monkeypatch.setattr(ports, "_given", set[int]())
    monkeypatch.setattr(ports, "_claims", deque[socket.socket]())
    command = [sys.executable, "-c", OTHER, str(first), str(first + 100)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ours = set(find_free_ports(40))
        other.communicate()
    assert len(theirs) == len(ours) == 40
    assert not theirs & ours
