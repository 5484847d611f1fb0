"""Typed configuration of the two UNets, read from a diffusers `unet/config.json` and the inference yaml.

Key names are those of diffusers 0.24 and of the official `inference_v2.yaml`, so official files
are read unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CROSS_ATTENTION = "cross_attention"
PLAIN = "plain"
_BLOCK_KINDS = {
    "CrossAttnDownBlock": CROSS_ATTENTION,
    "CrossAttnUpBlock": CROSS_ATTENTION,
    "UNetMidBlockCrossAttn": CROSS_ATTENTION,
    "DownBlock": PLAIN,
    "UpBlock": PLAIN,
}
#: Keys of which the official model knows one value. Another value would silently be another network.
_FIXED = {
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "center_input_sample": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "use_linear_projection": False,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "encoder_hid_dim": None,
    "resnet_time_scale_shift": "default",
    "use_inflated_groupnorm": True,
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
}


class UNetConfigError(ValueError):
    """A configuration value describes no network of this family. The message names the key."""


@dataclass(frozen=True)
class MotionConfig:
    """Options of the motion modules (AnimateDiff's "Vanilla" type).

    Attributes:
        resolutions: down-sampling factors (1, 2, 4, …) of the levels that have motion modules.
        mid_block: whether the middle has one.
        decoder_only: whether the levels on the way down have none.
        heads: of each temporal attention.
        transformer_blocks: in each motion module.
        attention_blocks: temporal self-attentions in each transformer block.
        position_encoding: whether the frames' positions are added to the attention's input.
        max_frames: the longest clip that has positions.
        dim_div: divisor of the attention's inner width.
    """

    resolutions: tuple[int, ...] = (1, 2, 4, 8)
    mid_block: bool = True
    decoder_only: bool = False
    heads: int = 8
    transformer_blocks: int = 1
    attention_blocks: int = 2
    position_encoding: bool = True
    max_frames: int = 32
    dim_div: int = 1

    @classmethod
    def from_dict(cls, additional: Mapping[str, Any]) -> MotionConfig:
        """Reads the `motion_module_*` keys of `unet_additional_kwargs`.

        Raises:
            UNetConfigError: names a key that is not supported.
        """
        kind = additional.get("motion_module_type", "Vanilla")
        if kind != "Vanilla":
            raise UNetConfigError(f"motion_module_type: {kind!r} is unknown, only 'Vanilla' is supported")
        kwargs = additional.get("motion_module_kwargs") or {}
        types = tuple(kwargs.get("attention_block_types", ("Temporal_Self", "Temporal_Self")))
        if not types or any(t != "Temporal_Self" for t in types):
            raise UNetConfigError(f"attention_block_types: {list(types)} must be one or more 'Temporal_Self'")
        return cls(
            resolutions=tuple(int(r) for r in additional.get("motion_module_resolutions", (1, 2, 4, 8))),
            mid_block=bool(additional.get("motion_module_mid_block", False)),
            decoder_only=bool(additional.get("motion_module_decoder_only", False)),
            heads=int(kwargs.get("num_attention_heads", 8)),
            transformer_blocks=int(kwargs.get("num_transformer_block", 1)),
            attention_blocks=len(types),
            position_encoding=bool(kwargs.get("temporal_position_encoding", False)),
            max_frames=int(kwargs.get("temporal_position_encoding_max_len", 32)),
            dim_div=int(kwargs.get("temporal_attention_dim_div", 1)),
        )


@dataclass(frozen=True)
class UNetConfig:
    """One UNet: its levels, their widths and their modules.

    Attributes:
        in_channels: of the latents.
        out_channels: of the prediction.
        block_out_channels: width of each level, from the highest resolution.
        layers_per_block: layers of a level on the way down. On the way up there is one more.
        down_blocks: the kind of each level on the way down, `CROSS_ATTENTION` or `PLAIN`.
        up_blocks: the same on the way up, from the lowest resolution.
        mid_block: whether there is a middle.
        heads: attention heads of each level. diffusers calls this number `attention_head_dim` for Stable
            Diffusion 1.x, and files are read that way.
        norm_num_groups: of the group norms.
        norm_eps: of the resnets' group norms.
        freq_shift: of the timestep embedding.
        cross_attention_dim: width of the audio tokens, or None without cross-attention (the reference UNet).
        motion: the motion modules, or None without.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    down_blocks: tuple[str, ...] = (CROSS_ATTENTION, CROSS_ATTENTION, CROSS_ATTENTION, PLAIN)
    up_blocks: tuple[str, ...] = (PLAIN, CROSS_ATTENTION, CROSS_ATTENTION, CROSS_ATTENTION)
    mid_block: bool = True
    heads: tuple[int, ...] = (8, 8, 8, 8)
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    freq_shift: float = 0.0
    cross_attention_dim: int | None = 384
    motion: MotionConfig | None = field(default_factory=MotionConfig)

    @property
    def levels(self) -> int:
        return len(self.block_out_channels)

    def __post_init__(self) -> None:
        n = self.levels
        for key, value in (
            ("down_block_types", self.down_blocks),
            ("up_block_types", self.up_blocks),
            ("attention_head_dim", self.heads),
        ):
            if len(value) != n:
                raise UNetConfigError(f"{key}: {len(value)} entries for {n} levels of block_out_channels")
        for width, heads in zip(self.block_out_channels, self.heads, strict=True):
            if width % self.norm_num_groups:
                raise UNetConfigError(
                    f"block_out_channels: {width} is not divisible by norm_num_groups {self.norm_num_groups}"
                )
            if width % heads:
                raise UNetConfigError(f"attention_head_dim: {heads} heads do not divide the width {width}")
            if self.motion and width % self.motion.heads:
                raise UNetConfigError(
                    f"num_attention_heads: {self.motion.heads} heads do not divide the width {width}"
                )

    @classmethod
    def denoiser(cls, base: Mapping[str, Any], additional: Mapping[str, Any]) -> UNetConfig:
        """The denoising UNet.

        Args:
            base: the values of `unet/config.json`.
            additional: `unet_additional_kwargs` of the inference yaml.

        Raises:
            UNetConfigError: names the key that is wrong.
        """
        merged = {**base, **additional}
        motion = MotionConfig.from_dict(additional) if additional.get("use_motion_module", False) else None
        return cls._from_merged(merged, int(merged.get("cross_attention_dim", 1280)), motion)

    @classmethod
    def reference(cls, base: Mapping[str, Any]) -> UNetConfig:
        """The reference UNet: the base UNet without cross-attention and without motion modules."""
        return cls._from_merged(base, None, None)

    @classmethod
    def _from_merged(
        cls, values: Mapping[str, Any], cross_attention_dim: int | None, motion: MotionConfig | None
    ) -> UNetConfig:
        for key, wanted in _FIXED.items():
            if key in values and values[key] != wanted:
                raise UNetConfigError(f"{key}: {values[key]!r} is not supported, it must be {wanted!r}")
        try:
            widths = tuple(int(c) for c in values.get("block_out_channels", (320, 640, 1280, 1280)))
            n = len(widths)
            default_down = ["CrossAttnDownBlock2D"] * (n - 1) + ["DownBlock2D"]
            default_up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (n - 1)
            heads = values.get("attention_head_dim", 8)
            return cls(
                in_channels=int(values.get("in_channels", 4)),
                out_channels=int(values.get("out_channels", 4)),
                block_out_channels=widths,
                layers_per_block=int(values.get("layers_per_block", 2)),
                down_blocks=_kinds("down_block_types", values.get("down_block_types", default_down)),
                up_blocks=_kinds("up_block_types", values.get("up_block_types", default_up)),
                mid_block=_has_mid_block(values.get("mid_block_type", "UNetMidBlock2DCrossAttn")),
                heads=(int(heads),) * n if isinstance(heads, int) else tuple(int(h) for h in heads),
                norm_num_groups=int(values.get("norm_num_groups", 32)),
                norm_eps=float(values.get("norm_eps", 1e-5)),
                freq_shift=float(values.get("freq_shift", 0)),
                cross_attention_dim=cross_attention_dim,
                motion=motion,
            )
        except (TypeError, ValueError) as error:
            if isinstance(error, UNetConfigError):
                raise
            raise UNetConfigError(f"a value of the UNet configuration has the wrong type: {error}") from error


def _kinds(key: str, names: Sequence[str]) -> tuple[str, ...]:
    kinds = []
    for name in names:
        kind = _BLOCK_KINDS.get(str(name).replace("2D", "").replace("3D", ""))
        if kind is None:
            raise UNetConfigError(f"{key}: {name!r} is not a known block type")
        kinds.append(kind)
    return tuple(kinds)


def _has_mid_block(name: str | None) -> bool:
    if name is None:
        return False
    _kinds("mid_block_type", [name])
    return True
