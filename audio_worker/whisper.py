"""Whisper's encoder from transformers, and the five hidden states that EchoMimic-v2 listens to.

The states are the input embedding (after the convolutions and the position table) and the output of each of
Whisper tiny's four blocks, before the final layer norm. Source: Radford et al., 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision", and the official EchoMimic-v2.

Importing transformers' Whisper takes seconds and 180 MB. The import therefore stands inside `SpeechEncoder`,
and the worker builds one in its warm-up thread, while the other stages warm up too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from audio_worker.mel import POSITIONS, SHORT_WINDOW_FLOOR
from audio_worker.ring import WINDOW
from protocol.model.checkpoint import CheckpointError, State, find_weights, load_into, read_state_dict
from protocol.model.config import read_json
from protocol.wire.clock import SAMPLE_RATE

WindowKind = Literal["short", "padded"]

#: Positions of Whisper's own window of 30 s.
PADDED_POSITIONS = 1500

_WEIGHTS_FILES = ("whisper_encoder.safetensors", "model.safetensors", "pytorch_model.bin")
_POSITION_TABLE = "embed_positions.weight"
_HEAD_WIDTH = 64  # of every Whisper
_OPENAI_BLOCK = (
    ("attn.query.", "self_attn.q_proj."),
    ("attn.key.", "self_attn.k_proj."),
    ("attn.value.", "self_attn.v_proj."),
    ("attn.out.", "self_attn.out_proj."),
    ("attn_ln.", "self_attn_layer_norm."),
    ("mlp.0.", "fc1."),
    ("mlp.2.", "fc2."),
    ("mlp_ln.", "final_layer_norm."),
)


class SpeechEncoder(nn.Module):
    """From 1.5 s of sound to Whisper's hidden states. Training and serving use the same one.

    Args:
        window: "padded" does what Whisper and the official pipeline do: the encoder sees the spectrogram
            followed by zeros up to 30 s. "short" lets it see the 1.5 s alone, at positions 0 to 74. That is
            a twentieth of the work, and the spectrogram's floor is `SHORT_WINDOW_FLOOR`.
        width: width of the hidden states, 384 in Whisper tiny.
        heads: attention heads, 6 in tiny.
        layers: blocks, 4 in tiny.
        n_mels: bands of the spectrogram.
    """

    def __init__(
        self, window: WindowKind, *, width: int = 384, heads: int = 6, layers: int = 4, n_mels: int = 80
    ) -> None:
        from transformers.models.whisper.configuration_whisper import WhisperConfig
        from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        if window not in ("short", "padded"):
            raise ValueError(f"window must be 'short' or 'padded', got {window!r}")
        self.window = window
        self.positions = POSITIONS if window == "short" else PADDED_POSITIONS
        self.encoder = WhisperEncoder(
            WhisperConfig(
                d_model=width,
                encoder_attention_heads=heads,
                encoder_layers=layers,
                encoder_ffn_dim=4 * width,
                num_mel_bins=n_mels,
                max_source_positions=self.positions,
                attn_implementation="sdpa",
            )
        )
        # transformers gives the last block's output only after this norm; the model wants it before.
        self.encoder.layer_norm = nn.Identity()
        # The encoder only views the convolutions' (B, width, positions) the other way round. Without a copy
        # the blocks work on that layout, and a clip takes 13 % longer in bfloat16.
        self.encoder.layers[0].register_forward_pre_hook(_contiguous_input)
        self._log_mel = WhisperFeatureExtractor(feature_size=n_mels, sampling_rate=SAMPLE_RATE)

    def spectrogram(self, pcm: torch.Tensor) -> torch.Tensor:
        """Whisper's log-mel spectrogram of each row, computed in float32 on the device of `pcm`.

        Args:
            pcm: (B, 24000) samples at 16 kHz in -1..1.

        Returns:
            (B, n_mels, 2 · positions) float32. Rows do not influence each other.

        Raises:
            ValueError: `pcm` has another shape.
        """
        if pcm.ndim != 2 or pcm.shape[1] != WINDOW:
            raise ValueError(f"pcm must be (batch, {WINDOW}), got {tuple(pcm.shape)}")
        # Under autocast the filter bank would be multiplied in bfloat16.
        with torch.autocast(pcm.device.type, enabled=False):
            bands = self._log_mel(
                pcm.cpu().numpy(),
                sampling_rate=SAMPLE_RATE,
                padding="do_not_pad",
                truncation=False,
                device=str(pcm.device),
            )
        mel = torch.from_numpy(bands["input_features"]).to(pcm.device)
        if self.window == "short":
            return mel.clamp_min(SHORT_WINDOW_FLOOR)
        return F.pad(mel, (0, 2 * self.positions - mel.shape[2]))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, n_mels, 2 · positions) → (B, positions, layers + 1, width), in the module's own dtype."""
        parameter = self.encoder.conv1.weight
        mel = mel.to(parameter.device, parameter.dtype)
        states = self.encoder(mel, output_hidden_states=True).hidden_states
        return torch.stack(states, dim=2)

    def features(self, pcm: torch.Tensor) -> torch.Tensor:
        """Features of a batch of windows.

        Args:
            pcm: (B, 24000) samples at 16 kHz in -1..1, on any device.

        Returns:
            (B, 75, layers + 1, width) float32 on the module's device: one row every 20 ms.

        Raises:
            ValueError: `pcm` has another shape.
        """
        states: torch.Tensor = self(self.spectrogram(pcm))
        return states[:, :POSITIONS].float()


