"""The Whisper tiny encoder and the five hidden states EchoMimic-v2 listens to.

The states are the input embedding (after the convolutions and positions) and the output of each of the four
blocks, all before the final layer norm. Architecture: Radford et al., 2022. Module names follow the Hugging
Face layout, so that a `WhisperModel` folder, OpenAI's `tiny.pt` and the bundled `whisper_encoder.safetensors`
load into the same module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from audio_worker.mel import N_MELS, SHORT_WINDOW_MAX, log_mel
from protocol.process.settings import SettingsError

Window = Literal["short", "padded"]

CHUNK_SAMPLES = 24_000
"""1.5 s at 16 kHz: the history and one clip, the piece of sound that one call hears."""
POSITIONS = 75
"""Feature positions of one chunk: one per 20 ms."""
PADDED_POSITIONS = 1500
"""Positions of Whisper's own 30 s window."""


class WhisperWeightsError(SettingsError):
    """Whisper weights are missing, damaged or of another shape; the message names the file and the key."""


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Whisper's position table, (length, channels) float32: sines, then cosines, of 10,000-spaced waves."""
    step = math.log(10_000) / (channels // 2 - 1)
    scales = torch.exp(-step * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * scales[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, positions, width = x.shape
        shape = (batch, positions, self.heads, width // self.heads)
        q = self.q_proj(x).view(shape).transpose(1, 2)
        k = self.k_proj(x).view(shape).transpose(1, 2)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        joined: torch.Tensor = self.out_proj(out.transpose(1, 2).reshape(batch, positions, width))
        return joined


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        x = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return x


class WhisperEncoder(nn.Module):
    """Log-mel to hidden states.

    Args:
        width: model width, 384 in Whisper tiny.
        heads: attention heads, 6 in tiny.
        layers: blocks, 4 in tiny.
        n_mels: bands of the spectrogram.
    """

    positions: torch.Tensor

    def __init__(self, width: int = 384, heads: int = 6, layers: int = 4, n_mels: int = N_MELS) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.conv1 = nn.Conv1d(n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.register_buffer("positions", sinusoids(PADDED_POSITIONS, width), persistent=False)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, n_mels, T) with T ≤ 3000 → (B, T // 2, layers + 1, width), in the module's own dtype."""
        mel = mel.to(self.conv1.weight.dtype)
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]].to(x.dtype)
        states = [x]
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return torch.stack(states, dim=2)

    def features(self, pcm: torch.Tensor, window: Window = "short") -> torch.Tensor:
        """Features of a batch of chunks: the same function for training and serving.

        Args:
            pcm: (B, 24000) samples at 16 kHz on the module's device.
            window: "padded" is what Whisper and the official pipeline do: the spectrogram, with zeros up to
                30 s, through the whole encoder. "short" encodes the 1.5 s alone (positions 0 to 74), a
                twentieth of the work, with the steadier floor of `mel.SHORT_WINDOW_MAX`.

        Returns:
            (B, 75, 5, 384) float32: one row per 20 ms, five hidden states each.
        """
        if pcm.ndim != 2 or pcm.shape[1] != CHUNK_SAMPLES:
            raise ValueError(f"pcm must be (batch, {CHUNK_SAMPLES}), got {tuple(pcm.shape)}")
        if window == "short":
            mel = log_mel(pcm, max_floor=SHORT_WINDOW_MAX, n_mels=self.n_mels)
        elif window == "padded":
            mel = log_mel(pcm, n_mels=self.n_mels)
            mel = F.pad(mel, (0, 2 * PADDED_POSITIONS - mel.shape[2]))
        else:
            raise ValueError(f"window must be 'short' or 'padded', got {window!r}")
        states: torch.Tensor = self(mel)
        return states[:, :POSITIONS].float()


_OPENAI_NAMES = {
    "attn.query.": "self_attn.q_proj.",
    "attn.key.": "self_attn.k_proj.",
    "attn.value.": "self_attn.v_proj.",
    "attn.out.": "self_attn.out_proj.",
    "attn_ln.": "self_attn_layer_norm.",
    "mlp.0.": "fc1.",
    "mlp.2.": "fc2.",
    "mlp_ln.": "final_layer_norm.",
}
_FINAL_NORM = ("layer_norm.", "ln_post.")
_POSITIONS = ("embed_positions.weight", "positional_embedding")


def _to_encoder_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's tensors of any of the three layouts, under this module's names."""
    out: dict[str, torch.Tensor] = {}
    prefixed = any(".encoder." in f".{key}" for key in state)
    for full, value in state.items():
        if prefixed and ".encoder." not in f".{full}":
            continue
        key = f".{full}".split(".encoder.")[-1].lstrip(".")
        if key.startswith(_FINAL_NORM):
            continue  # no hidden state needs it
        if key in _POSITIONS:
            key = "positions"
        if key.startswith("blocks."):
            _, index, rest = key.split(".", 2)
            for theirs, ours in _OPENAI_NAMES.items():
                if rest.startswith(theirs):
                    rest = ours + rest[len(theirs) :]
                    break
            key = f"layers.{index}.{rest}"
        out[key] = value
    return out


def _read(path: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, object]]:
    """The file that was read, its tensors, and the config beside it ({} if none)."""
    config: dict[str, object] = {}
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        names = ("whisper_encoder.safetensors", "model.safetensors", "pytorch_model.bin")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise WhisperWeightsError(f"{path}: holds none of {', '.join(names)}")
        path = found[0]
    if not path.is_file():
        raise WhisperWeightsError(f"{path}: no such file; audio_model_path must name Whisper weights")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("model_state_dict", state)
    except Exception as error:  # torch raises all kinds of things, and recommends to unpickle the file
        raise WhisperWeightsError(f"{path}: cannot be read: damaged, or holds more than weights") from error
    if (folder / "config.json").is_file() and path.suffix != ".pt":
        config = json.loads((folder / "config.json").read_text())
    return path, state, config


def load_whisper(path: str | Path, *, heads: int | None = None) -> WhisperEncoder:
    """Load the encoder (float32, eval, no gradients).

    Args:
        path: OpenAI's `tiny.pt`, a Hugging Face folder (`config.json` with `model.safetensors` or
            `pytorch_model.bin`), or the bundled `whisper_encoder.safetensors` (or its folder).
        heads: attention heads; None reads the config, and without one takes Whisper's 64 wide heads.

    Raises:
        WhisperWeightsError: naming file and key.
    """
    file, raw, config = _read(Path(path))
    state = _to_encoder_keys(raw)
    if "conv1.weight" not in state:
        raise WhisperWeightsError(f"{file}: key encoder.conv1.weight is missing; is this a Whisper model?")
    width, n_mels = state["conv1.weight"].shape[:2]
    layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("layers.")), default=-1)
    stated = config.get("encoder_attention_heads")
    heads = heads or (stated if isinstance(stated, int) else width // 64)
    encoder = WhisperEncoder(width, heads, layers, n_mels)
    expected = encoder.state_dict()
    for key in expected:
        if key not in state:
            raise WhisperWeightsError(f"{file}: key encoder.{key} is missing")
        if state[key].shape != expected[key].shape:
            raise WhisperWeightsError(
                f"{file}: key encoder.{key} has shape {tuple(state[key].shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
    # OpenAI's stored table differs from the formula by up to 5e-4, so where a file has one it is used.
    positions = state.pop("positions", None)
    if positions is not None:
        if positions.shape != encoder.positions.shape:
            raise WhisperWeightsError(
                f"{file}: the position table has shape {tuple(positions.shape)}, "
                f"expected {tuple(encoder.positions.shape)}"
            )
        encoder.positions = positions.float()
    for key in state:
        if key not in expected:
            raise WhisperWeightsError(f"{file}: key encoder.{key} is not part of a Whisper encoder")
    encoder.load_state_dict({key: value.float() for key, value in state.items()})
    return encoder.eval().requires_grad_(False)
