"""The fast path in float32 on the CPU against the faithful one, whose numbers are the official code's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpu_worker.denoiser.loading import Models, channels_last
from gpu_worker.denoiser.model import DenoisingUNet3D, UNetConfig
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.denoiser.spare import weights_of
from gpu_worker.fast import FastDenoiser, FastUnavailable
from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.tiers import TIERS, Tier
from gpu_worker.fast.weights import SpareColumn, SplitRule, storages
from tests.gpu_worker.test_clip_denoiser import BASE, conditions, difference, seeded, small_models
from tests.gpu_worker.test_model import MOTION
from tests.gpu_worker.test_pipeline_parity import conditions as golden_conditions
from tests.gpu_worker.test_pipeline_parity import models as golden_models  # noqa: F401 - a fixture
from tests.gpu_worker.test_pipeline_parity import numbers, report, vae  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

LIMIT = 1e-5


def random_vectors(module: nn.Module) -> None:
    """Biases and norms that are neither 0 nor 1, so that one left out shows."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)


def both(
    models: Models, given: dict[str, Any], ops: TorchOps | None = None, tier: Tier = TIERS["exact"]
) -> tuple[Tensor, Tensor]:
    noise = torch.randn(len(given["tokens"]), 8, 8, 8, generator=seeded())
    faithful = ClipDenoiser(models)
    wanted = faithful.sample(
        noise, faithful.project_audio(given["tokens"]), given["pose_features"], given["reference"]
    )
    fast = FastDenoiser(models, ops=ops, tier=tier)
    inputs = (noise, given["tokens"], given["pose_features"], given["reference"])
    fast.prepare(*inputs)
    made = fast.sample(*inputs)
    assert made.shape == wanted.shape
    assert made.dtype == torch.float32
    return made, wanted


def drawn_models() -> Models:
    """Small models with random weights, biases and gains."""
    made = small_models(window_shift=1)
    torch.manual_seed(1)
    random_vectors(made.denoiser)
    return made


@pytest.fixture(scope="module")
def models() -> Models:
    return drawn_models()


@pytest.mark.parametrize("ops", [TorchOps(), TorchOps(SpareColumn())])
@pytest.mark.parametrize("frames", [1, 4, 6])
def test_the_same_clip(models: Models, ops: TorchOps, frames: int) -> None:
    made, wanted = both(models, conditions(ClipDenoiser(models), frames), ops)
    assert difference(made, wanted) <= LIMIT


