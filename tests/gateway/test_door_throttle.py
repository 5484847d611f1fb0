"""The throttle of wrong tokens: its bounds in memory and time."""

from __future__ import annotations

import random

import pytest

from gateway.door.throttle import BURST, CYCLE, FORGIVE, Throttle, group_of


def slowed(address: str = "192.0.2.1", now: float = 1000.0) -> Throttle:
    """A throttle that has just seen too many wrong tokens of an address."""
    throttle = Throttle()
    for _ in range(BURST):
        assert throttle.wait(address, "guess", now) == 0
        throttle.count_wrong(address, now)
    return throttle


def test_a_few_wrong_tokens_cost_nothing() -> None:
    throttle = Throttle()
    for _ in range(BURST - 1):
        throttle.count_wrong("192.0.2.1", 5.0)
    assert all(throttle.wait("192.0.2.1", f"token {k}", 5.0) == 0 for k in range(100))


def test_most_guesses_of_a_slow_address_are_not_looked_at() -> None:
    throttle, seen = slowed(), 0
    for k in range(8000):
        now = 1000.0 + k / 1000
        if throttle.wait("192.0.2.1", f"guess {k}", now) == 0:
            seen += 1
            throttle.count_wrong("192.0.2.1", now)
    assert 0.5 / CYCLE < seen / 8000 < 2 / CYCLE


def test_a_right_token_gets_in_within_the_cycle_while_others_guess() -> None:
    throttle, chance = slowed(), random.Random(1)
    for k in range(50):
        token, begun = f"right {k}", 1000.0 + 20 * k + chance.random()
        now = begun
        while (wait := throttle.wait("192.0.2.1", token, now)) > 0:
            assert wait <= CYCLE
            for _ in range(100):
                throttle.count_wrong("192.0.2.1", now)
            now += wait  # as Retry-After says
        assert now - begun <= CYCLE
        for second in range(20):
            throttle.count_wrong("192.0.2.1", begun + second)


def test_an_address_is_forgiven_within_the_stated_time() -> None:
    throttle = slowed()
    for _ in range(10_000):
        throttle.count_wrong("192.0.2.1", 1000.0)
    later = 1000.0 + 2 * FORGIVE + 0.1
    assert all(throttle.wait("192.0.2.1", f"token {k}", later) == 0 for k in range(100))


def test_other_addresses_are_not_slow() -> None:
    throttle = slowed()
    assert all(throttle.wait("192.0.2.2", f"token {k}", 1000.0) == 0 for k in range(100))


def test_the_memory_is_bounded() -> None:
    throttle = Throttle(most=100)
    for k in range(10_000):
        throttle.count_wrong(f"10.{k >> 8}.{k & 255}.1", k / 100)
    assert len(throttle) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::5", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::5", "2001:db8:0:2::5", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_groups_of_addresses(one: str, other: str, same: bool) -> None:
    assert (group_of(one) == group_of(other)) is same


def test_an_unreadable_address_is_a_group_of_bounded_length() -> None:
    assert len(group_of("x" * 10_000)) == 64
