"""The file of programs' tokens: names, hashes, scopes and limits, and the key that signs browsers' tokens.

The file is JSON of mode 0600. It holds no token, only the SHA-256 of each. A slow hash such as scrypt
protects passwords, which people choose from few: whoever has the file tries the likely ones. A token is 32
random bytes, and nobody tries 2^256 of them, however fast the hash is. A fast one keeps a flood of wrong
tokens cheap.

`scripts.tokens` writes the file, and the gateway only reads it. Writers take a lock, and they put a whole new
file in the old one's place, so that a reader never sees half of one.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from protocol.hop.private_file import replace_file
from protocol.process.settings import tokens_command

#: What a token may be used for.
SCOPES = ("session", "avatars", "mint", "metrics", "admin")
#: A program's token begins with this, so that logs can blot it out and scanners of repositories find it.
PREFIX = "eml_"
#: Names of tokens.
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Ids of signing keys whose tokens are known to be of the past.
MAX_RETIRED = 16
_MAX_BYTES = 1 << 20
_VERSION = 1


class TokenFileError(Exception):
    """The file cannot be used. The text names it and says what to do."""


@dataclass(frozen=True)
class ProgramToken:
    """One program's token, without the token itself. Times are Unix seconds."""

    name: str
    #: Tells this token from a later one of the same name.
    id: str
    #: SHA-256 of the token, in hexadecimal digits.
    hash: str
    scopes: tuple[str, ...]
    made: int
    expires: int | None = None
    #: Sessions at once, with those of the browsers' tokens that it minted. None: the gateway's own bound.
    sessions: int | None = None
    #: The avatars that it may use. None: all.
    avatars: tuple[str, ...] | None = None
    revoked: int | None = None


@dataclass(frozen=True)
class SigningKey:
    """The secret that signs browsers' tokens. `id` is public."""

    id: str
    secret: bytes

    def __repr__(self) -> str:  # the secret must not come into a traceback
        return f"SigningKey({self.id!r})"


@dataclass(frozen=True)
class TokenBook:
    """Everything in a token file."""

    key: SigningKey
    tokens: tuple[ProgramToken, ...] = ()
    #: Ids of earlier signing keys, the newest last.
    retired: tuple[str, ...] = ()

    def find(self, token: str) -> ProgramToken | None:
        """The entry of this token, also a revoked or an expired one."""
        digest = hash_of(token)
        found = None
        # Every entry is compared, each in constant time: the time tells nothing about the hashes.
        for entry in self.tokens:
            if hmac.compare_digest(entry.hash, digest):
                found = entry
        return found

    def by_id(self, token_id: str) -> ProgramToken | None:
        """The entry with this id."""
        return next((entry for entry in self.tokens if entry.id == token_id), None)

    def by_name(self, name: str) -> ProgramToken | None:
        """The entry with this name."""
        return next((entry for entry in self.tokens if entry.name == name), None)


def new_book() -> TokenBook:
    """A book without tokens and with a new signing key."""
    return TokenBook(_new_key())


def new_token() -> str:
    """A program's token: the prefix and 32 random bytes."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def add_token(book: TokenBook, entry: ProgramToken) -> TokenBook:
    """`book` with one more token. A revoked one of the same name gives way.

    Raises:
        TokenFileError: the name is taken.
    """
    before = book.by_name(entry.name)
    if before is not None and before.revoked is None:
        raise TokenFileError(
            f"there is a token {entry.name} already; revoke it first, or choose another name"
        )
    return replace(book, tokens=(*(t for t in book.tokens if t.name != entry.name), entry))


def revoke_token(book: TokenBook, name: str, now: int) -> TokenBook:
    """`book` with the token revoked.

    Raises:
        TokenFileError: there is no such token.
    """
    entry = book.by_name(name)
    if entry is None:
        names = ", ".join(t.name for t in book.tokens if t.revoked is None) or "none"
        raise TokenFileError(f"there is no token {name}; there are {names}")
    if entry.revoked is not None:
        return book
    tokens = tuple(replace(t, revoked=now) if t.name == name else t for t in book.tokens)
    return replace(book, tokens=tokens)


def rotate_key(book: TokenBook) -> TokenBook:
    """`book` with a new signing key. Every browser's token that the old one signed is void."""
    return replace(book, key=_new_key(), retired=(*book.retired, book.key.id)[-MAX_RETIRED:])


def _new_key() -> SigningKey:
    return SigningKey(secrets.token_urlsafe(6), secrets.token_bytes(32))


def entry_for(token: str, name: str, scopes: tuple[str, ...], now: int, **limits: Any) -> ProgramToken:
    """The entry of a new token. `limits` are `expires`, `sessions` and `avatars`.

    Raises:
        TokenFileError: a name, scope or limit cannot be had.
    """
    entry = ProgramToken(name, secrets.token_urlsafe(6), hash_of(token), scopes, now, **limits)
    return _token_from(asdict(entry), f"token {name}")


# ---- reading


def read_book(path: Path) -> TokenBook:
    """The contents of a token file.

    Raises:
        TokenFileError: it is missing, not this user's alone, or no token file.
    """
    return _parse(_read_private(path), path)


