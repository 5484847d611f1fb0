"""Slows down clients that guess tokens, by address.

An address may send a few wrong tokens. After that it is *slow* until it has kept still for a while. While an
address is slow, a token is looked at only in its own second of every `CYCLE` seconds. That second follows
from the token by a keyed hash, which a client cannot compute. Most guesses are then refused unread. A right
token from the same address (a colleague's, behind the same proxy) gets in within `CYCLE` seconds, however
fast the guesses come. A plain lock-out would shut that colleague out for as long as the guesses last.

No task and no timer belongs to a guess. An address takes one entry of a table whose size is bounded.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
from collections import OrderedDict

#: Wrong tokens that an address may send before it is slow.
BURST = 10
#: Seconds in which one wrong token is forgiven.
FORGIVE = 2.0
#: Seconds in which every token has one second of its own. No right token waits longer.
CYCLE = 8
#: Addresses that are remembered. The one that has been quiet for the longest time gives way.
MAX_ADDRESSES = 4096


class Throttle:
    """Counts wrong tokens by address. Times are seconds on one monotonic clock."""

    def __init__(self, burst: int = BURST, forgive: float = FORGIVE, most: int = MAX_ADDRESSES) -> None:
        self._burst = burst
        self._forgive = forgive
        self._most = most
        #: Group of addresses → wrong tokens not yet forgiven, and when that was counted.
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._salt = secrets.token_bytes(16)

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._wrong)

    def wait(self, address: str, token: str, now: float) -> float:
        """Seconds until this token of this address is looked at: 0 for now, at most `CYCLE`."""
        if self._left(group_of(address), now) < self._burst:
            return 0.0
        second = math.floor(now)
        ahead = (self._second_of(token) - second) % CYCLE
        return 0.0 if ahead == 0 else second + ahead - now

    def count_wrong(self, address: str, now: float) -> None:
        """Note a wrong token of this address."""
        group = group_of(address)
        # No more than the burst and one is counted, so that an address is forgiven within a stated time.
        wrong = min(self._left(group, now) + 1.0, self._burst + 1.0)
        self._wrong[group] = wrong, now
        self._wrong.move_to_end(group)
        if len(self._wrong) > self._most:
            self._wrong.popitem(last=False)

    def _left(self, group: str, now: float) -> float:
        """Wrong tokens of these addresses that are not forgiven yet."""
        wrong, then = self._wrong.get(group, (0.0, now))
        return max(0.0, wrong - (now - then) / self._forgive)

    def _second_of(self, token: str) -> int:
        digest = hashlib.blake2b(token.encode(errors="replace"), key=self._salt, digest_size=8).digest()
        return int.from_bytes(digest, "big") % CYCLE


def group_of(address: str) -> str:
    """The addresses that count as one client: an IPv4 address, or the /64 of an IPv6 address.

    A home or a server gets a /64 of IPv6 addresses at least, so a guesser could take a new one every time.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
