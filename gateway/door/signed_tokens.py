"""Short-lived signed tokens for browsers: JWT with HS256, minted for a program by the gateway.

A browser's token admits sessions, and own avatars where its program says so. It names the program's token
that it was minted with. When the program's token is revoked, the browser's token is void too. Its text is
short, so that an address that holds it fits a QR code. The algorithm, the issuer and the audience are fixed.
A header that names another algorithm (`none`, RS256) is refused before any key is used.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import jwt

from gateway.door.token_file import SigningKey

#: Seconds for which a browser's token admits sessions, if the program does not say, and at most.
DEFAULT_TTL = 600
MAX_TTL = 86400
#: Sessions at once of a browser's token, if the program does not say.
DEFAULT_SESSIONS = 1
ALGORITHM = "HS256"
ISSUER = "echomimic-live"
AUDIENCE = "browser"
#: Longest token that is looked at, in characters.
MAX_CHARS = 4096
_NEEDED = ["iss", "aud", "tid", "jti", "iat", "exp", "scope", "sessions"]


class SignedTokenError(Exception):
    """A browser's token is refused. `expired` and `early` (not yet valid) tokens have a right signature."""

    def __init__(self, message: str, *, expired: bool = False, early: bool = False, retired: bool = False):
        super().__init__(message)
        self.expired = expired
        self.early = early
        #: It names a signing key of the past, so its signature cannot be checked.
        self.retired = retired


@dataclass(frozen=True)
class BrowserClaims:
    """What a browser's token says. Times are Unix seconds."""

    #: Id of the program's token that it was minted with.
    token_id: str
    #: Tells this token from others.
    jti: str
    issued: int
    expires: int
    #: Sessions at once.
    sessions: int
    #: The avatars that it may use. None: those of the program's token.
    avatars: tuple[str, ...] | None = None
    #: Longest time of one session, in seconds. None: as long as it likes.
    session_seconds: int | None = None
    #: The program's word for the person, whose own avatars outlast this token. Empty: none.
    subject: str = ""
    #: Whether avatars may be brought with it.
    own_avatars: bool = False

    @property
    def scopes(self) -> tuple[str, ...]:
        """Its scopes."""
        return ("session", "avatars") if self.own_avatars else ("session",)


def sign(key: SigningKey, claims: BrowserClaims) -> str:
    """The token with these claims."""
    payload: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "tid": claims.token_id,
        "jti": claims.jti,
        "iat": claims.issued,
        "exp": claims.expires,
        "scope": " ".join(claims.scopes),
        "sessions": claims.sessions,
    }
    if claims.avatars is not None:
        payload["avatars"] = list(claims.avatars)
    if claims.session_seconds is not None:
        payload["session_seconds"] = claims.session_seconds
    if claims.subject:
        payload["sub"] = claims.subject
    return jwt.encode(payload, key.secret, algorithm=ALGORITHM, headers={"kid": key.id, "typ": None})


def new_jti() -> str:
    """An id for a browser's token."""
    return secrets.token_urlsafe(6)


def looks_signed(token: str) -> bool:
    """Whether a token has the form of a browser's token: three parts with dots between them."""
    return token.count(".") == 2


def verify(key: SigningKey, retired: tuple[str, ...], token: str, now: float) -> BrowserClaims:
    """The claims of a browser's token whose signature, issuer, audience and times are right.

    Args:
        key: the key that signs now.
        retired: ids of earlier keys.
        token: the token.
        now: Unix seconds.

    Raises:
        SignedTokenError: the token is refused.
    """
    if len(token) > MAX_CHARS:
        raise SignedTokenError("it is too long")
    try:
        if jwt.get_unverified_header(token).get("kid") in retired:
            raise SignedTokenError("its signing key was replaced", retired=True)
        payload = jwt.decode(
            token,
            key.secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            # The times are compared below, by the caller's clock.
            options={
                "require": _NEEDED,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
        claims = _claims_of(payload)
        not_before = max(claims.issued, _whole(payload.get("nbf", 0)))
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise SignedTokenError(f"it is not one of this server's ({type(error).__name__})") from None
    if now >= claims.expires:
        raise SignedTokenError("it has expired", expired=True)
    if now + 1 < not_before:  # `issued` is a whole second, and this process's clock may be set back a little
        raise SignedTokenError("it is not valid yet", early=True)
    return claims


def _claims_of(payload: dict[str, object]) -> BrowserClaims:
    """The claims by name. Raises ValueError for a token that this server does not make."""
    avatars, longest = payload.get("avatars"), payload.get("session_seconds")
    if avatars is not None and not (isinstance(avatars, list) and all(isinstance(a, str) for a in avatars)):
        raise ValueError("avatars")
    claims = BrowserClaims(
        token_id=_text(payload["tid"]),
        jti=_text(payload["jti"]),
        issued=_whole(payload["iat"]),
        expires=_whole(payload["exp"]),
        sessions=_whole(payload["sessions"]),
        avatars=None if avatars is None else tuple(avatars),
        session_seconds=None if longest is None else _whole(longest),
        subject=_text(payload.get("sub", "")),
        own_avatars=payload["scope"] == "session avatars",
    )
    if payload["scope"] != " ".join(claims.scopes) or claims.expires - claims.issued > MAX_TTL:
        raise ValueError("scope or time")
    return claims


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("text expected")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("whole number expected")
    return value
