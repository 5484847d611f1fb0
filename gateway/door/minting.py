"""A program's wishes for a browser's token, within the limits of its own token."""

from __future__ import annotations

from gateway.door.signed_tokens import DEFAULT_SESSIONS, DEFAULT_TTL, MAX_TTL, BrowserClaims, new_jti
from gateway.door.token_file import NAME, ProgramToken

#: Most avatars that a browser's token lists: it travels in headers and addresses.
MAX_AVATARS = 32
#: Longest time of one session that a token may set, in seconds.
MAX_SESSION_SECONDS = 7 * 86400
WISHES = ("ttl", "sessions", "avatars", "session_seconds", "subject", "own_avatars")


class MintError(ValueError):
    """A wish cannot be had. The text names it and says what can."""


def claims_for(entry: ProgramToken, fields: dict[str, str], now: int) -> BrowserClaims:
    """The claims of a browser's token.

    Args:
        entry: the program's token.
        fields: `ttl` (seconds in which sessions may begin), `sessions` (at once), `avatars` (ids with commas
            between them), `session_seconds` (longest time of one session), `subject` (the person behind the
            browser), `own_avatars` (1: the person may bring some). All may be missing.
        now: Unix seconds.

    Raises:
        MintError: a field is not known, not a number, or beyond the limits.
    """
    unknown = sorted(set(fields) - set(WISHES))
    if unknown:
        raise MintError(f"{unknown[0][:64]!r} is not known here; there are {', '.join(WISHES)}.")
    expires = now + _whole(fields, "ttl", 1, MAX_TTL, DEFAULT_TTL)
    if entry.expires is not None:
        expires = min(expires, entry.expires)
    most = 1000 if entry.sessions is None else entry.sessions
    longest = "session_seconds" in fields
    own = _whole(fields, "own_avatars", 0, 1, 0) == 1
    if own and "avatars" not in entry.scopes:
        raise MintError("own_avatars: this token has not the scope avatars.")
    subject = fields.get("subject", "")
    if "subject" in fields and not NAME.fullmatch(subject):
        raise MintError("subject: give 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return BrowserClaims(
        token_id=entry.id,
        jti=new_jti(),
        issued=now,
        expires=expires,
        sessions=_whole(fields, "sessions", 1, most, min(DEFAULT_SESSIONS, most)),
        avatars=_avatars(fields["avatars"], entry) if "avatars" in fields else None,
        session_seconds=_whole(fields, "session_seconds", 1, MAX_SESSION_SECONDS, 1) if longest else None,
        subject=subject,
        own_avatars=own,
    )


def _avatars(text: str, entry: ProgramToken) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not 1 <= len(names) <= MAX_AVATARS or any(len(name) > 64 for name in names):
        raise MintError(f"avatars: give 1 to {MAX_AVATARS} ids with commas between them.")
    beyond = [name for name in names if entry.avatars is not None and name not in entry.avatars]
    if beyond:
        raise MintError(f"avatars: this token may not use {beyond[0]!r}.")
    return names


def _whole(fields: dict[str, str], name: str, low: int, high: int, default: int) -> int:
    text = fields.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and low <= int(text) <= high):
        raise MintError(f"{name}: give a whole number from {low} to {high}.")
    return int(text)
