"""The last step before a server's program: default signals, the right user, then exec.

Run as a script (`python -I -S launch.py [--user=UID:GID | --namespace=UID:GID] -- program …`), so that no code runs
between fork and exec in a process with threads. Keeps the pid, so that whoever started it knows the server's.

`--namespace` serves a root user whose files nobody else may read: in a user namespace of its own the program sees
itself as UID, while the kernel checks files as root's. The machine must allow user namespaces.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_CLONE_NEWUSER = 0x10000000
EXIT_REFUSED = 126


def main(arguments: list[str]) -> None:
    """Become the program after `--`, as the user or in the namespace that the options before it name."""
    split = arguments.index("--")
    for option in arguments[:split]:
        kind, _, ids = option.partition("=")
        uid, gid = (int(number) for number in ids.split(":"))
        _enter_namespace(uid, gid) if kind == "--namespace" else _become(uid, gid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    program = arguments[split + 1 :]
    os.execve(program[0], program, os.environ)  # noqa: S606 - no shell, on purpose


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _enter_namespace(uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        error = os.strerror(ctypes.get_errno())
        print(f"launch: this machine allows no user namespace: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{gid} {outer_gid} 1")
    _write("/proc/self/uid_map", f"{uid} {outer_uid} 1")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - pathlib is not worth its import here
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
