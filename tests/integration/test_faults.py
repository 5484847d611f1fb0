"""Workers of a real run that die and stand still under a client that speaks."""

from __future__ import annotations

import pytest

from scripts.torture.faults import Figure, encoder_stopped, gpu_killed
from scripts.torture.load import slow_machine
from tests.integration.conftest import Sound

pytestmark = [pytest.mark.process, pytest.mark.timing]


def of(figures: list[Figure]) -> dict[str, float]:
    print(*figures, sep="\n")
    return {figure.name: figure.value for figure in figures}


def whole(found: dict[str, float]) -> bool:
    return found["pictures doubled"] == found["pictures out of order"] == found["samples of sound lost"] == 0


@pytest.mark.long
def test_an_encoder_that_stands_still_holds_nobody_up(speech: Sound) -> None:
    found = of(encoder_stopped(speech, "--passthrough", "--dead-after", "30", seconds=3.0, times=3))
    assert whole(found) and found["pictures lost"] == 0
    # far less than the 3 s for which it stood still
    assert found["longest gap between two pictures"] < 1.5


def test_the_sound_goes_on_when_the_only_worker_of_a_stage_dies(speech: Sound) -> None:
    found = of(gpu_killed(speech, "--passthrough"))
    assert whole(found) and found["epochs"] == 2
    assert found["the client is told the cause after"] < 2
    assert found["silence at the client"] < 1.5


@pytest.mark.long
def test_workers_at_half_speed_keep_sound_and_pictures(speech: Sound) -> None:
    found = of(slow_machine(speech, "--passthrough", seconds=3.0, before_it=3.0, after_it=4.0))
    assert whole(found)
    assert found["from speech to sound, most"] < 2
    assert found["from speech to sound 2 s after, most"] < 1
    assert next(value for name, value in found.items() if name.startswith("clips without pictures")) == 0
