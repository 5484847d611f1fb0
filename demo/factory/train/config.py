"""The bundled model's shape: EchoMimic-v2's own configuration, smaller.

A latent of a 256² picture is 16×16 with 32 channels, twice as many numbers as the official 32×32×4. Sixteen
times fewer positions than 64×64 make attention and motion modules cheap enough for a CPU. The 45 MB that all
weights may take bound the widths. `docs/guide/bundled-model.md` has the budget.
"""

from __future__ import annotations

from typing import Any

from protocol.wire.clock import SAMPLE_RATE

SIZE = 256
FINE_SIZE = 2 * SIZE  # of the decoder's finer head
FPS = 24
CLIP_FRAMES = 12
WINDOW_SAMPLES = 24_000
HISTORY_SAMPLES = SAMPLE_RATE
FIRST_TRACK_SEED = 10_000  # pose tracks of training; those of demo/bundled/poses/split.json lie far below
TICKS = 120  # mouth and life tracks are stored at 120 Hz, a common multiple of 24, 12 and 8

VAE: dict[str, Any] = {
    "_class_name": "AutoencoderLite",
    "latent_channels": 32,
    "scaling_factor": 1.0,
    "encoder_widths": [16, 32, 64, 96, 96],
    "encoder_layers_per_block": 1,
    "decoder_widths": [160, 96, 48, 24],
    "decoder_blocks": [3, 2, 2, 2],
    "fine_width": 12,
    "fine_blocks": 0,
    "fine_kernel": 3,
    "norm_num_groups": 16,
}

BASE_UNET = {
    "sample_size": 16,
    "in_channels": 32,
    "out_channels": 32,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [128, 64],
    "layers_per_block": 1,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 384,
    "attention_head_dim": 4,
}

INFERENCE = {
    "unet_additional_kwargs": {
        "use_inflated_groupnorm": True,
        "unet_use_cross_frame_attention": False,
        "unet_use_temporal_attention": False,
        "use_motion_module": True,
        "cross_attention_dim": 384,
        "motion_module_resolutions": [1, 2],
        "motion_module_mid_block": False,
        "motion_module_decoder_only": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": {
            "num_attention_heads": 4,
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
}

POSE_ENCODER: dict[str, Any] = {
    "conditioning_embedding_channels": 128,
    "conditioning_channels": 3,
    "block_out_channels": [16, 24, 32, 48, 96],
}
