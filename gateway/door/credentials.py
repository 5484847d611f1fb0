"""Where a request carries its token.

Three places are looked at, in this order:

1. `Authorization: Bearer TOKEN`, for programs.
2. The websocket subprotocol `echomimic-live.token.TOKEN`, offered beside the version's, for pages: a
   browser's websocket takes no headers. The answer never names it.
3. The query `?token=TOKEN`, for `<iframe>` and OBS, which take an address alone. Addresses come into the logs
   of proxies and into histories, so the other two are better where they can be had.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from websockets.datastructures import Headers

#: A subprotocol that begins with this carries a token.
SUBPROTOCOL_PREFIX = "echomimic-live.token."
#: Name of the query's field.
QUERY_NAME = "token"
#: Stands for a request that carries two different tokens in one place. No token is empty, so it is wrong.
AMBIGUOUS = ""
_MAX_FIELDS = 64


def token_of(headers: Headers, query: str, *, query_allowed: bool = True) -> str | None:
    """The token that a request carries.

    Args:
        headers: of the request.
        query: of its address, as it was sent.
        query_allowed: whether the query is looked at.

    Returns:
        None where it carries none. `AMBIGUOUS` where one place has two different ones.
    """
    places = [_from_authorization(headers), _from_subprotocols(headers)]
    if query_allowed:
        places.append(_from_query(query))
    for tokens in places:
        if tokens:
            return tokens[0] if len(set(tokens)) == 1 else AMBIGUOUS
    return None


def offered_protocols(headers: Headers) -> list[str]:
    """The subprotocols that a client offers, tokens among them."""
    listed = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
    return [item.strip() for item in listed.split(",") if item.strip()]


def _from_authorization(headers: Headers) -> list[str]:
    found = []
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.strip().partition(" ")
        # Other schemes belong to a proxy, such as the password of a whole site.
        if scheme.lower() == "bearer":
            found.append(token.strip())
    return found


def _from_subprotocols(headers: Headers) -> list[str]:
    return [
        offered[len(SUBPROTOCOL_PREFIX) :]
        for offered in offered_protocols(headers)
        if offered.startswith(SUBPROTOCOL_PREFIX)
    ]


def _from_query(query: str) -> list[str]:
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:  # too many fields
        return [AMBIGUOUS] if QUERY_NAME in query else []
    return [value for name, value in fields if name == QUERY_NAME]
