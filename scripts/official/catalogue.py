"""The files of EchoMimic-v2: their places in the official layout, their sources and their licences.

Sources: README.md, linux_setup.sh and configs/ of github.com/antgroup/echomimic_v2 (commit a312dec). Its list
of `pretrained_weights/` names files of four repositories of the Hub; Whisper is OpenAI's there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Values of `configs/inference/inference_v2.yaml`, which both official models share.
INFERENCE: dict[str, Any] = {
    "unet_additional_kwargs": {
        "use_inflated_groupnorm": True,
        "unet_use_cross_frame_attention": False,
        "unet_use_temporal_attention": False,
        "use_motion_module": True,
        "cross_attention_dim": 384,
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_mid_block": True,
        "motion_module_decoder_only": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": {
            "num_attention_heads": 8,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": 32,
            "temporal_attention_dim_div": 1,
        },
    },
    "noise_scheduler_kwargs": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "clip_sample": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "sampler": "DDIM",
}

ECHOMIMIC = "BadToBest/EchoMimicV2"
VAE = "stabilityai/sd-vae-ft-mse"
BASE = "lambdalabs/sd-image-variations-diffusers"
WHISPER = "openai/whisper-tiny"
TAESD = "madebyollin/taesd"

#: Licences by repository, as the pages of the Hub name them.
LICENCES: dict[str, str] = {
    ECHOMIMIC: "Apache-2.0; its authors intend it for academic research",
    VAE: "MIT",
    BASE: "CreativeML OpenRAIL-M; only the file unet/config.json is fetched",
    WHISPER: "Apache-2.0",
    TAESD: "MIT",
}


@dataclass(frozen=True)
class ModelPart:
    """One file that the model needs.

    Attributes:
        place: its path in the official layout, below `pretrained_weights/`.
        repository: of the Hub.
        name: its path in the repository.
        also: other places in the layout where people have a file that serves as well.
    """

    place: str
    repository: str
    name: str
    also: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """All places in the layout, the usual one first."""
        return (self.place, *self.also)


@dataclass(frozen=True)
class Variant:
    """The accelerated or the plain model.

    Attributes:
        name: as the log has it.
        denoiser: of the denoising UNet without its motion modules.
        motion: of the motion modules.
    """

    name: str
    denoiser: ModelPart
    motion: ModelPart


def _own(name: str) -> ModelPart:
    """A file of EchoMimic-v2's own repository, which some have converted to `.safetensors`."""
    return ModelPart(name, ECHOMIMIC, name, (name.replace(".pth", ".safetensors"),))


ACCELERATED = Variant("accelerated", _own("denoising_unet_acc.pth"), _own("motion_module_acc.pth"))
PLAIN = Variant("plain", _own("denoising_unet.pth"), _own("motion_module.pth"))

REFERENCE = _own("reference_unet.pth")
POSE_ENCODER = _own("pose_encoder.pth")
VAE_CONFIG = ModelPart("sd-vae-ft-mse/config.json", VAE, "config.json")
VAE_WEIGHTS = ModelPart(
    "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
    VAE,
    "diffusion_pytorch_model.safetensors",
    ("sd-vae-ft-mse/diffusion_pytorch_model.bin",),
)
BASE_CONFIG = ModelPart(
    "sd-image-variations-diffusers/unet/config.json",
    BASE,
    "unet/config.json",
    ("sd-image-variations-diffusers/config.json",),
)
# OpenAI's tiny.pt is on no repository of the Hub under its own name. This file has the same weights.
WHISPER_WEIGHTS = ModelPart(
    "whisper-tiny/model.safetensors",
    WHISPER,
    "model.safetensors",
    ("audio_processor/tiny.pt", "audio_processor/whisper_tiny.pt"),
)
TAESD_PARTS = (
    ModelPart("taesd/config.json", TAESD, "config.json"),
    ModelPart("taesd/diffusion_pytorch_model.safetensors", TAESD, "diffusion_pytorch_model.safetensors"),
)


def parts_of(variant: Variant, *, small_decoder: bool) -> list[ModelPart]:
    """The files of a variant, the large ones first.

    Args:
        variant: the accelerated or the plain model.
        small_decoder: whether `--decoder tiny` needs its decoder.
    """
    parts = [variant.denoiser, REFERENCE, POSE_ENCODER, variant.motion]
    parts += [VAE_WEIGHTS, WHISPER_WEIGHTS, VAE_CONFIG, BASE_CONFIG]
    return parts + list(TAESD_PARTS if small_decoder else ())
