"""TLS on the gateway's port: the present certificate, its renewal, and an answer to plain HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from cryptography.hazmat.primitives import hashes

from gateway.door.certificates import Certificate, CertificateError, CertificateFiles, read_certificate
from gateway.door.self_signed import ensure_certificate, wanted_names
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two looks at the files.
LOOK_EVERY = 5.0
#: A user's certificate that ends sooner than this is warned of.
WARN_BEFORE = timedelta(days=7)

_HOST = re.compile(rb"^host:[ \t]*([A-Za-z0-9.\-_:\[\]]{1,255})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class TlsGate:
    """The certificate that new connections get. A renewed one replaces it while the gateway runs.

    Attributes:
        context: for the server. It stays, whatever certificate serves.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the certificate, or make the self-signed one.

        Raises:
            CertificateError: there is none that can serve. The text says why.
        """
        self._settings = settings
        self._files, _ = self._find_files()
        self._certificate = read_certificate(self._files)
        self._told = ""
        self._warned = False
        self.context = _GateContext()
        self._take(self._certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it."""
        return self._certificate.leaf.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def _end(self) -> str:
        return f"{self._certificate.ends:%Y-%m-%d %H:%M} UTC"

    async def watch(self) -> None:
        """Look for a new certificate every few seconds, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.to_thread(self.look)  # files may lie on a slow disk

    def look(self) -> None:
        """Take a certificate that has changed. If it cannot serve, the old one stays."""
        try:
            self._files, made = self._find_files()
            if self._files.signature() != self._certificate.signature:
                self._take(read_certificate(self._files))
                why = "made anew" if made else "read anew"
                logger.info("the certificate was %s; it ends on %s", why, self._end)
            self._told = ""
            self._warn_of_end()
        except CertificateError as error:
            if str(error) != self._told:
                self._told = str(error)
                logger.warning("%s. The certificate before it still serves.", error)

    def _find_files(self) -> tuple[CertificateFiles, bool]:
        settings = self._settings
        if settings.tls_cert is not None and settings.tls_key is not None:
            return CertificateFiles(settings.tls_cert, settings.tls_key), False
        return ensure_certificate(wanted_names(settings.host, settings.allowed_hosts))

    def _take(self, certificate: Certificate) -> None:
        self._certificate = certificate
        certificate.context.sslobject_class = _Handshake
        self.context.current = certificate.context
        self._warned = False

    def _warn_of_end(self) -> None:
        left = self._certificate.ends - datetime.now(timezone.utc)
        if left < WARN_BEFORE and not self._warned:
            self._warned = True
            logger.warning("the certificate ends on %s; renew it", self._end)


class _GateContext(ssl.SSLContext):
    """Begins each connection by the present certificate's own context.

    `load_cert_chain` with a key that does not fit would leave a context that serves without any usable pair.
    """

    current: ssl.SSLContext

    def __new__(cls) -> _GateContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **options: Any
    ) -> ssl.SSLObject:
        connection = self.current.wrap_bio(incoming, outgoing, *arguments, **options)
        assert isinstance(connection, _Handshake)
        connection.incoming, connection.outgoing = incoming, outgoing
        return connection


class _Handshake(ssl.SSLObject):
    """Answers a client that speaks plain HTTP with the address it should use, instead of a reset."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    #: OpenSSL's reasons for a first message that is no TLS.
    _PLAIN: ClassVar[tuple[str, ...]] = ("HTTP_REQUEST",)
    _answered = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason not in self._PLAIN or self._answered:
                raise
            self._answered = True
            self.outgoing.read()
            self.outgoing.write(plain_http_answer(self.incoming.read()))
            # The loop sends what is to be sent when more input is wanted. The client closes after the answer,
            # or the time-out for handshakes does.
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "a plain HTTP request was answered") from None


def plain_http_answer(request: bytes) -> bytes:
    """The answer to a plain HTTP request on a TLS port.

    Args:
        request: its head. OpenSSL has taken the first bytes, so the path is not known.
    """
    host = _HOST.search(request.partition(b"\r\n\r\n")[0])
    text = b"This port speaks HTTPS. Write https:// in the address.\n"
    status, location = b"400 Bad Request", b""
    if host:
        # Temporary: a browser would keep a permanent one after the server has gone back to plain HTTP.
        status, location = b"307 Temporary Redirect", b"Location: https://%s/\r\n" % host[1]
    return (
        b"HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\n%s" % (status, location, len(text), text)
    )
