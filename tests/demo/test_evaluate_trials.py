"""The trials on pictures whose verdict is known: the drawn truth passes, a mouth that stays shut does not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from demo.factory.evaluate import (
    report,
    trial_conditions,
    trial_human,
    trial_long,
    trial_silence,
    trial_truth,
)
from demo.factory.evaluate.bench import QUICK, Bench
from demo.factory.evaluate.command import SAMPLE
from demo.factory.evaluate.judge import Judge
from demo.factory.evaluate.material import HeldOut, Scene
from demo.factory.evaluate.path import Made, Picture, StreamingPath
from demo.factory.evaluate.scores import SHUT
from demo.factory.evaluate.table import Section
from scripts.talk.sound import write_wav
from tests.helpers.figure import with_mouth_shut

pytestmark = pytest.mark.slow

FPS, CLIP = 8, 4
SCALE = replace(
    QUICK,
    human_seconds=2.0,
    seconds=3.0,
    seam_seconds=3.0,
    drift_seconds=4.0,
    silence_seconds=3.0,
    condition_seconds=2.0,
)


class DrawnPath:
    """Stands where the streaming path stands, and sends the drawn truth."""

    fps, clip_frames = FPS, CLIP

    def through_vae(self, picture: Picture) -> Picture:
        return picture


@dataclass
class DrawnBench(Bench):
    """Plays the truth, changed by `spoil` (state → state) before it is drawn."""

    spoil: Callable[[Any], Any] = lambda state: state

    def play(
        self, scene: Scene, *, rate: int = 16_000, wanted: Callable[[int], bool] = lambda first: True
    ) -> Iterator[Made]:
        frames = round(len(scene.speech.samples) / rate * FPS)
        for first in range(0, frames, CLIP):
            if not wanted(first):
                yield Made(first, CLIP, None)
                continue
            state = self.spoil(self.material.states(scene, first, CLIP, FPS))
            drawn = self.judge.renderer.render(self.material.identity(scene, CLIP), state)
            yield Made(first, CLIP, drawn.mul(255).round().byte().permute(0, 2, 3, 1).numpy())


@pytest.fixture(scope="module")
def bench() -> DrawnBench:
    torch.set_num_threads(1)
    files = SAMPLE / "identities.npz", SAMPLE / "speech.npz"
    material = HeldOut(*files, 2, 96, torch.device("cpu"))
    path = cast(StreamingPath, DrawnPath())
    return DrawnBench(path, material, Judge(material, FPS), SCALE)


@pytest.fixture
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn truth does not listen: one kind of silence tells as much as three."""
    monkeypatch.setattr(trial_silence, "KINDS", trial_silence.KINDS[:1])


def _missed(section: Section) -> list[str]:
    return [row.name for row in section.rows if row.met is False]


def test_the_truth_is_like_itself(bench: DrawnBench) -> None:
    section = trial_truth.run(bench)
    assert not _missed(section)
    assert section.numbers["mouth_correlation"] == pytest.approx(1.0, abs=1e-3)
    assert section.numbers["closures"] > 0
    assert section.numbers["frames"] == 2 * 3 * FPS


def test_a_shut_mouth_misses_what_it_must(bench: DrawnBench, one_kind: None) -> None:
    shut = replace(bench, spoil=with_mouth_shut)
    missed = _missed(trial_truth.run(shut))
    assert "Mouth opening against truth: correlation" in missed
    assert "… best lag" in missed
    assert "Plainly open in the truth, shut in the output" in missed
    assert "PSNR, mouth box" in missed
    assert "Widest opening while speaking, least of scenes" in _missed(trial_silence.run(shut))


def test_a_long_session_of_truth_neither_jumps_nor_drifts(bench: DrawnBench) -> None:
    section = trial_long.run(bench)
    assert not [name for name in _missed(section) if not name.startswith("Seam")]
    assert 0.5 < section.numbers["seam_figure"] < 1.6  # few seams at this scale: chance, not jumps


