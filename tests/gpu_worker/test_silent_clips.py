"""Silent clips of the engine over starts, and of own avatars that are removed. A tiny random model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_worker.engine import rest_loop, silent_clips
from gpu_worker.engine.serve import DenoiserEngine
from tests.gpu_worker.engine_world import QUICK, SIDE, clip, make, settings_for, write_world

pytestmark = pytest.mark.slow

OWN = "own-" + "0" * 32


def load(world: list[str], *flags: str) -> DenoiserEngine:
    made = DenoiserEngine(settings_for(world, *QUICK, *flags))
    made.load()
    return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (SIDE, SIDE), (90, 60, 30)).save(own / f"{OWN}.png")
    return [*write_world(tmp_path / "world"), "--own-avatar-dir", str(own)]


def test_a_second_start_does_not_denoise_the_loop_again(
    world: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = [clip("quiet", seq, frames=4, pts=seq * 2667, silent=True) for seq in range(2)]
    mine = replace(quiet[0], avatar=OWN)
    first = load(world)
    made = [make(first, one) for one in quiet]
    make(first, mine)
    while first.work_in_pause():
        pass
    kept = list((tmp_path / ".cache/echomimic-live/features").glob("loop-*"))
    assert len(kept) == 1  # nothing of an own avatar lies on disk

    second = load(world)
    with monkeypatch.context() as patch:
        patch.setattr(second.sampler, "sample", lambda *_: pytest.fail("denoised again"))
        again = make(second, quiet[0])
        following = second.rest(quiet[1])
    assert np.array_equal(again, made[0])
    assert following is not None and np.array_equal(following, made[1])
    assert second._last_latents.before("quiet", 0, 2) is not None
    assert second.rest(mine) is None

    # A loop that nobody asked for is dropped, and read again when somebody does.
    monkeypatch.setattr(rest_loop, "KEPT_SECONDS", -1.0)
    monkeypatch.setattr(silent_clips, "LOOK_EVERY", -1.0)
    second.check()
    assert second.metrics()["rest_clips_bytes"] == 0 and second.rest(quiet[0]) is None
    with monkeypatch.context() as patch:
        patch.setattr(second.sampler, "sample", lambda *_: pytest.fail("denoised again"))
        assert np.array_equal(make(second, quiet[0]), made[0])

    other = load(world, "--seed", "7")
    assert not np.array_equal(make(other, quiet[0]), made[0])


def test_the_loop_of_a_removed_avatar_goes(world: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_clips, "LOOK_EVERY", -1.0)
    engine = load(world)
    quiet: Any = clip("quiet", 0, frames=4, silent=True)
    for avatar in ("ann", OWN):
        make(engine, replace(quiet, avatar=avatar))
    engine.check()
    before = engine.metrics()["rest_clips_bytes"]
    assert engine.rest(replace(quiet, avatar=OWN)) is not None
    (engine.settings.own_avatar_dir or Path()).joinpath(f"{OWN}.png").unlink()
    engine.check()
    assert engine.rest(replace(quiet, avatar=OWN)) is None
    assert engine.rest(quiet) is not None
    assert engine.metrics()["rest_clips_bytes"] == before / 2
