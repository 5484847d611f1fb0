"""Makes, lists and revokes the tokens that open the page.

    python -m scripts.tokens add me                     # prints the token, once, on stdout
    python -m scripts.tokens link me                    # prints an address to open in a browser
    python -m scripts.tokens list
    python -m scripts.tokens revoke me
    python -m scripts.tokens rotate                     # voids every browser's token

The settings' flags, variables and file hold here too, such as `--token-file`, `--host` and `--port`. A
running gateway takes a change over within two seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.door.minting import MintError
from gateway.door.page_link import make_page_link, token_for_links
from gateway.door.token_file import (
    SCOPES,
    ProgramToken,
    TokenBook,
    TokenFileError,
    add_token,
    entry_for,
    file_state,
    new_book,
    new_token,
    read_book,
    revoke_token,
    rotate_key,
    write_book,
    writing,
)
from protocol.process.addresses import reachable_hosts
from protocol.process.settings import Settings, SettingsError, default_token_file, given_values
from scripts.run.address import url_on
from scripts.run.welcome import lan_hosts

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: Seconds that running gateways take to notice a change.
TAKES_EFFECT = "running gateways take it over within 2 s"


class CommandError(Exception):
    """The command cannot be carried out. The text says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the command out. Returns 0, or 2 where it cannot be done, which stderr says."""
    words = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(words):
        _parser().parse_args(words)
    try:
        # The settings' flags are taken out first: a command's own words may stand between them.
        own: list[str] = []
        given = given_values(words, others=own)
        arguments = _parser().parse_args(own)
        path = given.get("token_file") or default_token_file_or_error()
        command: Callable[[Path, argparse.Namespace, dict[str, Any]], None] = arguments.run
        command(path, arguments, given)
    except (CommandError, MintError, SettingsError, TokenFileError) as error:
        _tell(f"error: {error}")
        return 2
    return 0


def default_token_file_or_error() -> Path:
    """The usual place of the token file. Raises CommandError for a user without a home."""
    path = default_token_file(os.environ)
    if path is None:
        raise CommandError(
            "this user has no home folder to keep the token file in (HOME is not set);"
            " name a file with --token-file PATH, here and where the gateway is started"
        )
    return path


# ---- the commands


def _add(path: Path, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    token = new_token()
    now = int(time.time())
    limits = {
        "expires": None if arguments.expires is None else moment(arguments.expires, now),
        "sessions": arguments.sessions,
        "avatars": None if arguments.avatars is None else _listed(arguments.avatars),
    }
    entry = entry_for(token, arguments.name, _listed(arguments.scopes), now, **limits)
    with writing(path):
        book = new_book() if file_state(path) is None else read_book(path)
        write_book(path, add_token(book, entry))
    _tell(f"token {entry.name} ({_rights(entry)}) is in {path}; it is shown once:")
    print(token)


def _list(path: Path, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    rows = [("NAME", "SCOPES", "MADE", "EXPIRES", "SESSIONS", "AVATARS", "STATE")]
    now = time.time()
    for entry in read_book(path).tokens:
        rows.append(
            (
                entry.name,
                ",".join(entry.scopes),
                _date(entry.made),
                "never" if entry.expires is None else _date(entry.expires),
                "any" if entry.sessions is None else str(entry.sessions),
                "all" if entry.avatars is None else ",".join(entry.avatars),
                _state(entry, now),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _revoke(path: Path, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    now = int(time.time())

    def revoke(book: TokenBook) -> TokenBook:
        for name in arguments.names:
            book = revoke_token(book, name, now)
        return book

    _change(path, revoke)
    _tell(f"revoked {', '.join(arguments.names)}, and the browsers' tokens of it; {TAKES_EFFECT}")


def _rotate(path: Path, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    _change(path, rotate_key)
    _tell(f"every browser's token is void, the programs' tokens stay; {TAKES_EFFECT}")


def _link(path: Path, arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    book, now = read_book(path), int(time.time())
    entry = token_for_links(book, arguments.name, now)
    wishes = {
        "ttl": str(seconds(arguments.ttl)),
        **{
            name: str(value)
            for name in ("sessions", "avatars", "subject")
            if (value := getattr(arguments, name))
        },
    }
    if arguments.url is None:
        settings = Settings(**{**given, "token_file": path, "auth": True})
        # The address for other machines, where they can reach the page.
        host = (lan_hosts(settings.host) or reachable_hosts(settings.host))[0]
        base = f"{url_on(settings, host)}/"
    else:
        base = arguments.url
        if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).netloc:
            raise CommandError(f"--url {base}: give the page's address, such as https://face.example/")
    link = make_page_link(book, entry, base, wishes, now)
    _tell(f"whoever has this address may open the page until {_date(link.ends)}:")
    print(link.url)


def _change(path: Path, change: Callable[[TokenBook], TokenBook]) -> None:
    read_book(path)  # a file that is not there is told before a lock is put beside it
    with writing(path):
        write_book(path, change(read_book(path)))


# ---- words and times


def seconds(text: str) -> int:
    """A length of time such as `90s`, `45m`, `12h`, `30d` or `2w`, in seconds. Raises CommandError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if match is None or int(match[1]) == 0:
        raise CommandError(f"{text}: give a time such as 45m, 12h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def moment(text: str, now: int) -> int:
    """The Unix time that `30d` from now, `2026-12-31` or `2026-12-31T18:00` names. Raises CommandError."""
    if re.fullmatch(r"[0-9]+[a-z]", text):
        return now + seconds(text)
    try:
        # A text without a time zone is local time.
        at = int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        raise CommandError(f"--expires {text}: give 12h, 30d, or a date such as 2026-12-31") from None
    if at <= now:
        raise CommandError(f"--expires {text}: that is over")
    return at


def _date(at: int) -> str:
    return datetime.fromtimestamp(at, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M")


def _state(entry: ProgramToken, now: float) -> str:
    if entry.revoked is not None:
        return f"revoked {_date(entry.revoked)}"
    return "expired" if entry.expires is not None and now >= entry.expires else "good"


def _rights(entry: ProgramToken) -> str:
    words = [" ".join(entry.scopes)]
    if entry.expires is not None:
        words.append(f"until {_date(entry.expires)}")
    if entry.sessions is not None:
        words.append(f"{entry.sessions} sessions at once")
    if entry.avatars is not None:
        words.append(f"avatars {', '.join(entry.avatars)}")
    return ", ".join(words)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


# ---- the command line


def _parser() -> argparse.ArgumentParser:
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tokens",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    add = command("add", _add, "make a token and print it")
    add.add_argument("name", metavar="NAME", help="tells it from others, in the log too")
    add.add_argument(
        "--scopes",
        default="session,avatars,mint",
        help=f"some of {','.join(SCOPES)} (default session,avatars,mint): open sessions; bring own avatars;"
        " mint tokens for browsers; read /metrics; use admin calls",
    )
    add.add_argument("--expires", metavar="TIME", help="12h, 30d, or a date (default never)")
    add.add_argument("--sessions", type=int, metavar="N", help="sessions at once (default any)")
    add.add_argument("--avatars", metavar="A,B", help="avatars that it may use (default all)")
    command("list", _list, "show the names and rights of the tokens")
    revoke = command("revoke", _revoke, "make tokens void, and end their sessions")
    revoke.add_argument("names", metavar="NAME", nargs="+")
    command("rotate", _rotate, "make every browser's token void, and end their sessions")
    link = command("link", _link, "print an address of the page with a short-lived token in it")
    link.add_argument(
        "name", metavar="NAME", nargs="?", help="a token of the file (default the first fit one)"
    )
    link.add_argument("--ttl", default="10m", metavar="TIME", help="45m, 12h; at most 24h (default 10m)")
    link.add_argument("--sessions", type=int, metavar="N", help="sessions at once (default 1)")
    link.add_argument("--avatars", metavar="A,B", help="avatars that it may use")
    link.add_argument("--subject", metavar="NAME", help="person whose own avatars outlast the link")
    link.add_argument("--url", help="the page's address behind a proxy, such as https://face.example/")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