def test_rest_is_rest(bench: DrawnBench, one_kind: None) -> None:
    section = trial_silence.run(bench)
    assert not _missed(section)
    frozen = replace(
        bench,
        spoil=lambda state: state.replace(
            eyelid=torch.zeros_like(state.eyelid), breath=torch.zeros_like(state.breath)
        ),
    )
    assert "Breathing against truth: correlation" in _missed(trial_silence.run(frozen))


def test_a_mouth_that_never_rests_is_seen(bench: DrawnBench, one_kind: None) -> None:
    babbling = replace(
        bench, spoil=lambda state: state.replace(mouth_open=torch.full_like(state.mouth_open, 0.6))
    )
    section = trial_silence.run(babbling)
    assert {row.name for row in section.rows if row.name.startswith("Shut after")} <= set(_missed(section))
    assert section.numbers["frames_shut"] == 0.0
    assert section.numbers[trial_silence.KINDS[0]]["widest_later"] > SHUT


def test_conditions_of_the_truth_move_their_own_part(bench: DrawnBench) -> None:
    section = trial_conditions.run(bench)
    # Two seconds of different words may correlate by chance.
    assert set(_missed(section)) <= {"Shuffled audio: mouth correlation"}
    assert section.numbers["reference_own"] > section.numbers["reference_other"] + 6


def test_recordings_are_played_at_their_own_rate(bench: DrawnBench, tmp_path: Path) -> None:
    seconds = np.arange(2 * 22050) / 22050
    write_wav(
        tmp_path / "someone.wav", (np.sin(900 * seconds) * np.sin(12 * seconds)).astype(np.float32), 22050
    )
    section = trial_human.run(bench, tmp_path, (0.5, 0.5))
    assert section.numbers["someone"]["widest_opening"] < SHUT  # nobody knows the truth: the stand-in is shut
    assert len(section.sheets["animation"]) == 2 * FPS
    absent = trial_human.run(bench, tmp_path / "nowhere", (0.5, 0.5))
    assert absent.rows[0].met is None and "absent" in absent.rows[0].note


def test_the_report_has_tables_pictures_and_numbers(
    bench: DrawnBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_kind: None
) -> None:
    facts: defaultdict[str, Any] = defaultdict(str, fps=FPS)
    monkeypatch.setattr(report, "describe", lambda bench: facts)
    small = replace(bench, scale=replace(SCALE, seconds=1.0, silence_seconds=1.0, condition_seconds=1.0))
    sections = [trial_truth.run(small), trial_silence.run(small), trial_conditions.run(small)]
    path = report.write(tmp_path, sections, small, "python -m demo.factory.evaluate")
    text = path.read_text(encoding="utf-8")
    assert "| PSNR, whole frame |" in text
    for name in ("truth.webp", "mouths.webp", "curves.png", "silence.png", "conditions.webp"):
        assert f"media/evaluation-{name}" in text
        assert (tmp_path / "media" / f"evaluation-{name}").stat().st_size > 500
    numbers = json.loads((tmp_path / "media" / "evaluation-results.json").read_text(encoding="utf-8"))
    assert numbers["sections"]["Silence"]["rows"][0]["target"] == "≤ 0.3 s"


def test_states_follow_the_loop_and_rest_after_the_words(bench: DrawnBench) -> None:
    material = bench.material
    scene = material.scenes(1, 2.0)[0]
    after = material.states(scene, 2 * FPS, 3, FPS)
    assert not np.any(after.mouth_open.numpy())
    round_ = material.states(scene, 12 * FPS, 3, FPS)
    assert torch.equal(round_.hands, material.states(scene, 0, 3, FPS).hands)


def test_missing_material_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m demo\.factory\.figure\.make_identities"):
        HeldOut(tmp_path / "no.npz", SAMPLE / "speech.npz", 2, 128, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match=r"python -m demo\.factory\.speech\.make_speech"):
        HeldOut(SAMPLE / "identities.npz", tmp_path / "no.npz", 2, 128, torch.device("cpu"))
