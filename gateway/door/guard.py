"""Asks for tokens: turns a request's token into a grant, or says why not.

A refusal's code is `token_missing`, `token_wrong`, `token_expired` (or not valid yet), `token_revoked`,
`token_scope`, `throttled` or `token_file`. `protocol/SPEC.md` has the meaning of each.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.door.minting import MintError, claims_for
from gateway.door.refusals import Refusal, Refused
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


#: Asks a client for a token in the header, and says that the one which came is no good.
CHALLENGE = ("WWW-Authenticate", 'Bearer realm="echomimic-live"')
CHALLENGE_AGAIN = ("WWW-Authenticate", 'Bearer realm="echomimic-live", error="invalid_token"')

MISSING = Refusal(
    "token_missing", "A token is needed here. Ask the operator for an address with one.", headers=(CHALLENGE,)
)
EXPIRED = Refusal("token_expired", "This token has expired. Ask for a new one.", headers=(CHALLENGE_AGAIN,))
EARLY = Refusal("token_expired", "This token is not valid yet.", headers=(CHALLENGE_AGAIN,))
REVOKED = Refusal("token_revoked", "This token was revoked. Ask for a new one.", headers=(CHALLENGE_AGAIN,))
BAD_FILE = Refusal("token_file", "The server's token file cannot be used. Its log says why.")


@dataclass(frozen=True)
class Quota:
    """Sessions at once of everyone who shares `key`."""

    key: str
    most: int


@dataclass(frozen=True)
class Owner:
    """Whose own avatars are. Nobody else sees them."""

    key: str
    #: Unix seconds until which they are kept. None: until they are removed.
    until: int | None = None


#: Owns the avatars of a machine that asks for no tokens.
THIS_MACHINE = Owner("machine")


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
    #: Whose own avatars its holder sees, and brings.
    owner: Owner = THIS_MACHINE

    def may_use(self, avatar: str) -> bool:
        """Whether this avatar is among those that it may use."""
        return self.avatars is None or avatar in self.avatars

    def full_quota(self, others: Iterable[Grant]) -> Quota | None:
        """A quota that leaves no room beside the sessions with these rights. None where there is room."""
        taken = Counter(quota.key for other in others for quota in other.quotas)
        return next((quota for quota in self.quotas if taken[quota.key] >= quota.most), None)


#: Stands for whichever scope a token has.
ANY = "any"
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

    @property
    def asks(self) -> bool:
        """Whether tokens are asked for at all."""
        return self._watch is not None

    def check(self, token: str | None, address: str, scope: str) -> Grant:
        """The grant of a request.

        Args:
            token: the token that it carries.
            address: of the client, behind trusted proxies too.
            scope: the scope that the request needs. `ANY`: any one scope is enough.

        Raises:
            Refused: it may not come in.
        """
        if self._watch is None:
            return EVERYBODY
        grant = self._grant(self._watch, token, address)
        if scope not in grant.scopes and scope != ANY:
            raise Refused(
                Refusal(
                    "token_scope",
                    f"This token is not for that: it has not the scope {scope}.",
                    f"refused the token {grant.name}: it has not the scope {scope}",
                )
            )
        return grant

    def lost(self, grant: Grant, seconds: float = 0.0) -> Refusal | None:
        """Why a session may not go on. None while it may.

        Args:
            grant: with which it began.
            seconds: for which it has lasted.
        """
        if self._watch is None:
            return None
        book = self._watch.last_good()
        try:
            self._program(book, grant.token_id)
        except Refused as refused:
            return refused.refusal
        if grant.key_id and grant.key_id != book.key.id:
            return REVOKED
        if grant.session_seconds is not None and seconds >= grant.session_seconds:
            return Refusal("token_expired", f"This token's sessions last {grant.session_seconds} s.")
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
            raise Refused(BAD_FILE) from None
        if token is None:
            raise Refused(MISSING)
        if wait := self.throttle.wait(address, token, self._clock()):
            seconds = math.ceil(wait)
            raise Refused(
                Refusal(
                    "throttled",
                    f"Too many wrong tokens came from your address. Try again in {seconds} s.",
                    f"too many wrong tokens from {address}: most of its requests wait",
                    (("Retry-After", str(seconds)),),
                )
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
                raise Refused(EXPIRED if error.expired else EARLY) from None
            wrong = self._wrong(
                address
            )  # a retired key's too: nothing says that its signature was ever right
            raise (Refused(REVOKED) if error.retired else wrong) from None
        return _grant_of(self._program(book, claims.token_id), claims, book.key.id)

    def _program(self, book: TokenBook, token_id: str) -> ProgramToken:
        """The program's token with this id, which must hold."""
        entry = book.by_id(token_id)
        if entry is None or entry.revoked is not None:
            raise Refused(REVOKED)
        if entry.expires is not None and self._wall_clock() >= entry.expires:
            raise Refused(EXPIRED)
        return entry

    def _wrong(self, address: str) -> Refused:
        """Count a wrong token of this address."""
        self.throttle.count_wrong(address, self._clock())
        return Refused(
            Refusal(
                "token_wrong",
                "This token is none of this server's.",
                f"refused a wrong token from {address}",
                (CHALLENGE_AGAIN,),
            )
        )


def _grant_of(entry: ProgramToken, claims: BrowserClaims | None = None, key_id: str = "") -> Grant:
    """The rights of a program's token, or of a browser's token that it minted."""
    quotas = () if entry.sessions is None else (Quota(f"token {entry.id}", entry.sessions),)
    if claims is None:
        owner = Owner(f"token {entry.name}")
        return Grant(entry.name, entry.scopes, entry.id, "", entry.avatars, quotas, owner=owner)
    avatars = claims.avatars
    if avatars is not None and entry.avatars is not None:
        avatars = tuple(avatar for avatar in avatars if avatar in entry.avatars)
    elif avatars is None:
        avatars = entry.avatars
    return Grant(
        name=entry.name,
        scopes=claims.scopes,
        token_id=entry.id,
        key_id=key_id,
        avatars=avatars,
        quotas=(*quotas, Quota(f"browser {claims.jti}", claims.sessions)),
        session_seconds=claims.session_seconds,
        owner=_owner_of(entry, claims),
    )


def _owner_of(entry: ProgramToken, claims: BrowserClaims) -> Owner:
    """The person whom the program named, or else the browser's token itself for as long as it holds."""
    if claims.subject:
        return Owner(f"person {entry.name} {claims.subject}")
    return Owner(f"browser {entry.name} {claims.jti}", claims.expires)
