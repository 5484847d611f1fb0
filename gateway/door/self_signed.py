"""A self-signed certificate for the machine's names and addresses in its own network.

It is one certificate that signs itself, and no small authority of one's own. Both give the same warning page
at the first visit, and both let the page have the microphone behind it. An authority would spare the warning
only on phones where somebody installs it. Its key could then vouch for every site of the world on that
phone. The key of this certificate vouches for this machine alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.door.certificates import CertificateError, CertificateFiles, read_certificate
from protocol.hop.private_file import replace_file
from protocol.process.addresses import WILDCARDS, own_addresses, own_names, parse_ip
from protocol.process.settings.places import config_dir, make_private_folder
from protocol.process.web_hosts import parse_authority

#: Names of this machine for itself.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: Name of the file with certificate and key. One file is replaced as a whole, so they always fit.
FILE_NAME = "self-signed.pem"
#: Chromium's limit is 398 days, Apple's 825 (398 for authorities that it knows).
LIFE = timedelta(days=397)
#: A clock that is late by less than this accepts a new certificate.
BACKDATED = timedelta(days=1)
#: A certificate is made anew this long before its end.
RENEW_BEFORE = timedelta(days=30)
#: A DNS name in lower case, as certificates take it.
_NAME = re.compile(r"(?=.{1,253}$)(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.|$))+")


def self_signed_files(folder: Path | None = None) -> CertificateFiles:
    """Where the certificate lies, whether or not it is there.

    Args:
        folder: of the file. None: the project's own.
    """
    path = (folder or config_dir(os.environ)) / FILE_NAME
    return CertificateFiles(path, path, "--tls self-signed", "--tls self-signed")


def wanted_names(host: str, more: Iterable[str] = ()) -> list[str]:
    """The names and addresses that the certificate has to have, with those of every interface.

    Args:
        host: as in `--host`.
        more: as in `--allowed-hosts`. Those that stand for a whole domain are left out.
    """
    given = [] if host in WILDCARDS else [host]
    for entry in more:
        authority = parse_authority(entry)
        given.append(entry if authority is None else authority.name)
    names = [*LOOPBACK, *own_names(), *map(str, own_addresses()), *map(str.lower, given)]
    return list(dict.fromkeys(name for name in names if parse_ip(name) or _NAME.fullmatch(name)))


def ensure_certificate(
    names: Sequence[str], folder: Path | None = None, now: datetime | None = None
) -> tuple[CertificateFiles, bool]:
    """Make the certificate where there is none, it nears its end, or it lacks a name.

    IPv6 addresses go into a new certificate, but a missing one makes none: many machines change theirs every
    day, and each new certificate brings the browser's warning back.

    Args:
        names: DNS names and addresses.
        folder: as for `self_signed_files`.
        now: the present, with a zone. None: the clock's.

    Returns:
        Its files, and whether it was made just now.

    Raises:
        CertificateError: it cannot be written.
    """
    files = self_signed_files(folder)
    now = now or datetime.now(timezone.utc)
    if _still_good(files, names, now):
        return files, False
    try:
        make_private_folder(files.key.parent)
        replace_file(files.key, make_certificate(names, now))
    except OSError as error:
        raise CertificateError(
            f"--tls self-signed: {error.filename or files.key}: {error.strerror};"
            " XDG_CONFIG_HOME names another folder"
        ) from None
    return files, True


def make_certificate(names: Sequence[str], now: datetime) -> bytes:
    """A new key and its self-signed certificate as one PEM text.

    Args:
        names: DNS names and addresses. The first DNS name becomes the subject's name too.
        now: the present, with a zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())  # every browser takes P-256; not all take Ed25519
    common = next((name for name in names if parse_ip(name) is None and name != "localhost"), "localhost")
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "echomimic-live, self-signed"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def names_of(certificate: x509.Certificate) -> set[str]:
    """The DNS names and addresses of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def _still_good(files: CertificateFiles, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate = read_certificate(files, now)
        private = files.key.stat().st_mode & 0o077 == 0
    except (CertificateError, OSError):
        return False
    needed = {name for name in names if ":" not in name or name in LOOPBACK}
    return private and needed <= names_of(certificate.leaf) and now < certificate.ends - RENEW_BEFORE


def _general_name(name: str) -> x509.GeneralName:
    address = parse_ip(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)
