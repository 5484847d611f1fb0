"""Two heads of one VAE: the usual pictures, and those of twice the side."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from encoder_worker.decode import ClipDecoder
from encoder_worker.graph_decoder import DecoderRecord, GraphDecoder
from encoder_worker.heads import HeadDecoders
from encoder_worker.latents import DecodeError
from encoder_worker.vae.decoders import load_decoder
from encoder_worker.worker import EncoderWorker
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings, load_settings
from protocol.process.stage import Stage
from protocol.wire.messages import FINE_DECODER, Latents
from tests.encoder_worker.folders import make_kl, make_lite
from tests.encoder_worker.test_worker import FakeStage

CPU = torch.device("cpu")


@torch.inference_mode()
def test_the_finer_head_draws_twice_the_side_of_the_same_features(tmp_path: Path) -> None:
    made = make_lite(tmp_path, fine=True)
    plain, fine = (load_decoder(VaeFolder.open(tmp_path), fine=each) for each in (False, True))
    assert (plain.factor, fine.factor) == (4, 8)
    latents = torch.randn(2, 4, 8, 6)
    torch.testing.assert_close(plain(latents), made(latents))
    assert made.fine is not None
    torch.testing.assert_close(fine(latents), made.fine(made.features(latents)))
    assert fine(latents).shape == (2, 3, 64, 48)


def test_a_vae_without_it_says_so(tmp_path: Path) -> None:
    make_lite(tmp_path / "lite")
    make_kl(tmp_path / "kl")
    for folder in ("lite", "kl"):
        with pytest.raises(ConfigError, match="head"):
            load_decoder(VaeFolder.open(tmp_path / folder), fine=True)


def test_openvino_keeps_the_heads_apart(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    make_lite(tmp_path, fine=True)
    engine = CpuEngine(True, tmp_path, 1)
    latents = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float16)
    for fine, side in ((False, 32), (True, 64), (False, 32)):
        vae = load_decoder(VaeFolder.open(tmp_path), fine=fine)
        decoder = ClipDecoder(vae, CPU, "float32", engine=engine)
        decoder.warm_up(8, 8)
        assert decoder.openvino is not None
        (pictures,) = decoder.decode(latents)
        (by_torch,) = ClipDecoder(vae, CPU, "float32").decode(latents)
        assert pictures.shape == (2, side, side, 3)
        assert np.abs(pictures.astype(int) - by_torch.astype(int)).max() <= 1


def test_a_kept_decoder_is_of_one_head() -> None:
    settings = load_settings(["--gpu-devices", "cpu", "--encoder-devices", "cpu"], env={})
    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)
    names = {DecoderRecord(settings, config, folder, 2, fine=fine)._name for fine in (False, True)}
    assert len(names) == 2 and None not in names


def test_decoders_that_may_be_asked_for_are_made_at_the_start() -> None:
    made: list[bool] = []

    def make(fine: bool) -> Any:
        made.append(fine)
        return object()

    heads = HeadDecoders(make, (True, False))
    assert made == [True, False]
    fine, plain = heads.get(fine=True), heads.get(fine=False)
    assert fine is not plain and made == [True, False]
    other = HeadDecoders(make, (False,))
    assert made[2:] == [False]
    assert other.get(fine=True) is other.get(fine=True) and made[2:] == [False, True]


class KeptDecoder(GraphDecoder):
    """Counts how often it gives memory back."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


def test_a_finer_head_that_draws_nothing_gives_memory_back() -> None:
    now, fine = [0.0], KeptDecoder()
    heads = HeadDecoders(lambda which: fine if which else KeptDecoder(), (True, False), lambda: now[0])
    for at, released in ((4.0, 0), (5.5, 1), (9.0, 1)):
        now[0] = at
        heads.get(fine=False)
        assert fine.released == released
    heads.get(fine=True)
    heads.get(fine=False)
    assert fine.released == 1
    now[0] = 15.0
    assert isinstance(plain := heads.get(fine=False), KeptDecoder) and plain.released == 0
    assert fine.released == 2


def test_a_head_that_is_not_there_fails_the_clip() -> None:
    def make(fine: bool) -> Any:
        if fine:
            raise ConfigError("no finer head")
        return object()

    heads = HeadDecoders(make, (False,))
    with pytest.raises(DecodeError, match="no finer head"):
        heads.get(fine=True)


def test_the_settings_name_the_size_or_the_model_leaves_it_open() -> None:
    config = ModelConfig.load(Settings().config)
    side = config.width
    assert config.has_fine_head

    def heads(*flags: str) -> tuple[tuple[bool, ...], tuple[int, int], tuple[int, int]]:
        settings = load_settings(list(flags), env={})
        return config.heads(settings), config.picture_size(settings), config.asked_size(settings)

    def sides(pixels: int) -> tuple[str, ...]:
        return "--width", str(pixels), "--height", str(pixels)

    assert heads() == ((True, False), (side, side), (side, side))
    assert replace(config, prefer_fine=False).heads(load_settings([], env={})) == (False,)
    assert heads("--fps", "24") == ((False,), (side, side), (side, side))
    assert config.finest_size(load_settings([], env={})) == (2 * side, 2 * side)
    assert config.finest_size(load_settings(["--width", "256", "--height", "192"], env={})) == (256, 192)
    assert heads(*sides(side)) == ((False,), (side, side), (side, side))
    assert heads(*sides(2 * side)) == ((True,), (side, side), (2 * side, 2 * side))
    assert heads(*sides(side + 64)) == ((False,), (side + 64, side + 64), (side + 64, side + 64))


def test_a_worker_draws_by_the_head_that_a_clip_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    flags = ["--gpu-devices", "cpu", "--encoder-devices", "cpu", "--cpu-engine", "torch", "--video", "off"]
    settings = load_settings([*flags, "--dtype", "float32", "--threads", "1"], env={})
    stage = FakeStage()
    worker = EncoderWorker(settings, cast("Stage", stage))
    worker.warm_up()
    side = ModelConfig.load(settings.config).width
    empty = np.zeros((1, 32, side // 16, side // 16), np.float16)
    for decoder, wanted in ((FINE_DECODER, 2 * side), ("", side)):
        (part,) = worker._code(Latents("anna", 0, 0, 0, 24, empty, decoder=decoder))
        assert part[0] == (wanted, wanted)