def file_state(path: Path) -> tuple[int, int, int] | None:
    """A value that changes with the file. None while there is no file."""
    try:
        info = path.lstat()
    except OSError:
        return None
    # The time of a change of mode or owner too (ctime): such a change can make the file unusable.
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def _read_private(path: Path) -> bytes:
    """The bytes of a regular file that this user alone may read."""
    try:  # without NONBLOCK a pipe of that name would be waited for
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TokenFileError(
            f"there is no token file {path}; make one with: {tokens_command()} add NAME"
        ) from None
    except OSError as error:
        if path.is_symlink():
            raise TokenFileError(f"the token file {path} is a link; name the file itself") from None
        raise TokenFileError(f"the token file {path} cannot be read: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise TokenFileError(f"the token file {path} is not a regular file")
        if info.st_uid != os.geteuid():
            raise TokenFileError(
                f"the token file {path} belongs to user {info.st_uid}, and the gateway runs as user"
                f" {os.geteuid()}; make one as that user"
            )
        if info.st_mode & 0o077:
            raise TokenFileError(
                f"others may read the token file {path} (mode {info.st_mode & 0o777:04o}); use: chmod 600"
                f" {path} and, if others have accounts here, {tokens_command()} rotate"
            )
        if info.st_size > _MAX_BYTES:
            raise TokenFileError(
                f"the token file {path} has {info.st_size} bytes; at most {_MAX_BYTES} are read"
            )
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(_MAX_BYTES + 1)
    finally:
        os.close(fd)


def _parse(data: bytes, path: Path) -> TokenBook:
    where = f"the token file {path}"
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise TokenFileError(f"{where} is not JSON") from None
    if not isinstance(fields, dict) or fields.get("version") != _VERSION:
        raise TokenFileError(f"{where} is not a token file of version {_VERSION}")
    key, tokens, retired = fields.get("signing_key"), fields.get("tokens"), fields.get("retired", [])
    if not isinstance(key, dict) or not isinstance(tokens, list) or not _is_texts(retired):
        raise TokenFileError(f"{where} lacks its signing key or its tokens")
    try:
        secret = bytes.fromhex(key["secret"])
        book_key = SigningKey(_text(key["id"]), secret)
    except (KeyError, TypeError, ValueError):
        raise TokenFileError(f"{where} has a signing key that cannot be read") from None
    if len(secret) < 32:
        raise TokenFileError(f"{where} has a signing key of {len(secret)} bytes; 32 are needed")
    entries = tuple(_token_from(entry, f"{where}, token {n}") for n, entry in enumerate(tokens, 1))
    for kind in ("name", "id", "hash"):
        if len({getattr(entry, kind) for entry in entries}) < len(entries):
            raise TokenFileError(f"{where} has two tokens of one {kind}")
    return TokenBook(book_key, entries, tuple(retired))


def _token_from(entry: Any, where: str) -> ProgramToken:
    """One entry, each field checked."""
    if not isinstance(entry, dict):
        raise TokenFileError(f"{where}: not an object")
    unknown = set(entry) - set(ProgramToken.__dataclass_fields__)
    if unknown:
        # A limit that is spelled wrong must not be taken for no limit.
        raise TokenFileError(f"{where}: {', '.join(sorted(unknown))} is not known here")
    try:
        name, scopes = _text(entry["name"]), entry["scopes"]
        token = ProgramToken(
            name=name,
            id=_text(entry["id"]),
            hash=_text(entry["hash"]),
            scopes=tuple(scopes) if _is_texts(scopes) else (),
            made=_whole(entry["made"]),
            expires=_optional_whole(entry.get("expires")),
            sessions=_optional_whole(entry.get("sessions")),
            avatars=_optional_texts(entry.get("avatars")),
            revoked=_optional_whole(entry.get("revoked")),
        )
    except (KeyError, ValueError) as error:
        raise TokenFileError(f"{where}: a field is missing or wrong: {error}") from None
    if not NAME.fullmatch(name):
        raise TokenFileError(f"{where}: a name has 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    if not re.fullmatch(r"[0-9a-f]{64}", token.hash):
        raise TokenFileError(f"{where}: the hash is not a SHA-256")
    if not token.scopes or not set(token.scopes) <= set(SCOPES):
        raise TokenFileError(f"{where}: scopes are some of {', '.join(SCOPES)}")
    if token.sessions == 0:
        raise TokenFileError(f"{where}: sessions is 0; to shut a token out, revoke it")
    if token.avatars == ():
        raise TokenFileError(f"{where}: avatars is empty; name one, or leave it out for all")
    return token


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text expected")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("whole number expected")
    return value


def _optional_whole(value: object) -> int | None:
    return None if value is None else _whole(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)


def _optional_texts(value: Any) -> tuple[str, ...] | None:
    if value is not None and not _is_texts(value):
        raise ValueError("list of names expected")
    return None if value is None else tuple(value)


# ---- writing


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keep other writers away. A missing folder is made, for this user alone.

    Raises:
        TokenFileError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    except OSError as error:
        raise TokenFileError(f"{path.parent} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_book(path: Path, book: TokenBook) -> None:
    """Put `book` in the place of the file, whole or not at all. Call it inside `writing`.

    Raises:
        TokenFileError: it cannot be written.
    """
    fields = {
        "version": _VERSION,
        "signing_key": {"id": book.key.id, "secret": book.key.secret.hex()},
        "retired": list(book.retired),
        "tokens": [{k: v for k, v in asdict(token).items() if v is not None} for token in book.tokens],
    }
    text = json.dumps(fields, indent=1).encode() + b"\n"
    try:
        replace_file(path, text)
    except OSError as error:
        raise TokenFileError(f"{path} cannot be written: {error.strerror}") from None
