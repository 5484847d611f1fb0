"""Browsers' tokens: which are taken, and which are refused and why."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest

from gateway.door.signed_tokens import (
    AUDIENCE,
    ISSUER,
    MAX_CHARS,
    BrowserClaims,
    SignedTokenError,
    looks_signed,
    sign,
    verify,
)
from gateway.door.token_file import SigningKey

NOW = 1_764_237_600
KEY = SigningKey("k1", bytes(range(32)))
CLAIMS = BrowserClaims("t1", "j1", NOW, NOW + 600, 1)


def payload(**changes: Any) -> dict[str, Any]:
    """The claims of a right token with some of them changed. None leaves one out."""
    right = {
        "iss": ISSUER, "aud": AUDIENCE, "tid": "t1", "jti": "j1", "iat": NOW,
        "exp": NOW + 600, "scope": "session", "sessions": 1,
    }  # fmt: skip
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


def refused(token: str, now: float = NOW, key: SigningKey = KEY) -> SignedTokenError:
    with pytest.raises(SignedTokenError) as caught:
        verify(key, ("k0",), token, now)
    return caught.value


def part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("claims", [CLAIMS, replace(CLAIMS, avatars=("ada", "leo"), session_seconds=60)])
def test_claims_come_back(claims: BrowserClaims) -> None:
    token = sign(KEY, claims)
    assert looks_signed(token) and verify(KEY, (), token, NOW + 599) == claims


def test_times() -> None:
    token = sign(KEY, CLAIMS)
    assert refused(token, NOW + 600).expired
    assert refused(token, NOW - 10).early
    later = jwt.encode(payload(nbf=NOW + 100), KEY.secret, "HS256")
    assert refused(later).early and verify(KEY, (), later, NOW + 100) == CLAIMS


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "another"}, {"aud": "program"}, {"aud": None}, {"iss": None}, {"exp": None},
        {"jti": None}, {"tid": None}, {"scope": "session mint"}, {"scope": "mint"},
        {"exp": NOW + 86401}, {"exp": "never"}, {"exp": True}, {"sessions": "1"}, {"avatars": "ada"},
        {"avatars": [1]}, {"nbf": "x"}, {"session_seconds": 1.5},
    ],
)  # fmt: skip
def test_other_claims_are_refused(changes: dict[str, Any]) -> None:
    error = refused(jwt.encode(payload(**changes), KEY.secret, "HS256"))
    assert not error.expired and not error.early


def test_other_algorithms_are_refused() -> None:
    # `none` without a signature, and with the right one of HS256.
    for header in ({"alg": "none", "typ": "JWT"}, {"alg": "None"}, {"alg": "nOnE"}, {"typ": "JWT"}):
        unsigned = f"{part(header)}.{part(payload())}."
        refused(unsigned)
        refused(unsigned + sign(KEY, CLAIMS).rpartition(".")[2])
    for algorithm in ("HS384", "HS512"):
        refused(jwt.encode(payload(), KEY.secret * 2, algorithm))
    # RS256 in the header, signed by HS256: the confusion of public key and secret.
    right = sign(KEY, CLAIMS).split(".")
    refused(f"{part({'alg': 'RS256', 'kid': 'k1'})}.{right[1]}.{right[2]}")
    signed = jwt.encode(payload(), KEY.secret, "HS256", headers={"alg": "HS256"}).split(".")
    refused(f"{part({'alg': 'RS256'})}.{signed[1]}.{signed[2]}")


def test_other_keys_are_refused() -> None:
    assert not refused(sign(SigningKey("k1", bytes(32)), CLAIMS)).retired
    assert refused(sign(SigningKey("k0", KEY.secret), CLAIMS)).retired
    # Keys that a header brings or names are not looked at.
    for header in (
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://evil.example/k"},
        {"kid": "../../x"},
    ):
        refused(jwt.encode(payload(), bytes(32), "HS256", headers=header))


@pytest.mark.parametrize(
    "token", ["..", "a.b.c", "e30.e30.", "é.é.é", "." * 50, "\0.\0.\0", "e30." + "W" * 4000 + ".x", "1.2.3"]
)
def test_garbage_is_refused(token: str) -> None:
    refused(token)


def test_a_changed_token_is_refused() -> None:
    token = sign(KEY, CLAIMS)
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        refused(token[:place] + other + token[place + 1 :])
    refused(token + "A" * MAX_CHARS)
    nested = "[" * 3000 + "]" * 3000
    refused("e30." + base64.urlsafe_b64encode(nested.encode()).decode().rstrip("=")[:3900] + ".AAAA")


def test_the_secret_is_in_no_text() -> None:
    assert KEY.secret.hex() not in repr(KEY) and "secret" not in repr(KEY)
