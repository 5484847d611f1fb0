"""Files of safetensors as arrays of numpy, without torch.

The format: https://github.com/huggingface/safetensors. A file is the length of its header in 8 bytes, the
header in JSON, and the arrays one after another. There is no code in it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

#: numpy's types by their names in a header. It has no bfloat16.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip

#: Most bytes of a header, as in safetensors' own reader.
MOST_HEADER = 100_000_000


class SafeFileError(ValueError):
    """A file is damaged or of another format. The message names it."""


def map_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by their names. They are mapped, so those that nobody reads take no memory.

    A change to an array stays in this process.

    Raises:
        OSError: the file cannot be opened.
        SafeFileError: it is damaged, or holds a type that numpy does not have.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(MOST_HEADER, size - 8):
            raise SafeFileError(f"{path}: not a safetensors file")
        text = stream.read(length)
    begin = 8 + length
    try:
        header = json.loads(text)
        content = np.memmap(path, np.uint8, "c", begin) if size > begin else np.empty(0, np.uint8)
        return {name: _array(content, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SafeFileError(f"{path}: not a safetensors file: {error}") from error


def _array(content: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[entry["dtype"]])
    shape = tuple(int(side) for side in entry["shape"])
    start, end = entry["data_offsets"]
    count = int(np.prod(shape, dtype=np.int64))
    if min((*shape, start)) < 0 or end - start != count * dtype.itemsize or end > len(content):
        raise ValueError("an array lies outside of the file")
    # A plain array over the map: a memmap's own class would go on in everything that is computed from it.
    return np.frombuffer(content, dtype, count, start).reshape(shape)


def arrays_as_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of a file that holds these arrays."""
    content: bytes = safetensors.numpy.save({name: np.asarray(x, order="C") for name, x in arrays.items()})
    return content
