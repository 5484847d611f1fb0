"""Low-rank corrections of a Whisper encoder (LoRA, Hu et al., "LoRA: Low-Rank Adaptation of Large Language
Models", 2021).

A model may be trained with an encoder that hears a little differently. What was learned lies beside Whisper's
own weights as two thin matrices for each linear layer, and is added to them once, when they are loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from audio_worker.whisper import WhisperEncoder, WhisperWeightsError

DOWN, UP = ".down", ".up"


def linear_layers(encoder: WhisperEncoder) -> dict[str, nn.Linear]:
    """The layers that a correction may have, by name."""
    return {name: layer for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)}


@torch.no_grad()
def apply_adapter(encoder: WhisperEncoder, path: Path) -> None:
    """Adds up · down to the weight (out, in) of each layer that the file names.

    path: safetensors with `<layer>.down` (rank, in) and `<layer>.up` (out, rank). Raises WhisperWeightsError
    naming file and key.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WhisperWeightsError(f"{path}: cannot be read as safetensors: {error}") from error
    layers = linear_layers(encoder)
    for key in state:
        name, dot, part = key.rpartition(".")
        if name not in layers or dot + part not in (DOWN, UP):
            raise WhisperWeightsError(f"{path}: key {key} belongs to no linear layer of the encoder")
        if name + DOWN not in state or name + UP not in state:
            raise WhisperWeightsError(f"{path}: key {name} has only one of {DOWN} and {UP}")
    for name, layer in layers.items():
        if name + UP not in state:
            continue
        up, down = state[name + UP].float(), state[name + DOWN].float()
        if (
            up.ndim != 2
            or down.ndim != 2
            or (len(up), *down.shape[1:]) != layer.weight.shape
            or (up.shape[1] != len(down))
        ):
            raise WhisperWeightsError(
                f"{path}: key {name}: {tuple(up.shape)} times {tuple(down.shape)} is not the layer's "
                f"{tuple(layer.weight.shape)}"
            )
        layer.weight += (up @ down).to(layer.weight)
