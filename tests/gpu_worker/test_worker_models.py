"""`python -m gpu_worker` as it is started, with a tiny random model in the official layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from gpu_worker.engine.serve import DenoiserEngine
from protocol.process.settings import flags_of, load_settings
from tests.gpu_worker.engine_world import clip, write_world
from tests.gpu_worker.worker_process import Around, Process

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("official"))


@pytest.fixture
def served(world: list[str], tmp_path: Path) -> Iterator[Callable[..., tuple[Around, Process]]]:
    """Starts the worker with these flags and waits until it takes work."""
    with ExitStack() as stack:

        def begin(*argv: str) -> tuple[Around, Process]:
            settings = load_settings([*world, "--run-dir", str(tmp_path / "run"), *argv], env={})
            around = Around(settings)
            stack.callback(around.close)
            worker = stack.enter_context(Process("gpu_worker", flags_of(settings), tmp_path))
            around.start_encoder()
            around.until(lambda: around.joined and around.warm, 60)
            return around, worker

        yield begin


Served = Callable[..., tuple[Around, Process]]


def test_serves_sessions_with_different_avatars(served: Served) -> None:
    around, worker = served("--fps", "24", "--clip-frames", "4")
    assert around.status is not None
    info = around.status.info
    assert (info["avatars"], info["poses"], info["fps"]) == (["ann", "bob", "cat"], ["rest", "wave"], 24)
    for seq in range(3):
        around.clips.dispatch(clip("a", seq, frames=4, seed=seq))
        around.clips.dispatch(clip("b", seq, frames=4, seed=seq, avatar="bob", pose="wave"))
        around.until(lambda seq=seq: len(around.acked) == 2 * (seq + 1))  # type: ignore[misc]
    around.clips.dispatch(clip("c", 0, avatar="nobody"))
    around.clips.dispatch(clip("c", 1, pose="nothing"))
    around.until(lambda: len(around.failed) == 2)
    assert all(failed.fatal for failed in around.failed)
    around.until(lambda: around.metric("clips_total") == 6)
    assert around.metric("prefetch_hits_total") >= 1
    assert around.metric("reference_cache_hits_total") >= 4
    assert worker.terminate() == 0
    for line in ("reference caching: avatar ann is ready", "prefetch begins", "attention: torch"):
        assert line in worker.log()

    # the same clips made here: the process adds nothing and mixes nothing up
    engine = DenoiserEngine(around.settings)
    engine.load()
    for got in around.latents:
        avatar, pose = ("ann", "rest") if got.session == "a" else ("bob", "wave")
        wanted = clip(got.session, got.seq, frames=4, seed=got.seq, avatar=avatar, pose=pose)
        made = engine.denoise(engine.prepare(wanted))
        np.testing.assert_allclose(got.latents, made, rtol=0.02, atol=0.02)


def test_passthrough_needs_no_weights(served: Served) -> None:
    around, worker = served("--passthrough")
    for seq in range(20):
        around.clips.dispatch(clip("a", seq))
        around.until(lambda seq=seq: len(around.acked) == seq + 1)  # type: ignore[misc]
    assert [got.seq for got in around.latents] == list(range(20))
    assert around.latents[0].latents.shape == (12, 4, 8, 8)
    assert around.status is not None
    assert around.status.info["avatars"] == ["ann", "bob", "cat"]
    assert (around.status.info["width"], around.status.info["fps"]) == (64, 24)
    assert worker.terminate() == 0


def test_a_damaged_model_ends_with_2_and_names_the_file(world: list[str], tmp_path: Path) -> None:
    official = Path(world[1]).parents[2]
    shutil.copytree(official, tmp_path / "official")
    damaged = tmp_path / "official" / "pretrained_weights" / "reference_unet.pth"
    damaged.write_bytes(b"not weights")
    argv = [word.replace(str(official), str(tmp_path / "official")) for word in world]
    settings = load_settings([*argv, "--run-dir", str(tmp_path / "run")], env={})
    with Process("gpu_worker", flags_of(settings), tmp_path) as worker:
        assert worker.process.wait(60) == 2
        assert str(damaged) in worker.log()
        assert "Traceback" not in worker.log()
