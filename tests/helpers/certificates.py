"""Certificates with keys, good and bad, as files."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate for localhost, 127.0.0.1 and perhaps other names, and its key, both as PEM."""

    certificate: bytes
    key: bytes
    serial: int

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The files `cert.pem` and `key.pem` in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        cert, key = folder / "cert.pem", folder / "key.pem"
        cert.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return cert, key


def make_pair(
    begins: float = -1, ends: float = 30, password: bytes | None = None, names: Sequence[str] = ()
) -> Pair:
    """A new pair.

    Args:
        begins: days from now until it is valid.
        ends: days from now until it expires.
        password: encrypts the key.
        names: more DNS names.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    known = [*map(x509.DNSName, ("localhost", *names)), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
        certificate.serial_number,
    )


def spki_hash(certificate: bytes) -> str:
    """The hash of a PEM certificate's key by which Chromium can be told to trust it."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    data = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
