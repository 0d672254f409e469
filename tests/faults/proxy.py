"""A reverse proxy that misbehaves on request: between a client and a catalog or an object store.

Loopback, threaded, on a free port. Every request goes through unless a rule matches its method and path; rules are
tried in the order they were injected, and each may be used up after some requests. What happened is in `exchanges`.
Bodies are held in memory; a chunked request goes on with its length. The client's Host header is passed on, so that S3
signatures stay valid.

    with FaultProxy(lakehouse.catalog_uri) as proxy:
        proxy.inject(Rule(Fault.DROP_AFTER, path="/tables/", times=1))
        catalog = load_catalog(uri=proxy.url, ...)
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit


class Fault(Enum):
    """What happens to a request. *Before*: the server never sees it. *After*: it was served, the reply is spoilt."""

    PASS = "pass"
    DROP_BEFORE = "drop before"
    DROP_AFTER = "drop after"
    STATUS_BEFORE = "status before"
    STATUS_AFTER = "status after"
    DELAY = "delay"
    """The reply is held back until `FaultProxy.release` (or `seconds`)."""
    HOLD = "hold"
    """The request is held back until `FaultProxy.release`, and then served: it was under way all the time."""
    TRUNCATE = "truncate"
    """Half of the reply's body, then the end of the connection."""
    REPEAT = "repeat"
    """Sent to the server twice, as some gateways do; the client gets the second reply."""


@dataclass(frozen=True)
class Rule:
    """One fault for the requests whose method is `method` and whose path has `path` (a regular expression) in it."""

    fault: Fault
    method: str = "POST"
    path: str = ""
    status: int = 503
    body: bytes = b'{"error":{"message":"injected","type":"InjectedError","code":503}}'
    seconds: float = 30.0
    times: int | None = None

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and re.search(self.path, path) is not None


@dataclass(frozen=True)
class Exchange:
    """One request: what came, which rule it met, and the server's status (None: the server never saw it)."""

    method: str
    path: str
    fault: Fault
    status: int | None


@dataclass
class _Use:
    rule: Rule
    left: int | None


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class FaultProxy:
    """A proxy in front of `upstream` (http://host:port). Use it as a context manager."""

    upstream: str
    exchanges: list[Exchange] = field(default_factory=list[Exchange])

    def __post_init__(self) -> None:
        self._uses: list[_Use] = []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._held = 0
        self._under_way = 0
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, rule: Rule) -> None:
        with self._changed:
            self._uses.append(_Use(rule, rule.times))

    def clear(self) -> None:
        """Forget all rules; requests that are held go on, later ones can be held again."""
        with self._changed:
            self._uses.clear()
            released, self._released = self._released, threading.Event()
        released.set()

    def release(self) -> None:
        """Let every held request and reply go on, now and until `clear`."""
        self._released.set()

    def wait_until_held(self, seconds: float = 30.0) -> None:
        """Until a request is held back before the upstream; raises TimeoutError when none comes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._held > 0, timeout=seconds):
                raise TimeoutError(f"no request was held within {seconds} s: {self.exchanges}")

    def wait_until_idle(self, seconds: float = 30.0) -> None:
        """Until no request is under way, those of clients that are gone included."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._under_way == 0, timeout=seconds):
                raise TimeoutError(f"{self._under_way} requests were under way for {seconds} s")

    def served(self, fault: Fault) -> list[Exchange]:
        """The exchanges that met this fault and were served by the upstream."""
        return [
            exchange for exchange in list(self.exchanges) if exchange.fault is fault and exchange.status is not None
        ]

    def wait_until_served(self, fault: Fault, seconds: float = 30.0) -> Exchange:
        """The first exchange with this fault that the upstream served; raises TimeoutError when none comes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.served(fault), timeout=seconds):
                raise TimeoutError(f"no request met {fault} and was served within {seconds} s: {self.exchanges}")
        return self.served(fault)[0]

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _take(self, method: str, path: str) -> Rule:
        with self._changed:
            for use in self._uses:
                if use.left != 0 and use.rule.matches(method, path):
                    use.left = None if use.left is None else use.left - 1
                    return use.rule
        return Rule(Fault.PASS)

    def _count(self, *, under_way: int = 0, held: int = 0) -> None:
        with self._changed:
            self._under_way += under_way
            self._held += held
            self._changed.notify_all()

    def _note(self, exchange: Exchange) -> None:
        with self._changed:
            self.exchanges.append(exchange)
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - only our server makes handlers

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silence; `FaultProxy.exchanges` tells."""

    def do_request(self) -> None:
        proxy = self.server.proxy
        body = self._read_body()
        proxy._count(under_way=1)
        try:
            self._serve(proxy, body)
        finally:
            proxy._count(under_way=-1)

    def _serve(self, proxy: FaultProxy, body: bytes) -> None:
        released = proxy._released
        rule = proxy._take(self.command, self.path)
        if rule.fault in (Fault.DROP_BEFORE, Fault.STATUS_BEFORE):
            proxy._note(Exchange(self.command, self.path, rule.fault, None))
            self._answer(rule, None)
            return
        if rule.fault is Fault.HOLD:
            proxy._count(held=1)
            released.wait(rule.seconds)
            proxy._count(held=-1)
        reply = self._forward(body)
        if rule.fault is Fault.REPEAT:
            reply = self._forward(body)
        proxy._note(Exchange(self.command, self.path, rule.fault, reply.status))
        if rule.fault is Fault.DELAY:
            released.wait(rule.seconds)
        self._answer(rule, reply)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_request  # noqa: N815 - the base class looks for these

    def _read_body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        body = b"".join(chunks)
        self.headers["Content-Length"] = str(len(body))
        return body

    def _forward(self, body: bytes) -> _Reply:
        upstream = urlsplit(self.server.proxy.upstream)
        assert upstream.hostname
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect", "transfer-encoding"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return _Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def _answer(self, rule: Rule, reply: _Reply | None) -> None:
        if rule.fault in (Fault.DROP_BEFORE, Fault.DROP_AFTER) or (
            reply is None and rule.fault is not Fault.STATUS_BEFORE
        ):
            self._hang_up()
        elif reply is None or rule.fault is Fault.STATUS_AFTER:
            self._send(_Reply(rule.status, [("Content-Type", "application/json")], rule.body), len(rule.body))
        elif rule.fault is Fault.TRUNCATE:
            self._send(_Reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2]), len(reply.body))
            self._hang_up()
        else:
            self._send(reply, len(reply.body))

    def _send(self, reply: _Reply, length: int) -> None:
        try:
            self.send_response(reply.status)
            announced = str(length)
            for name, value in reply.headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    announced = value
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", announced)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
        except OSError:
            self.close_connection = True  # the client has gone; that is what the fault was for

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # already gone
