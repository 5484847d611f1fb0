"""Asks for tokens: turns a request's token into a grant, or says why not.

A refusal has a code for programs and a sentence for people. The codes are:

| code | status | meaning |
|---|---|---|
| `token_missing` | 401 | the request carries no token |
| `token_wrong` | 401 | the token is none of this server's |
| `token_expired` | 401 | its time is over, or not yet come |
| `token_revoked` | 401 | the token, or the one that it was minted with, was revoked |
| `scope` | 403 | the token is right, but not for this |
| `slow_down` | 429 | too many wrong tokens came from this address; Retry-After says when to come again |
| `token_file` | 503 | the token file cannot be used; the log says why |
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from gateway.door.minting import MintError, claims_for
from gateway.door.signed_tokens import (
    MAX_CHARS,
    BrowserClaims,
    SignedTokenError,
    looks_signed,
    sign,
    verify,
)
from gateway.door.throttle import Throttle
from gateway.door.token_file import SCOPES, ProgramToken, TokenBook, TokenFileError
from gateway.door.token_watch import TokenWatch

logger = logging.getLogger(__name__)


class TokenRefused(Exception):
    """A request may not do what it asks for. `code` is for programs, the text for people."""

    def __init__(self, code: str, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        #: Seconds until it is worth trying again.
        self.retry_after = retry_after


@dataclass(frozen=True)
class Quota:
    """Sessions at once of everyone who shares `key`."""

    key: str
    most: int


@dataclass(frozen=True)
class Grant:
    """The rights of one request."""

    #: Name of the token, for the log. Empty where no token is asked for.
    name: str = ""
    scopes: tuple[str, ...] = SCOPES
    #: Id of the program's token behind this grant.
    token_id: str = ""
    #: Id of the key that signed a browser's token. Empty for a program's own token.
    key_id: str = ""
    #: The avatars that it may use. None: all.
    avatars: tuple[str, ...] | None = None
    quotas: tuple[Quota, ...] = ()
    #: Longest time of one session, in seconds. None: as long as it likes.
    session_seconds: int | None = None

    def may_use(self, avatar: str) -> bool:
        """Whether this avatar is among those that it may use."""
        return self.avatars is None or avatar in self.avatars


#: The grant of everybody where no token is asked for.
EVERYBODY = Grant()


class Guard:
    """Judges tokens. Without a token file, everybody may do everything."""

    def __init__(
        self,
        watch: TokenWatch | None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the watched token file, and the clocks of the throttle and of the tokens' times."""
        self._watch = watch
        self._clock = clock
        self._wall_clock = wall_clock
        self.throttle = Throttle()
        #: Refusals by code, for /metrics.
        self.refused: dict[str, int] = {}

    @property
    def asks(self) -> bool:
        """Whether tokens are asked for at all."""
        return self._watch is not None

    def check(self, token: str | None, address: str, scope: str) -> Grant:
        """The grant of a request.

        Args:
            token: the token that it carries.
            address: of the client, behind trusted proxies too.
            scope: the scope that the request needs.

        Raises:
            TokenRefused: it may not come in.
        """
        if self._watch is None:
            return EVERYBODY
        try:
            grant = self._grant(self._watch, token, address)
            if scope not in grant.scopes:
                raise TokenRefused("scope", HTTPStatus.FORBIDDEN, f"This token has not the scope {scope}.")
        except TokenRefused as refusal:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            raise
        return grant

    def lost(self, grant: Grant) -> TokenRefused | None:
        """Why a grant that was given earlier holds no more. None while it holds."""
        if self._watch is None:
            return None
        book = self._watch.last_good()
        try:
            self._program(book, grant.token_id)
        except TokenRefused as refusal:
            return refusal
        if grant.key_id and grant.key_id != book.key.id:
            return _revoked()
        return None

    def mint(self, grant: Grant, fields: dict[str, str]) -> dict[str, object]:
        """Mint a browser's token for the holder of `grant`, which has the scope `mint`.

        Args:
            grant: as `check` gave it.
            fields: the wishes, as `minting.claims_for` takes them.

        Returns:
            The answer's fields: `token`, `expires` in Unix seconds, `ttl` in seconds.

        Raises:
            MintError: a wish cannot be had.
        """
        if self._watch is None:
            raise MintError("This server asks for no tokens, so it mints none.")
        book = self._watch.last_good()
        entry, now = book.by_id(grant.token_id), int(self._wall_clock())
        if entry is None:  # revoked since `check`
            raise MintError("This token was revoked.")
        claims = claims_for(entry, fields, now)
        return {"token": sign(book.key, claims), "expires": claims.expires, "ttl": claims.expires - now}

    # ---- one token

    def _grant(self, watch: TokenWatch, token: str | None, address: str) -> Grant:
        try:
            book = watch.book()
        except TokenFileError:
            raise TokenRefused(
                "token_file",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server's token file cannot be used; its log says why.",
            ) from None
        if token is None:
            raise TokenRefused("token_missing", HTTPStatus.UNAUTHORIZED, "A token is needed here.")
        if wait := self.throttle.wait(address, token, self._clock()):
            seconds = math.ceil(wait)
            raise TokenRefused(
                "slow_down",
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many wrong tokens came from this address. Try again in {seconds} s.",
                seconds,
            )
        if len(token) <= MAX_CHARS:
            if looks_signed(token):
                return self._grant_of_signed(book, token, address)
            entry = book.find(token)
            if entry is not None:
                return _grant_of(self._program(book, entry.id))
        raise self._wrong(address)

    def _grant_of_signed(self, book: TokenBook, token: str, address: str) -> Grant:
        try:
            claims = verify(book.key, book.retired, token, self._wall_clock())
        except SignedTokenError as error:
            if error.expired or error.early:
                why = "has expired" if error.expired else "is not valid yet"
                raise TokenRefused("token_expired", HTTPStatus.UNAUTHORIZED, f"This token {why}.") from None
            wrong = self._wrong(address)  # also counts it: nothing says that the signature was ever right
            raise (_revoked() if error.retired else wrong) from None
        return _grant_of(self._program(book, claims.token_id), claims, book.key.id)

    def _program(self, book: TokenBook, token_id: str) -> ProgramToken:
        """The program's token with this id, which must hold."""
        entry = book.by_id(token_id)
        if entry is None or entry.revoked is not None:
            raise _revoked()
        if entry.expires is not None and self._wall_clock() >= entry.expires:
            raise TokenRefused("token_expired", HTTPStatus.UNAUTHORIZED, "This token has expired.")
        return entry

    def _wrong(self, address: str) -> TokenRefused:
        self.throttle.count_wrong(address, self._clock())
        return TokenRefused("token_wrong", HTTPStatus.UNAUTHORIZED, "This token is none of this server's.")


def _grant_of(entry: ProgramToken, claims: BrowserClaims | None = None, key_id: str = "") -> Grant:
    """The rights of a program's token, or of a browser's token that it minted."""
    quotas = () if entry.sessions is None else (Quota(f"token {entry.id}", entry.sessions),)
    if claims is None:
        return Grant(entry.name, entry.scopes, entry.id, "", entry.avatars, quotas)
    avatars = claims.avatars
    if avatars is not None and entry.avatars is not None:
        avatars = tuple(avatar for avatar in avatars if avatar in entry.avatars)
    elif avatars is None:
        avatars = entry.avatars
    return Grant(
        name=entry.name,
        scopes=("session",),
        token_id=entry.id,
        key_id=key_id,
        avatars=avatars,
        quotas=(*quotas, Quota(f"browser {claims.jti}", claims.sessions)),
        session_seconds=claims.session_seconds,
    )


def _revoked() -> TokenRefused:
    return TokenRefused("token_revoked", HTTPStatus.UNAUTHORIZED, "This token was revoked.")
