"""PostgreSQL for root, where others may enter and where they may not; everything for an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from mozart.errors import ConfigurationError
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_block, find_free_ports
from mozart.services.postgres import Postgres, may_reach
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.stack import load_stack
from tests.projects import PROJECT, make_project

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Starts the three servers that need no Prefect, twice, the second time after a kill -9, as whoever runs it.
SCRIPT = """
import json, os, sys
from pathlib import Path
import psutil
from mozart.services.stack import load_stack

stack = load_stack(Path(sys.argv[1]), durable=False)
services = (stack.postgres, stack.valkey, stack.seaweedfs)
try:
    for service in services:
        service.start()
    for service in services:
        killed = psutil.Process(service.process().pid)
        killed.kill()
        psutil.wait_procs([killed], timeout=10)
        service.start()
    owner = stack.postgres.superuser().connect().execute("SELECT current_user").fetchone()[0]
    print(json.dumps({"uid": os.geteuid(), "owner": owner, "ready": [service.is_ready() for service in services]}))
finally:
    for service in services:
        service.stop()
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own are private)."""
    with tempfile.TemporaryDirectory(prefix="mozart-open-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


def start_and_ask(folder: Path) -> tuple[int, int]:
    """Start, kill and start again a PostgreSQL in `folder`; its process's uid and its data folder's owner."""
    server = Postgres(Ledger(folder), port=find_free_ports(1)[0], password="secret", durable=False)
    try:
        server.start()
        record = server.process()
        assert record is not None
        killed = psutil.Process(record.pid)
        killed.kill()
        killed.wait(10)
        server.start()
        with server.superuser().connect() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        record = server.process()
        assert record is not None
        return psutil.Process(record.pid).uids().effective, server.data.stat().st_uid
    finally:
        server.stop()


@as_root
def test_root_becomes_an_ordinary_user_where_that_one_may_enter(open_folder: Path) -> None:
    uid, owner = start_and_ask(open_folder)
    assert uid == owner != 0


@as_root
def test_root_uses_a_namespace_where_nobody_else_may_enter(open_folder: Path) -> None:
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    assert start_and_ask(private / "deep" / ("x" * 120)) == (0, 0)


def test_stale_lock_of_a_recycled_pid_does_not_block(open_folder: Path) -> None:
    server = Postgres(Ledger(open_folder), port=find_free_ports(1)[0], password="secret", durable=False)
    try:
        server.start()
        server.stop()
        owner = server.data.stat().st_uid
        # PostgreSQL takes any living process of its own user for the server that the lock names.
        with subprocess.Popen(
            [shutil.which("sleep") or "sleep", "60"], user=owner if os.geteuid() == 0 else None
        ) as stranger:
            (server.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data}\n1\n1\n\n127.0.0.1\n")
            server.start()
            assert server.is_ready()
            assert stranger.poll() is None
            stranger.kill()
    finally:
        server.stop()


def test_login_needs_the_password(open_folder: Path) -> None:
    server = Postgres(Ledger(open_folder), port=find_free_ports(1)[0], password="secret", durable=False)
    try:
        server.start()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host="127.0.0.1", port=server.superuser().port, user="mozart", password="x", dbname="postgres"
            )
        made = server.create_database("a", owner="a", password="it's \\ a \" password")
        with made.connect() as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("a",)
        again = server.create_database("a", owner="a", password="new")
        with again.connect():
            pass
        assert "new" not in repr(again)
    finally:
        server.stop()


def left_socket(path: str) -> Path:
    """A socket as a killed server of root leaves it, at a path that weed takes by its port number."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    return Path(path)


@as_root
def test_ordinary_user_runs_the_servers(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = _python_for(nobody, open_folder)
    root = open_folder / "checkout"
    shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tenants").mkdir()
    (root / "pyproject.toml").touch()
    ports = find_free_ports(5)
    names = ("POSTGRES", "VALKEY", "S3", "CATALOG", "PREFECT")
    lines = [f"MOZART_{name}_PORT={port}\n" for name, port in zip(names, ports, strict=True)]
    base = find_free_block(INNER_PORTS)[0]
    (root / ".env").write_text("".join(lines) + f"MOZART_SEAWEEDFS_PORT_BASE={base}\n")
    foreign = left_socket(f"/tmp/seaweedfs-other-grpc-{base + 1}.sock")
    for path in (root, *root.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    packages = sysconfig.get_paths()["purelib"]
    environment = {
        "PATH": os.defpath,
        "HOME": str(root),
        "PYTHONPATH": f"{root / 'src'}:{packages}",
        "LD_LIBRARY_PATH": str(Path(python).parent.parent / "lib"),
    }
    done = subprocess.run(
        [python, "-c", SCRIPT, str(root)],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    still_there = foreign.exists()
    foreign.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    assert still_there
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"uid": nobody.pw_uid, "owner": "mozart", "ready": [True, True, True]}


@as_root
def test_a_socket_of_another_user_in_the_place_of_ours_is_named(open_folder: Path) -> None:
    make_project(open_folder)
    lakehouse = load_stack(open_folder).seaweedfs.lakehouse
    server = SeaweedFS(Ledger(open_folder), lakehouse=lakehouse, inner_ports=find_free_block(INNER_PORTS))
    foreign = left_socket(next(str(path) for path in server._own_sockets() if "master" in path.name))
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with pytest.raises(ConfigurationError, match="MOZART_SEAWEEDFS_PORT_BASE"):
            server._remove_left_sockets()
    finally:
        os.seteuid(0)
    assert foreign.exists()
    server._remove_left_sockets()
    assert not foreign.exists(), "root may remove what anybody left"


def _python_for(user: pwd.struct_passwd, folder: Path) -> str:
    """This interpreter, copied into `folder` when `user` cannot reach it (a root user's home, say)."""
    if not may_reach(Path(sysconfig.get_paths()["purelib"]), user):
        pytest.skip("an ordinary user cannot read the installed packages here")
    here = Path(sys.executable).resolve()
    if may_reach(here, user):
        return str(here)
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*", "idlelib", "tkinter")
    library = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(library, folder / "python" / "lib" / library.name, ignore=ignored)
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy(shared, folder / "python" / "lib" / shared.name)
    (folder / "python" / "bin").mkdir()
    return str(shutil.copy(here, folder / "python" / "bin" / here.name))
