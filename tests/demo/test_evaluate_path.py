"""The streaming path as the evaluation plays it, with the weights of the repository; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.factory.evaluate import command, trial_size
from demo.factory.evaluate.bench import FULL, QUICK, Bench, Scale
from demo.factory.evaluate.path import StreamingPath
from protocol.process.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    arguments = command.parse(["--quick", "--dtype", "float32", "--fps", "8"])
    return command.make_bench(arguments, tmp_path_factory.mktemp("evaluate"))


def _tone(seconds: float, rate: int) -> np.ndarray:
    return (0.1 * np.sin(1500 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_every_frame_of_the_speech_comes_once_and_in_order(bench: Bench) -> None:
    name, pose = bench.material.names[1], bench.material.poses[2]
    # A second and a bit: the last clip is completed with silence.
    made = list(bench.path.play(name, pose, _tone(1.1, 16000)))
    assert [clip.first for clip in made] == [0, 4, 8]
    for clip in made:
        assert clip.pictures is not None
        assert clip.pictures.shape == (4, 256, 256, 3) and clip.pictures.dtype == np.uint8
    reference = bench.judge.renderer.reference(torch.tensor([1]))[0]
    shown = made[0].pictures
    assert shown is not None
    first = bench.judge.tensor(shown[:1])[0]
    assert (first - reference).abs().mean() < 0.1, "it does not show the avatar asked for"


def test_clips_that_are_not_wanted_are_made_all_the_same(bench: Bench) -> None:
    name, pose = bench.material.names[0], bench.material.poses[0]
    before = bench.path.clips
    made = list(bench.path.play(name, pose, _tone(1.0, 44100), rate=44100, wanted=lambda first: first == 4))
    assert [clip.pictures is None for clip in made] == [True, False]
    assert bench.path.clips - before == 2
    assert bench.path.seconds["denoise"] > 0


def test_the_vae_alone_keeps_a_picture(bench: Bench) -> None:
    drawn = bench.judge.renderer.reference(torch.tensor([0]))[0]
    picture = drawn.mul(255).round().byte().permute(1, 2, 0).numpy()
    through = bench.path.through_vae(picture)
    assert np.square(through / 255.0 - picture / 255.0).mean() < 0.01


def test_an_avatar_that_is_not_there_is_an_error(bench: Bench) -> None:
    with pytest.raises(Exception, match="there is no avatar nobody"):
        list(bench.path.play("nobody", bench.material.poses[0], _tone(0.5, 16000)))


def test_facts_say_what_ran(bench: Bench) -> None:
    from demo.factory.evaluate.report import describe

    facts = describe(bench)
    assert (facts["dtype"], facts["fps"], facts["jpeg_quality"]) == ("float32", 8, 90)
    assert facts["identities"] == bench.material.names


def test_scales() -> None:
    assert command.scale_of(command.parse([])) == Scale()
    assert command.scale_of(command.parse(["--quick"])) == QUICK
    full = command.scale_of(command.parse(["--full", "--identities", "5", "--drift-minutes", "2"]))
    assert (full.identities, full.drift_seconds, full.seconds) == (5, 120.0, FULL.seconds)


def test_the_command_prints_and_writes_its_table(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "make_bench", lambda arguments, folder: bench)
    target = tmp_path / "numbers.json"
    assert command.main(["--only", "size", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads(target.read_text(encoding="utf-8"))
    met = numbers["met"]
    assert "All weights, Whisper and engines' files included" in printed
    assert f"{met} of {met} targets are met" in printed
    assert met == numbers["targets"] >= 1
    assert set(numbers["sections"]["Size"]["numbers"]["files"]) >= {"denoising_unet.safetensors"}
    monkeypatch.setattr(trial_size, "LIMIT_MB", 0.001)
    assert command.main(["--only", "size"]) == 0
    assert command.main(["--only", "size", "--strict"]) == 1


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--quick", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert command.main(["--quick", "--figure", str(tmp_path / "none.npz")]) == 2
    assert "make_identities" in capsys.readouterr().err


def test_a_path_needs_an_existing_model(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"none\.yaml"):
        StreamingPath(Settings(config=tmp_path / "none.yaml", fps=24))
