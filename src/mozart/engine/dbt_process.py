"""One dbt child as its parent sees it: start, ask, read events, and end it whatever happens.

The child gets an allow-list of the environment, its request on stdin and nothing else. It leads a process group of its
own, so that ending it ends all of it. Text from it is freed of secrets before anybody sees it.

Pitfall: on Linux the child also asks the kernel to be killed when the *thread* that started it ends; use one
`DbtProcess` from one thread, inside its `with`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from mozart.errors import TerminalError, TransientError

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR")
_TAIL_LINES = 40
_POLL_SECONDS = 0.5
_END_SECONDS = 10.0

Event = dict[str, Any]


class DbtProcess:
    """A running `mozart.engine.dbt_child`. Use as a context manager: leaving it kills what still runs."""

    def __init__(
        self,
        *,
        folder: Path,
        environ: Mapping[str, str],
        secrets: Sequence[str],
        what: str,
        deadline: float,
        module: str = "mozart.engine.dbt_child",
    ) -> None:
        """`deadline` is a `time.monotonic()` value; `what` names the run in errors; the child works in `folder`."""
        self._what = what
        self._deadline = deadline
        self._secrets = [secret for secret in secrets if secret]
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(
            # -P: the working directory holds a folder `macros`, `models`, …; none of it may shadow a module.
            [sys.executable, "-P", "-m", module],
            cwd=folder,
            env=child_environment(os.environ, environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def send(self, message: Mapping[str, Any]) -> None:
        """One request line. A child that is gone shows in `events`, not here."""
        stdin = self._process.stdin
        if stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()

    def close_input(self) -> None:
        """Tell the child that nothing more is wanted."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def events(self) -> Iterator[Event]:
        """Events as they come, until the child closes its end. Raises TerminalError when the deadline passes.

        The wait is cut into short ones, so that a cancelled task's exception reaches the thread that waits here.
        """
        while True:
            if time.monotonic() > self._deadline:
                raise TerminalError(
                    f"{self._what}: not done within its time limit; dbt was stopped and nothing of it was published. "
                    "Find the slow model, or raise the limit"
                )
            try:
                event = self._events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                return
            yield event

    def wait(self) -> int:
        """The exit code of a child that has closed its events."""
        try:
            return self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def death(self) -> TransientError | TerminalError:
        """The error for a child that ended without saying why."""
        code = self.wait()
        for reader in self._readers:
            reader.join(timeout=_END_SECONDS)
        if code < 0:
            cause = f"its process was killed by {_signal_name(-code)}"
            hint = "; if the machine ran out of memory, lower the memory limit or the number of threads"
            return TransientError(
                f"{self._what}: {cause}{hint if -code == signal.SIGKILL else ''}; nothing was published"
            )
        tail = " | ".join(self._tail) or "it said nothing"
        return TerminalError(f"{self._what}: dbt's process ended with code {code}: {tail}")

    def kill(self) -> None:
        """End the child's whole group, at once. Does nothing when it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.close_input()
        for reader in self._readers:
            reader.join(timeout=_END_SECONDS)

    def _read_events(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # the stream was closed under the reader
            for line in stream:
                try:
                    event = json.loads(self._masked(line))
                except json.JSONDecodeError:
                    continue  # the last line of a killed child may be cut short
                if isinstance(event, dict):
                    self._events.put(event)
        self._events.put(None)

    def _read_stderr(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in stream:
                text = self._masked(line.strip())
                if text:
                    self._tail.append(text)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            for form in (secret, json.dumps(secret)[1:-1]):
                text = text.replace(form, "***")
        return text


def child_environment(parent: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What a dbt child may see: a few names of the machine's, ours, and never a setting that may hold a secret."""
    inherited = {name: parent[name] for name in _INHERITED if name in parent}
    return {
        **inherited,
        "PYTHONUTF8": "1",
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        **own,
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
