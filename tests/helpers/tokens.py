"""A token file that tests change while a gateway reads it, and tokens that no gateway may take."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.door.signed_tokens import AUDIENCE, ISSUER, new_jti
from gateway.door.token_file import (
    TokenBook,
    add_token,
    entry_for,
    new_book,
    new_token,
    read_book,
    revoke_token,
    rotate_key,
    write_book,
    writing,
)


class TokenBox:
    """A token file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self.put(new_book())

    @property
    def book(self) -> TokenBook:
        return read_book(self.path)

    def put(self, book: TokenBook) -> None:
        with writing(self.path):
            write_book(self.path, book)

    def add(self, name: str, *scopes: str, made: int = 0, **limits: Any) -> str:
        """A new program's token; `session` where no scope is named."""
        token = new_token()
        entry = entry_for(token, name, scopes or ("session",), made or int(time.time()), **limits)
        self.put(add_token(self.book, entry))
        return token

    def revoke(self, name: str) -> None:
        self.put(revoke_token(self.book, name, int(time.time())))

    def rotate(self) -> None:
        self.put(rotate_key(self.book))

    def claims(self, name: str, **changes: Any) -> dict[str, Any]:
        """The claims of a good browser's token of the program `name`, with changes. None leaves one out."""
        entry, now = self.book.by_name(name), int(time.time())
        assert entry is not None
        claims: dict[str, Any] = {
            "iss": ISSUER, "aud": AUDIENCE, "tid": entry.id, "jti": new_jti(), "iat": now, "exp": now + 600,
            "scope": "session", "sessions": 1,
        }  # fmt: skip
        return {key: value for key, value in (claims | changes).items() if value is not None}

    def signed(self, name: str, **changes: Any) -> str:
        """A browser's token with a right signature over these claims."""
        return jwt.encode(self.claims(name, **changes), self.book.key.secret, "HS256")

    def forged(self, name: str) -> dict[str, str]:
        """Tokens whose claims are right and whose signatures are not, by the trick."""
        claims, good = self.claims(name), self.signed(name)
        pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        header, payload, signature = good.split(".")
        return {
            "alg none, no signature": f"{_part({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
            "alg NoNe, another token's signature": f"{_part({'alg': 'NoNe'})}.{payload}.{signature}",
            "no alg": f"{_part({'typ': 'JWT'})}.{payload}.{signature}",
            "RS256 with a key of the attacker's": jwt.encode(claims, pair, "RS256"),
            "RS256 in the header, HS256 signature": f"{_part({'alg': 'RS256'})}.{payload}.{signature}",
            "HS256 with a public key as secret": f"{header}.{payload}.{_hmac(public, header, payload)}",
            "HS512": jwt.encode(claims, self.book.key.secret * 2, "HS512"),
            "HS256 with an empty secret": f"{header}.{payload}.{_hmac(b'', header, payload)}",
            "HS256 of another server's key": jwt.encode(claims, bytes(32), "HS256"),
            "a key in the header (jwk)": jwt.encode(
                claims, bytes(32), "HS256", headers={"jwk": {"kty": "oct", "k": "A" * 43}}
            ),
            "claims changed, signature kept": f"{header}.{_part({**claims, 'sessions': 99})}.{signature}",
        }


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _hmac(secret: bytes, header: str, payload: str) -> str:
    # By hand: PyJWT signs with neither of these secrets.
    digest = hmac.digest(secret, f"{header}.{payload}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
