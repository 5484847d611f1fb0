"""Content Credentials (C2PA) in finished recordings, where `c2pa-python` is installed and a key was given.

A signature says who made a file and that it was not changed since. It needs a certificate of the operator's
own. Programs that check it trust the certificates of C2PA's list. Others show as "not trusted".
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from protocol.process.logs import first_line
from protocol.process.settings import Settings
from protocol.wire.generated import DIGITAL_SOURCE_TYPE

logger = logging.getLogger(__name__)

GENERATOR = "echomimic-live"
#: Formats that take credentials, by ending.
SIGNED = {".mp4": "video/mp4"}


class Signer:
    """Signs files. Without a key it leaves them as they are."""

    def __init__(self, certificates: bytes = b"", key: bytes = b"") -> None:
        """Take the certificate followed by those of its issuers, and its key, both PEM."""
        self._certificates = certificates
        self._key = key

    @classmethod
    def of(cls, settings: Settings) -> Signer:
        """The signer that the settings ask for. One that cannot be had is told in the log."""
        if settings.c2pa_cert is None or settings.c2pa_key is None:
            return cls()
        try:
            import c2pa  # noqa: F401 - whether it loads

            return cls(settings.c2pa_cert.read_bytes(), settings.c2pa_key.read_bytes())
        except (ImportError, OSError) as error:
            logger.warning("recordings are not signed: %s", first_line(error))
            return cls()

    def sign(self, path: Path) -> None:
        """Put credentials into a finished file. One that cannot be signed stays as it is."""
        if not self._key or path.suffix not in SIGNED:
            return
        signed = path.with_suffix(".signed" + path.suffix)
        try:
            self._sign(path, signed)
            os.chmod(signed, 0o600)
            os.replace(signed, path)
        # The library raises errors of its own for keys, certificates and files.
        except Exception as error:
            logger.warning("a recording could not be signed: %s", first_line(error))
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, path: Path, signed: Path) -> None:
        import c2pa

        info: Any = c2pa.C2paSignerInfo(_algorithm(self._key), self._certificates, self._key, None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest(path.name))) as builder:
            builder.sign_file(str(path), str(signed), signer)


def manifest(title: str) -> dict[str, Any]:
    """The claim: the file was created by a model."""
    action = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCE_TYPE,
        "softwareAgent": {"name": GENERATOR},
    }
    return {
        "claim_generator_info": [{"name": GENERATOR}],
        "title": title,
        "format": SIGNED[Path(title).suffix],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _algorithm(key: bytes) -> bytes:
    """C2PA's name of the algorithm of a private key.

    Raises:
        ValueError: C2PA has none for this key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = load_pem_private_key(key, None)
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    curves = {256: b"es256", 384: b"es384", 521: b"es512"}
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.key_size in curves:
        return curves[found.curve.key_size]
    raise ValueError("the key of --c2pa-key is neither Ed25519 nor one of P-256, P-384 and P-521")
