"""Addresses of the page that carry a browser's token.

The token stands behind `#`, which a browser never sends: it comes into no log of a server or proxy.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.door.minting import claims_for
from gateway.door.signed_tokens import sign
from gateway.door.token_file import ProgramToken, TokenBook, TokenFileError
from protocol.process.settings import tokens_command


@dataclass(frozen=True, slots=True)
class PageLink:
    """An address that lets in whoever opens it, until `ends` in Unix seconds."""

    url: str
    ends: int


def token_for_links(book: TokenBook, name: str | None, now: float) -> ProgramToken:
    """The program's token to make a link with.

    Args:
        book: the token file's contents.
        name: of the token. None: the first one that can.
        now: Unix seconds.

    Raises:
        TokenFileError: there is none, or it holds no more, or it may not mint.
    """
    able = [entry for entry in book.tokens if _can(entry, now)]
    if name is None:
        if not able:
            raise TokenFileError(f"no token may mint others; make one with: {tokens_command()} add NAME")
        return able[0]
    entry = book.by_name(name)
    if entry is None:
        names = ", ".join(entry.name for entry in able) or "none"
        raise TokenFileError(f"there is no token {name}; there are {names}")
    if entry not in able:
        raise TokenFileError(f"the token {name} was revoked, has expired, or has not the scope mint")
    return entry


def make_page_link(
    book: TokenBook, entry: ProgramToken, base: str, wishes: dict[str, str], now: int
) -> PageLink:
    """A link to the page at `base`.

    Args:
        book: the token file's contents.
        entry: the program's token that answers for the link.
        base: address of the page.
        wishes: as `minting.claims_for` takes them. Own avatars need no wish: whoever opens the link may bring
            some where the program's token may.
        now: Unix seconds.

    Raises:
        MintError: a wish cannot be had.
    """
    own = "1" if "avatars" in entry.scopes else "0"
    claims = claims_for(entry, {"own_avatars": own, **wishes}, now)
    return PageLink(f"{base.partition('#')[0]}#token={sign(book.key, claims)}", claims.expires)


def _can(entry: ProgramToken, now: float) -> bool:
    holds = entry.revoked is None and (entry.expires is None or now < entry.expires)
    return holds and "mint" in entry.scopes
