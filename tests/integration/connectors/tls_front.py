"""TLS in front of a PostgreSQL server that has none (the embedded one is built without), and certificates for it.

Clients see a server with `ssl = on`: an SSLRequest is answered with `S`, then TLS, and what is inside goes to the plain
server. Loopback, threaded, on a free port.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_GSS_REQUEST = struct.pack("!ii", 8, 80877104)


class Authority:
    """A certificate authority of a test's own: `file` is its certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self._sign(self._name, self._key, None)))

    def context(self, host: str) -> ssl.SSLContext:
        """A server's TLS with a certificate of this authority for the name `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        both = self._folder / f"{host}.pem"
        both.write_bytes(private + _pem(self._sign(_named(host), key, host)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class _Front:
    """The listening socket, what it was asked, and the threads that serve it."""

    def __init__(self, upstream: tuple[str, int], context: ssl.SSLContext) -> None:
        self._upstream = upstream
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.served = 0

    def accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:  # the client hung up: it did not like the certificate
            while (asked := client.recv(8)) == _GSS_REQUEST:
                client.sendall(b"N")
            if asked != _SSL_REQUEST:
                return  # no TLS, no service: as `hostssl` in pg_hba.conf
            client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as secured:
                self.served += 1
                with socket.create_connection(self._upstream) as server:
                    there = threading.Thread(target=_pump, args=(secured, server), daemon=True)
                    there.start()
                    _pump(server, secured)
                    there.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_front(host: str, port: int, context: ssl.SSLContext) -> Generator[_Front]:
    """Serve the PostgreSQL at `host`:`port` with TLS on `127.0.0.1`; yields what has `port` and `served`."""
    front = _Front((host, port), context)
    threading.Thread(target=front.accept, daemon=True).start()
    try:
        yield front
    finally:
        front.close()
