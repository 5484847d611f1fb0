"""The one reader of weights files: finds them, reads them without pickled code, puts them into modules.

Every error names the file, and the key where one is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from protocol.model.file_damage import damage_error
from protocol.process.settings import SettingsError

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model_state_dict")  # the second is that of OpenAI's Whisper
_NAMED = 3  # keys spelled out in an error; a wrong file would list thousands
# Names of attention layers in VAEs that diffusers before 0.18 wrote, such as sd-vae-ft-mse, and today's.
_OLD_ATTENTION = (
    (".query.", ".to_q."),
    (".key.", ".to_k."),
    (".value.", ".to_v."),
    (".proj_attn.", ".to_out.0."),
)


class CheckpointError(SettingsError):
    """Weights that cannot be used. The message names the file and the key."""


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder holds.

    Raises:
        CheckpointError: it holds none of them. Names the folder and the files.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: holds none of {', '.join(names)}")


def read_state_dict(path: Path | str) -> State:
    """Tensors of a `.safetensors`, `.pth`, `.pt` or `.bin` file, on the CPU.

    A state dict nested under `state_dict` or `model_state_dict` is unwrapped. A `module.` before every key
    is taken off.

    Raises:
        CheckpointError: the file is missing, cut off, damaged, a Git LFS pointer or a web page, or holds more
            than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    damage = damage_error(path)
    if damage is not None:
        raise CheckpointError(damage)
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds no weights")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {key} is {type(value).__name__}, not a tensor")
    if all(key.startswith("module.") for key in loaded):
        return {key.removeprefix("module."): value for key, value in loaded.items()}
    return dict(loaded)


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    file: Path | str,
    allow_missing: Sequence[str] = (),
    only: Callable[[str], bool] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> None:
    """Copy weights into a module. Parameters on the meta device come to `device`.

    Args:
        module: takes the weights. It is unchanged if they do not fit.
        state: tensors by the module's keys.
        file: where they come from, for errors.
        allow_missing: patterns (as in `fnmatch`) of keys that the file may leave out.
        only: picks the module's keys that this file is for. The others are left as they are. None picks all.
        dtype: the dtype of parameters that come from the meta device. None keeps the file's.
        device: of parameters that come from the meta device. None is the CPU.

    Raises:
        CheckpointError: a key is missing, unexpected or of the wrong shape. Names file and key.
    """
    expected = {key: value for key, value in module.state_dict().items() if only is None or only(key)}
    missing = [key for key in expected if key not in state and not _matches(key, allow_missing)]
    unexpected = [key for key in state if key not in expected]
    if missing:
        raise CheckpointError(f"{file}: missing {_listed(missing)}")
    if unexpected:
        raise CheckpointError(f"{file}: unexpected {_listed(unexpected)}")
    present = [key for key in expected if key in state]
    for key in present:
        if state[key].shape != expected[key].shape:
            given, wanted = tuple(state[key].shape), tuple(expected[key].shape)
            raise CheckpointError(f"{file}: {key} has shape {given}, the model needs {wanted}")
    owners = dict(module.named_modules())
    with torch.no_grad():
        for key in present:
            owner, _, name = key.rpartition(".")
            _put(owners[owner], name, state[key], dtype, device or torch.device("cpu"))


def modern_vae_keys(state: Mapping[str, Tensor]) -> State:
    """VAE weights under diffusers' names of today, which changed with version 0.18."""
    renamed: State = {}
    for key, value in state.items():
        tensor = value
        if ".attentions." in key:
            for old, new in _OLD_ATTENTION:
                if old in key:
                    key = key.replace(old, new)  # noqa: PLW2901 - the new name
                    # Projections were 1×1 convolutions in some files.
                    tensor = value[:, :, 0, 0] if value.ndim == 4 else value
        renamed[key] = tensor
    return renamed


def _put(owner: nn.Module, name: str, value: Tensor, dtype: torch.dtype | None, device: torch.device) -> None:
    target = getattr(owner, name)
    if target.device.type != "meta":
        target.copy_(value)
        return
    # A copy, because tensors of a mapped file would change or vanish with it.
    kind = dtype if dtype is not None and value.is_floating_point() else value.dtype
    if device.type == "cpu":
        fresh = value.to(dtype=kind, copy=True)
    else:  # from the mapped file at once, and converted there, which takes the host much longer
        fresh = value.to(device).to(kind)
    if isinstance(target, nn.Parameter):
        setattr(owner, name, nn.Parameter(fresh, requires_grad=target.requires_grad))
    else:
        owner.register_buffer(name, fresh, persistent=name in owner.state_dict())


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error


def _read_torch(path: Path) -> object:
    try:
        # Files in torch's zip format are mapped, so that only tensors copied out of them take memory.
        with path.open("rb") as stream:
            mapped = stream.read(4) == b"PK\x03\x04"
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises all kinds of things for damaged files
        # Its text is left out: it recommends to load the file as pickled code.
        raise CheckpointError(f"{path}: is damaged, or holds more than weights") from error


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ("keys " if len(keys) > 1 else "key ") + ", ".join(keys[:_NAMED]) + more
