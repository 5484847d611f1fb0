"""A client that speaks through a network that breaks and stands still. The long trials are by command."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from scripts.torture.faults import Figure
from scripts.torture.network import beside_a_silent_one, resets, stand_stills
from scripts.torture.viewer import spoken
from tests.gateway.conftest import Running, running

pytestmark = [pytest.mark.process, pytest.mark.timing, pytest.mark.long]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with running(max_sessions=3) as run:
        yield run


def of(figures: list[Figure]) -> dict[str, float]:
    print(*figures, sep="\n")
    return {figure.name: figure.value for figure in figures}


async def test_every_reset_goes_on_in_the_same_session(gateway: Running) -> None:
    found = of(await resets(gateway.settings.port, spoken(), 18.0))
    assert found["resets"] >= 2 and found["resets after which the session did not go on"] == 0
    assert found["sessions"] == 1 and found["sound that nobody accounts for"] < 0.5
    assert found["sound lost for a reset, median"] < 0.5
    assert found["pictures doubled"] == found["pictures out of order"] == 0


async def test_the_delay_is_normal_again_after_a_stand_still(gateway: Running) -> None:
    found = of(await stand_stills(gateway.settings.port, spoken(), (4.0,), 6.0))
    assert found["sessions"] == 1 and found["sound that nobody accounts for"] < 0.5
    # without catching up, four seconds would stay for ever
    assert found["4 s: more than that 2 s after"] < 1.0
    assert found["pictures doubled"] == found["pictures out of order"] == 0


async def test_a_client_that_takes_nothing_is_cut_and_costs_nobody_anything(gateway: Running) -> None:
    found = of(await beside_a_silent_one(gateway.settings.port, np.asarray(spoken()), 4.0))
    assert found["frames that it got before it was cut"] <= 36
    assert 4.5 < found["cut after"] < 9
    assert found["the healthy one's p99 meanwhile, more than before"] < 0.3
