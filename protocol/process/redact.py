"""Blots tokens out of log lines.

The gateway logs no token by itself. Libraries do: the websocket library's debug log has every header and
address, and its errors quote the request that they could not read.
"""

from __future__ import annotations

import re

#: Stands in a line for a blotted text.
BLOT = "…"

_RULES = (
    # Whole headers: they may carry secrets of other programs too.
    (re.compile(r"((?:proxy-)?authorization|cookie)(['\"]?: ?).*", re.IGNORECASE), rf"\1\2{BLOT}"),
    (re.compile(r"\b(bearer|live\.token)([ .]|%20|%2e)[^\s,'\"&]+", re.IGNORECASE), rf"\1\2{BLOT}"),
    (re.compile(r"\b(token)(=|%3d)[^\s&'\"]+", re.IGNORECASE), rf"\1\2{BLOT}"),
    # A program's token, and a JSON Web Token.
    (re.compile(r"\beml(_|%5f)[\w%-]{8,}", re.IGNORECASE), rf"eml_{BLOT}"),
    (re.compile(r"\beyJ[\w-]*\.[\w-]*(\.[\w-]*)?"), BLOT),
)
#: A query, in which every letter of a token may be written as %XX.
_QUERY = re.compile(r"\?\S+")


def redact(line: str, *, queries: bool = False) -> str:
    """One line of a log without tokens.

    Args:
        line: the line.
        queries: whether every text between a question mark and the next space is blotted out as well.
    """
    for pattern, shown in _RULES:
        line = pattern.sub(shown, line)
    return _QUERY.sub(f"?{BLOT}", line) if queries else line
