"""A certificate and its key from files: read, checked, and told in a sentence when something is wrong."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

#: More than any chain of certificates. It bounds a flag that names a wrong file.
MAX_BYTES = 1 << 20

#: Tells whether a file has changed: device, inode, size, and both times.
Signature = tuple[int, ...]


class CertificateError(RuntimeError):
    """A certificate cannot serve. The text names the flag and the file, and says how to put it right."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where certificate and key lie. Both may be one file."""

    certificate: Path
    key: Path
    #: Names of the files in messages, such as the flags that gave them.
    certificate_name: str = "--tls-cert"
    key_name: str = "--tls-key"

    def signature(self) -> tuple[Signature, ...]:
        """Changes when one of the files is replaced or written, also behind symbolic links.

        Raises:
            CertificateError: a file is not there or may not be looked at.
        """
        return self._signature(self.certificate, self.certificate_name), self._signature(
            self.key, self.key_name
        )

    @staticmethod
    def _signature(path: Path, name: str) -> Signature:
        try:
            found = path.stat()
        except OSError as error:
            raise CertificateError(f"{name} {path}: {error.strerror}") from None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was read and fits its key."""

    leaf: x509.Certificate
    #: For new connections, with this certificate.
    context: ssl.SSLContext
    signature: tuple[Signature, ...]

    @property
    def ends(self) -> datetime:
        """When it expires, UTC."""
        return self.leaf.not_valid_after_utc


def read_certificate(files: CertificateFiles, now: datetime | None = None) -> Certificate:
    """Read and check a certificate with its key.

    Args:
        files: where they lie.
        now: the time to check the dates against, with a zone. None: the present.

    Raises:
        CertificateError: a file cannot be read, is of another kind, or is encrypted; the key does not fit;
            the certificate is expired or not valid yet; the files changed meanwhile.
    """
    signature = files.signature()
    chain = _read_chain(files)
    key = _read_key(files)
    _check_fit(files, chain, key)
    _check_dates(files, chain[0], now or datetime.now(timezone.utc))
    context = _server_context(files)
    if files.signature() != signature:
        raise CertificateError(f"{files.certificate_name} {files.certificate}: it changed while it was read")
    return Certificate(chain[0], context, signature)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        remedy = f"; let user {os.getuid()} read it" if isinstance(error, PermissionError) else ""
        raise CertificateError(f"{name} {path}: {error.strerror}{remedy}") from None


def _read_chain(files: CertificateFiles) -> list[x509.Certificate]:
    data = _read_bytes(files.certificate, files.certificate_name)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        pass
    told = f"{files.certificate_name} {files.certificate}"
    if b"PRIVATE KEY-----" in data:
        raise CertificateError(f"{told}: this is a key, not a certificate; are the two flags exchanged?")
    if data[:1] == b"\x30":  # ASN.1's SEQUENCE
        raise CertificateError(
            f"{told}: it is in DER form; write it as PEM: openssl x509 -inform der -in FILE -out NEW.pem"
        )
    raise CertificateError(f"{told}: there is no readable certificate in it (PEM form is expected)")


def _read_key(files: CertificateFiles) -> PrivateKeyTypes:
    data = _read_bytes(files.key, files.key_name)
    told = f"{files.key_name} {files.key}"
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:  # it wants a password
        raise CertificateError(
            f"{told}: the key is encrypted, and nobody is there to type its password;"
            " write one without: openssl pkey -in FILE -out NEW.pem"
        ) from None
    except UnsupportedAlgorithm as error:
        raise CertificateError(f"{told}: a key of this kind cannot be used ({error})") from None
    except ValueError:
        pass
    if b"PRIVATE KEY-----" not in data and b"CERTIFICATE-----" in data:
        raise CertificateError(f"{told}: this is a certificate, not a key; are the two flags exchanged?")
    raise CertificateError(f"{told}: there is no readable private key in it (PEM form is expected)")


def _check_fit(files: CertificateFiles, chain: list[x509.Certificate], key: PrivateKeyTypes) -> None:
    try:
        fitting = [_public_bytes(key) == _public_bytes(certificate) for certificate in chain]
    except (UnsupportedAlgorithm, ValueError) as error:  # a certificate is read without its key
        told = f"{files.certificate_name} {files.certificate}"
        raise CertificateError(
            f"{told}: a certificate with a key of this kind cannot be used ({error})"
        ) from None
    if fitting[0]:
        return
    if any(fitting):
        raise CertificateError(
            f"{files.certificate_name} {files.certificate}: the server's own certificate must come first,"
            " before those of its issuers"
        )
    raise CertificateError(
        f"{files.key_name} {files.key}: the key does not fit {files.certificate_name} {files.certificate}"
    )


def _public_bytes(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
    return holder.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_dates(files: CertificateFiles, leaf: x509.Certificate, now: datetime) -> None:
    told = f"{files.certificate_name} {files.certificate}"
    if now > leaf.not_valid_after_utc:
        ended = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(f"{told}: the certificate expired on {ended}; renew it")
    if now < leaf.not_valid_before_utc:
        raise CertificateError(
            f"{told}: the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} on;"
            " is this machine's clock right?"
        )


def _server_context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A browser that may choose HTTP/2 would, and the gateway speaks HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a function, OpenSSL would ask for the password of a key that was encrypted just now.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise CertificateError(
            f"{files.certificate_name} {files.certificate}: OpenSSL refuses it ({reason})"
        ) from None
    except OSError as error:
        raise CertificateError(f"{files.certificate_name} {files.certificate}: {error.strerror}") from None
    return context


def _no_password() -> NoReturn:
    raise ssl.SSLError("the key is encrypted")
