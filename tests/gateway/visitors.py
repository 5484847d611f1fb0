"""Doors by their flags, and visitors made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.http11 import Request

from gateway.door.refusals import Refused
from gateway.door.rules import Door, Visitor
from protocol.process.settings import load_settings


def door(*flags: str) -> Door:
    return Door(load_settings(flags, env={}))


def see(
    judge: Door,
    headers: Sequence[tuple[str, str]] = (),
    *,
    target: str = "/",
    host: str = "localhost",
    peer: str = "127.0.0.1",
    local: str = "127.0.0.1",
    tls: bool = False,
) -> Visitor:
    # The library reads headers as Latin-1, whatever was sent.
    sent = [(name, value.encode().decode("latin-1")) for name, value in [("Host", host), *headers]]
    return judge.visitor(Request(target, Headers(sent)), peer, local, tls)


def host_allowed(judge: Door, host: str, local: str = "127.0.0.1") -> bool:
    try:
        return judge.host_refusal(see(judge, host=host, local=local)) is None
    except Refused as refused:
        assert refused.refusal.code == "bad_request"
        return False


def origin_allowed(judge: Door, origin: str, host: str, tls: bool = False) -> bool:
    visitor = see(judge, [("Origin", origin)], host=host, tls=tls)
    return judge.origin_refusal(visitor, visitor.origins) is None
