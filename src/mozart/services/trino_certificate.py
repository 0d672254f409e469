"""A certificate for Trino made by ourselves, for a loopback address or a name within one network, trusted by file.

One file holds key and certificate (mode 0600, for the server), another the certificate alone (for clients). Kept until
it is about to end. A server that others reach needs a certificate of a real authority instead.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mozart.services.secrets import write_private

_VALID = timedelta(days=365)
_RENEWED_BEFORE_END = timedelta(days=30)


def ensure_certificate(server_file: Path, client_file: Path, host: str) -> None:
    """Both files, made anew when one is missing or ends within a month. `host` is an IP address or a name."""
    if server_file.is_file() and client_file.is_file():
        known = x509.load_pem_x509_certificate(client_file.read_bytes())
        if known.not_valid_after_utc - _RENEWED_BEFORE_END > datetime.now(UTC):
            return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(key, host).public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    write_private(server_file, private + certificate)
    write_private(client_file, certificate)


def _sign(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mozart-trino")])
    now = datetime.now(UTC)
    alternatives = [x509.DNSName("localhost"), _alternative(host)]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