def test_the_last_products_apart(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """As float8 leaves them. It rounds nothing away here, so the clip is the same."""
    monkeypatch.setattr("gpu_worker.fast.clip.layers_of", lambda network: [])
    made, wanted = both(models, conditions(ClipDenoiser(models)), TorchOps(SpareColumn()), Tier(fp8=True))
    assert difference(made, wanted) <= LIMIT


@pytest.mark.parametrize(
    "motion",
    [
        {"use_motion_module": False},
        {"motion_module_mid_block": False, "motion_module_decoder_only": True},
        {"motion_module_kwargs": {**MOTION["motion_module_kwargs"], "num_transformer_block": 2}},
        {"motion_module_kwargs": {**MOTION["motion_module_kwargs"], "temporal_position_encoding": False}},
    ],
)
def test_other_networks(models: Models, motion: dict[str, Any]) -> None:
    torch.manual_seed(2)
    denoiser = DenoisingUNet3D(UNetConfig.denoiser(BASE, {**MOTION, **motion})).eval().requires_grad_(False)
    random_vectors(denoiser)
    for parameter in denoiser.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    other = replace(models, denoiser=denoiser)
    made, wanted = both(other, conditions(ClipDenoiser(other)), TorchOps(SpareColumn()))
    assert difference(made, wanted) <= LIMIT


def test_the_official_numbers(
    golden_models: Models,  # noqa: F811
    numbers: dict[str, np.ndarray],  # noqa: F811
) -> None:
    given = golden_conditions(ClipDenoiser(golden_models), numbers, 12)
    noise = torch.from_numpy(numbers["noise_L12_cfg1.0"])[0].transpose(0, 1)
    fast = FastDenoiser(golden_models)
    inputs = (noise, given["tokens"], given["pose_features"], given["reference"])
    fast.prepare(*inputs)
    latents = fast.sample(*inputs)
    report(latents, numbers, "L12_cfg1.0", "fast path, clip of 12 frames")


def test_another_avatar_is_taken_over(models: Models) -> None:
    denoiser = ClipDenoiser(models)
    given = conditions(denoiser)
    other = denoiser.prepare_reference(np.full((16, 16, 3), 200, np.uint8)).reference
    fast = FastDenoiser(models)
    noise = torch.randn(4, 8, 8, 8, generator=seeded())
    fast.prepare(noise, given["tokens"], given["pose_features"], other)
    first = fast.sample(noise, given["tokens"], given["pose_features"], given["reference"])
    second = fast.sample(noise, given["tokens"], given["pose_features"], other)
    again = fast.sample(noise, given["tokens"], given["pose_features"], given["reference"])
    assert difference(second, first) > 1e-3
    assert torch.equal(first, again)


def test_clips_of_several_lengths_and_avatars_take_turns(models: Models) -> None:
    """Clips of any length share some of the space for a reference."""
    plain = ClipDenoiser(models)
    references = [
        plain.prepare_reference(np.full((16, 16, 3), level, np.uint8)).reference for level in (30, 200)
    ]
    fast = FastDenoiser(models, ops=TorchOps(SpareColumn()))
    inputs = {}
    for frames in (2, 4):
        given = conditions(plain, frames)
        noise = torch.randn(frames, 8, 8, 8, generator=seeded())
        inputs[frames] = noise, given["tokens"], given["pose_features"]
        fast.prepare(*inputs[frames], references[0])
    for frames, which in ((2, 0), (4, 1), (2, 0), (4, 0), (2, 1)):
        noise, tokens, pose = inputs[frames]
        wanted = plain.sample(noise, plain.project_audio(tokens), pose, references[which])
        assert difference(fast.sample(*inputs[frames], references[which]), wanted) <= LIMIT


def test_only_prepared_shapes(models: Models) -> None:
    fast, given = FastDenoiser(models), conditions(ClipDenoiser(models))
    fast.prepare(torch.zeros(4, 8, 8, 8), given["tokens"], given["pose_features"], given["reference"])
    assert fast.prepared(4, 8, 8, 5)
    assert not fast.prepared(6, 8, 8, 5)


def test_no_guidance(models: Models) -> None:
    with pytest.raises(FastUnavailable, match="unconditional"):
        FastDenoiser(models, guidance_scale=2.0)


def test_weights_are_shared(models: Models) -> None:
    """Only fused weights are held twice. Convolutions are as loading leaves them."""
    channels_last(models.denoiser)
    network = FastDenoiser(models).network
    assert network.conv_in[0] is models.denoiser.conv_in.weight
    layer = network.down[1].layers[0]
    assert layer.spatial is not None
    blocks: Any = models.denoiser.down_blocks
    faithful = blocks[1].attentions[0].transformer_blocks[0]
    assert layer.spatial.ff_in.weight is faithful.ff.net[0].proj.weight
    assert layer.spatial.ff_out.weight is faithful.ff.net[2].weight


def test_by_the_kernels(models: Models) -> None:
    """The whole network through Triton, by its interpreter where there is no CUDA device."""
    pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")
    from gpu_worker.fast.kernels.attention import AttentionTile
    from gpu_worker.fast.triton_ops import TritonOps

    ops = TritonOps()
    ops.spatial_tile = AttentionTile(32, 32, 4, 2, narrow=True, sampled=True)
    ops.audio_tile = AttentionTile(32, 32, 4, 1)
    one_step = replace(models, config=replace(models.config, steps=1))
    made, wanted = both(one_step, conditions(ClipDenoiser(one_step), 2), ops)
    assert difference(made, wanted) <= LIMIT


@pytest.mark.parametrize("split", [None, SpareColumn()], ids=["whole", "spare"])
@pytest.mark.parametrize(
    ("tier", "most"),
    [
        (Tier(merge_frame=True), 0.5),
        (Tier(fp8=True), 0.1),
        (Tier(reuse_attention=frozenset({1})), 0.5),
        (Tier(shallow=frozenset({1})), 0.5),
        (TIERS["fast"], 0.5),
    ],
    ids=["frame", "fp8", "reuse", "shallow", "fast"],
)
def test_tiers_come_near(models: Models, tier: Tier, most: float, split: SplitRule | None) -> None:
    """Untrained networks are the hardest case: neighbouring positions and steps have little in common."""
    made, wanted = both(models, conditions(ClipDenoiser(models)), TorchOps(split), tier)
    error = difference(made, wanted)
    assert error <= most
    if tier.fp8:
        assert error > 0


class RememberedTops:
    """Scales of an earlier start, in memory."""

    tops: Sequence[float] | None = None

    def load(self, count: int) -> Sequence[float] | None:
        return self.tops if self.tops is not None and len(self.tops) == count else None

    def store(self, tops: Sequence[float]) -> None:
        self.tops = tops


def test_a_second_start_takes_the_scales_of_the_first(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip is the same to the last bit, and no clip was made to find the scales."""
    given, tops = conditions(ClipDenoiser(models)), RememberedTops()
    noise = torch.randn(len(given["tokens"]), 8, 8, 8, generator=seeded())
    inputs = (noise, given["tokens"], given["pose_features"], given["reference"])
    made = []
    for _ in range(2):
        fast = FastDenoiser(models, tier=TIERS["fast"], tops=tops)
        fast.prepare(*inputs)
        made.append(fast.sample(*inputs))
        monkeypatch.delattr(FastDenoiser, "_watch", raising=False)
    assert tops.tops
    torch.testing.assert_close(made[1], made[0], rtol=0, atol=0)


def test_cudnn_serves_the_convolutions(models: Models) -> None:
    """Without it CUDA's convolutions are many times slower, and nothing else would show it."""
    seen = []

    class Seeing(TorchOps):
        def conv(self, image: Image, weight: Tensor, stride: int = 1) -> Image:
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
            return super().conv(image, weight, stride)

    both(models, conditions(ClipDenoiser(models)), Seeing())
    assert set(seen) == {(True, True)}


def test_weights_that_are_put_aside_are_not_read() -> None:
    """Nothing of them remains, and the fast path makes the same clip. Plain torch needs them."""
    models = small_models(window_shift=1)
    faithful = ClipDenoiser(models)
    given = conditions(faithful, 4)
    noise = torch.randn(4, 8, 8, 8, generator=seeded())
    inputs = (noise, given["tokens"], given["pose_features"], given["reference"])
    fast = FastDenoiser(models)
    fast.prepare(*inputs)
    before = fast.sample(*inputs)
    read = storages(fast.network)
    aside = [x for x in weights_of(models.denoiser) if x.untyped_storage().data_ptr() not in read]
    share = sum(x.numel() for x in aside) / sum(x.numel() for x in weights_of(models.denoiser))
    assert 0.1 < share < 0.9
    for tensor in aside:
        tensor.data.fill_(float("nan"))
    torch.testing.assert_close(fast.sample(*inputs), before, rtol=0, atol=0)
    shorter = (noise[:2], given["tokens"][:2], given["pose_features"][:2], given["reference"])
    fast.prepare(*shorter)
    assert fast.sample(*shorter).isfinite().all()
    audio = faithful.project_audio(given["tokens"])
    assert not faithful.sample(noise, audio, given["pose_features"], given["reference"]).isfinite().all()
