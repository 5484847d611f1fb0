"""Low-rank corrections of Whisper's weights.

Source: Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models".

A model may be trained with a Whisper that hears a little differently. The corrections lie in their own file
beside Whisper's weights, as two thin matrices for each linear layer. They are added to the weights once, when
both are loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from audio_worker.whisper import SpeechEncoder
from protocol.model.checkpoint import CheckpointError, State, read_state_dict

DOWN, UP = ".down", ".up"


def linear_layers(whisper: SpeechEncoder) -> dict[str, nn.Linear]:
    """The layers that a correction may have, by their name inside the encoder (`layers.0.fc1`)."""
    return {name: layer for name, layer in whisper.encoder.named_modules() if isinstance(layer, nn.Linear)}


@torch.no_grad()
def apply_adapter(whisper: SpeechEncoder, path: Path) -> None:
    """Add up · down to the weight (out, in) of each layer that the file names.

    Args:
        whisper: the encoder, unchanged if the file does not fit.
        path: safetensors with `<layer>.down` (rank, in) and `<layer>.up` (out, rank).

    Raises:
        CheckpointError: naming file and key.
    """
    state = read_state_dict(path)
    layers = linear_layers(whisper)
    _check_keys(state, layers, path)
    named = [name for name in layers if name + UP in state]
    changes = {name: _change(state, name, layers[name], path) for name in named}
    for name, change in changes.items():
        layers[name].weight += change


def _check_keys(state: State, layers: dict[str, nn.Linear], path: Path) -> None:
    for key in state:
        name, dot, part = key.rpartition(".")
        if name not in layers or dot + part not in (DOWN, UP):
            raise CheckpointError(f"{path}: key {key} belongs to no linear layer of the encoder")
        if name + DOWN not in state or name + UP not in state:
            raise CheckpointError(f"{path}: key {name} has only one of {DOWN} and {UP}")


def _change(state: State, name: str, layer: nn.Linear, path: Path) -> torch.Tensor:
    """The sum to add to the layer's weight, in the weight's shape and type."""
    up, down = state[name + UP].float(), state[name + DOWN].float()
    fits = (
        up.ndim == down.ndim == 2
        and up.shape[1] == down.shape[0]
        and (up.shape[0], down.shape[1]) == layer.weight.shape
    )
    if not fits:
        raise CheckpointError(
            f"{path}: key {name}: {tuple(up.shape)} times {tuple(down.shape)} is not the layer's "
            f"{tuple(layer.weight.shape)}"
        )
    return (up @ down).to(layer.weight)
