"""The networks in other shapes than the official one, in training, compiled, and with other attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_worker.denoiser.model import (
    DenoisingUNet3D,
    PoseEncoder,
    ReferenceUNet2D,
    UNetConfig,
    UNetConfigError,
    attention,
)

pytestmark = pytest.mark.slow

MOTION: dict[str, Any] = {
    "use_motion_module": True,
    "cross_attention_dim": 24,
    "motion_module_resolutions": [1, 2],
    "motion_module_mid_block": False,
    "motion_module_kwargs": {
        "num_attention_heads": 2,
        "attention_block_types": ["Temporal_Self"],
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 16,
    },
}
SMALL: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 6,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": [2, 4],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock3D"],
    "up_block_types": ["CrossAttnUpBlock3D", "UpBlock2D"],
}
THREE_LEVELS = {
    **SMALL,
    "block_out_channels": [16, 24, 32],
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"],
    "up_block_types": ["CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"],
}


def build(base: dict[str, Any], motion: dict[str, Any] = MOTION) -> tuple[DenoisingUNet3D, ReferenceUNet2D]:
    torch.manual_seed(0)
    return DenoisingUNet3D(UNetConfig.denoiser(base, motion)), ReferenceUNet2D(UNetConfig.reference(base))


def inputs(batch: int = 2, frames: int = 3, size: tuple[int, int] = (8, 8)) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(batch, 8, frames, *size, generator=g),
        "audio": torch.randn(batch, frames, 5, 24, generator=g),
        "pose": torch.randn(batch, 16, frames, *size, generator=g),
        "reference": torch.randn(batch, 8, *size, generator=g),
    }


def forward(d: DenoisingUNet3D, r: ReferenceUNet2D, x: dict[str, Tensor], t: Any = 400) -> Tensor:
    cache = d.project_reference(r(x["reference"]))
    out: Tensor = d(x["latents"], t, x["audio"], x["pose"], cache)
    return out


NO_MIDDLE = {**SMALL, "mid_block_type": None}


@pytest.mark.parametrize(
    "base", [SMALL, THREE_LEVELS, NO_MIDDLE], ids=["two levels", "three levels", "no middle"]
)
@pytest.mark.parametrize("size", [(8, 8), (10, 7)], ids=str)
def test_any_shape_and_odd_sizes(base: dict[str, Any], size: tuple[int, int]) -> None:
    denoiser, reference = build(base)
    out = forward(denoiser, reference, inputs(size=size))
    assert out.shape == (2, 6, 3, *size)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("mid", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_motion_options_make_their_keys(mid: bool, count: int) -> None:
    kwargs = {**MOTION["motion_module_kwargs"], "attention_block_types": ["Temporal_Self"] * count}
    denoiser, _ = build(SMALL, {**MOTION, "motion_module_mid_block": mid, "motion_module_kwargs": kwargs})
    keys = set(denoiser.state_dict())
    assert any(key.startswith("mid_block.motion_modules") for key in keys) == mid
    assert any(".attention_blocks.1." in key for key in keys) == (count == 2)


def test_batch_elements_are_independent() -> None:
    denoiser, reference = build(SMALL)
    x = inputs()
    both = forward(denoiser, reference, x, torch.tensor([900, 10]))
    for index, t in enumerate((900, 10)):
        alone = forward(denoiser, reference, {k: v[index : index + 1] for k, v in x.items()}, t)
        torch.testing.assert_close(both[index : index + 1], alone, rtol=1e-4, atol=1e-5)


def test_projected_audio_is_exact() -> None:
    denoiser, reference = build(SMALL)
    x = inputs()
    cache = denoiser.project_reference(reference(x["reference"]))
    projected = denoiser.project_audio(x["audio"])
    assert torch.equal(
        denoiser(x["latents"], 5, projected, x["pose"], cache),
        denoiser(x["latents"], 5, x["audio"], x["pose"], cache),
    )


@pytest.mark.parametrize("condition", ["audio", "pose", "reference"])
def test_every_condition_is_used(condition: str) -> None:
    denoiser, reference = build(SMALL)
    x = inputs()
    changed = {**x, condition: x[condition] + 0.5}
    assert not torch.allclose(
        forward(denoiser, reference, x), forward(denoiser, reference, changed), atol=1e-4
    )


def test_gradients_reach_every_used_parameter() -> None:
    denoiser, reference = build(THREE_LEVELS, {**MOTION, "motion_module_mid_block": True})
    pose_encoder = PoseEncoder(16, 3, (8, 16))
    for module in (denoiser, pose_encoder):  # leave the zero initialisation, past which no gradient passes
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    x = inputs()
    x["pose"] = pose_encoder(torch.rand(2, 3, 3, 16, 16))
    forward(denoiser.train(), reference.train(), x).square().mean().backward()
    without = [n for m in (denoiser, pose_encoder) for n, p in m.named_parameters() if p.grad is None]
    assert without == []
    assert sum(p.grad is not None for p in reference.parameters()) > 0


def test_reference_must_match() -> None:
    denoiser, _ = build(SMALL)
    _, other = build(THREE_LEVELS)
    x = inputs()
    with pytest.raises(ValueError, match="attention blocks"):
        denoiser.project_reference(other(x["reference"]))
    bank = {name: torch.zeros(1, 4, 8) for name in denoiser.transformer_blocks}
    with pytest.raises(ValueError, match="width 8"):
        denoiser.project_reference(bank)


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    denoiser, reference = build(SMALL)
    x = inputs(batch=1)
    with torch.no_grad():
        cache = denoiser.project_reference(reference(x["reference"]))
        compiled = torch.compile(denoiser, backend="eager", fullgraph=True, dynamic=False)
        for t in (torch.tensor(999), torch.tensor(3)):
            out = compiled(x["latents"], t, x["audio"], x["pose"], cache)
            assert torch.equal(out, denoiser(x["latents"], t, x["audio"], x["pose"], cache))


def test_half_precision_runs() -> None:
    denoiser, reference = build(SMALL)
    x = inputs()
    with torch.no_grad():
        exact = forward(denoiser, reference, x)
        half = {k: v.bfloat16() for k, v in x.items()}
        out = forward(denoiser.bfloat16(), reference.bfloat16(), half)
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"down_block_types": ["DownBlock2D", "Strange"]}, "down_block_types.*Strange"),
        ({"block_out_channels": [16, 30]}, "30 is not divisible"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types: 1 entries for 2"),
        ({"attention_head_dim": [3, 4]}, "attention_head_dim: 3 heads"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"block_out_channels": ["wide", 3]}, "wrong type"),
    ],
)
def test_wrong_configuration_names_the_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UNetConfigError, match=words):
        UNetConfig.reference({**SMALL, **change})


@pytest.fixture
def sdpa_afterwards() -> Iterator[None]:
    yield
    attention.activate(attention.SDPA)


def test_backend_that_fails_is_not_used(sdpa_afterwards: None, caplog: pytest.LogCaptureFixture) -> None:
    def broken(device: torch.device, dtype: torch.dtype) -> attention.Backend:
        raise OSError("libcuda of another version")

    attention.register("broken", broken)
    attention.register("wrong", lambda d, t: attention.Backend("wrong", "wrong", attend=lambda q, k, v, h: q))
    with caplog.at_level("INFO"):
        chosen = attention.select(torch.device("cpu"), torch.float32, ("broken", "wrong", "xformers"))
    assert chosen.name == "sdpa"
    assert "libcuda of another version" in caplog.text
    assert "numbers differ" in caplog.text
    assert "scaled_dot_product_attention" in caplog.text


def test_backend_is_used_by_the_network(sdpa_afterwards: None) -> None:
    denoiser, reference = build(SMALL)
    x = inputs()
    exact = forward(denoiser, reference, x)
    calls: list[str] = []

    def counted(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        calls.append("attend")
        return attention.sdpa(q, k, v, heads)

    def temporal(q: Tensor, k: Tensor, v: Tensor, frames: int, heads: int) -> Tensor:
        calls.append("temporal")
        return attention.temporal_sdpa(q, k, v, frames, heads)

    backend = replace(attention.SDPA, name="counted", attend=counted, attend_temporal=temporal)
    attention.register("counted", lambda device, dtype: backend)
    assert attention.select(torch.device("cpu"), torch.float32, ("counted",)).name == "counted"
    assert torch.equal(forward(denoiser, reference, x), exact)
    assert {"attend", "temporal"} <= set(calls)


def test_temporal_attention_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2 * 3, 7, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    whole = attention.temporal_sdpa(q, k, v, 3, 2)
    monkeypatch.setattr(attention, "_MAX_SDPA_BATCH", 5)
    torch.testing.assert_close(attention.temporal_sdpa(q, k, v, 3, 2), whole)


@pytest.mark.parametrize("frames", [1, 3, 6])
def test_temporal_attention_with_heads_together(frames: int) -> None:
    q, k, v = (torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    apart = attention.temporal_sdpa(q, k, v, frames, 2)
    torch.testing.assert_close(attention.temporal_heads_together(q, k, v, frames, 2), apart)


def test_a_backend_for_a_while() -> None:
    before = attention.describe()
    with pytest.raises(ValueError), attention.during(attention.FOR_OPENVINO):
        assert attention.describe() == attention.FOR_OPENVINO.description
        raise ValueError
    assert attention.describe() == before