def load_whisper(path: str | Path, window: WindowKind) -> SpeechEncoder:
    """Load an encoder in float32, for evaluation, without gradients.

    Args:
        path: OpenAI's `tiny.pt`, a Hugging Face folder (`config.json` with `model.safetensors` or
            `pytorch_model.bin`), the bundled `whisper_encoder.safetensors`, or its folder.
        window: see `SpeechEncoder`.

    Raises:
        CheckpointError, ConfigError: naming the file, and the key where one is wrong.
    """
    path = Path(path)
    file = find_weights(path, _WEIGHTS_FILES) if path.is_dir() else path
    state = _encoder_state(read_state_dict(file))
    first = state.get("conv1.weight")
    if first is None:
        raise CheckpointError(f"{file}: key conv1.weight is missing; is this a Whisper model?")
    width, n_mels = first.shape[:2]
    layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("layers.")), default=0)
    heads = _stated_heads(file) or width // _HEAD_WIDTH
    encoder = SpeechEncoder(window, width=width, heads=heads, layers=layers, n_mels=n_mels)
    if _POSITION_TABLE in state:
        state[_POSITION_TABLE] = state[_POSITION_TABLE][: encoder.positions]
    # A table that is left out is computed. OpenAI's stored one differs from the formula by up to 5e-4.
    load_into(encoder.encoder, state, file=file, allow_missing=(_POSITION_TABLE,))
    return encoder.eval().requires_grad_(False)


def _contiguous_input(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(), *inputs[1:])


def _stated_heads(file: Path) -> int | None:
    """Attention heads according to the `config.json` beside the weights, None without one."""
    config = file.parent / "config.json"
    if file.suffix == ".pt" or not config.is_file():
        return None  # OpenAI's file stands alone
    heads = read_json(config).get("encoder_attention_heads")
    return heads if isinstance(heads, int) else None


def _encoder_state(state: Mapping[str, torch.Tensor]) -> State:
    """The encoder's tensors of any of the three layouts, under the names of transformers' encoder."""
    renamed: State = {}
    whole_model = any(".encoder." in f".{key}" for key in state)
    for full, value in state.items():
        _, prefix, key = f".{full}".rpartition(".encoder.")
        if whole_model and not prefix:
            continue
        key = _huggingface_key(key.removeprefix("."))
        if not key.startswith("layer_norm."):  # no hidden state needs the final norm
            renamed[key] = value
    return renamed


def _huggingface_key(key: str) -> str:
    if key == "positional_embedding":
        return _POSITION_TABLE
    if key.startswith("ln_post."):
        return "layer_norm." + key.removeprefix("ln_post.")
    if not key.startswith("blocks."):
        return key
    _, index, rest = key.split(".", 2)
    for openai, huggingface in _OPENAI_BLOCK:
        if rest.startswith(openai):
            rest = huggingface + rest.removeprefix(openai)
            break
    return f"layers.{index}.{rest}"
