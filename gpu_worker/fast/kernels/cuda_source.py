"""Kernels in CUDA C++: compiled by NVRTC, which comes with torch, and launched by the driver.

Triton has no matrix products whose width is not a power of two. Kernels that need one are files of CUDA C++
beside this one. They include nothing, so that no CUDA toolkit needs to be installed. `common.cu` is put
before each, `hopper.cu` before those for Hopper's matrix units, and whatever else a kernel's caller names.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from protocol.model.kept_folder import write_whole

#: Of cuda.h: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
#: CU_TENSOR_MAP_SWIZZLE_32B, _64B and _128B by bytes of a row; CU_TENSOR_MAP_DATA_TYPE_UINT8 and _UINT16 by
#: bytes of a number.
_MAX_DYNAMIC_SHARED, _L2_128, _SWIZZLE, _UINT = 8, 2, {32: 1, 64: 2, 128: 3}, {1: 0, 2: 1}
#: Bytes of a digest.
_DIGEST = hashlib.sha256().digest_size


class CudaError(RuntimeError):
    """A compiler or a driver refused."""


class TensorMap(ctypes.Structure):
    """CUtensorMap of cuda.h: how blocks of a tensor are loaded into shared memory."""

    _fields_ = [("opaque", ctypes.c_uint64 * 16)]


#: Of a kernel.
Argument = Tensor | int | float | TensorMap


class CudaKernel:
    """One kernel on the current device.

    Args:
        binary: machine code, as `compile_cuda` makes it.
        name: of the kernel, declared extern "C".
        shared: bytes of dynamic shared memory.

    Raises:
        CudaError: the driver does not load it.
    """

    def __init__(self, binary: bytes, name: str, shared: int) -> None:
        self._driver, self._context = _driver_and_context(torch.cuda.current_device())
        self._binary, self.shared = binary, shared
        self._check(self._driver.cuCtxSetCurrent(self._context))
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._driver.cuModuleLoadData(ctypes.byref(module), binary))
        self._check(self._driver.cuModuleGetFunction(ctypes.byref(self._function), module, name.encode()))
        self._check(self._driver.cuFuncSetAttribute(self._function, _MAX_DYNAMIC_SHARED, shared))

    def launch(self, grid: tuple[int, int], threads: int, given: Sequence[Argument]) -> None:
        """Launches blocks of `threads` on the current stream. given: arguments, tensors as pointers."""
        held = [_argument(x) for x in given]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(x) for x in held])
        self._check(self._driver.cuCtxSetCurrent(self._context))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._check(
            self._driver.cuLaunchKernel(
                self._function, *grid, 1, threads, 1, 1, self.shared, stream, pointers, None
            )
        )

    def _check(self, result: int) -> None:
        _expect_driver(self._driver, result)


def tensor_map(x: Tensor, box: tuple[int, ...]) -> TensorMap:
    """For loads of blocks of `box`, the last dimension first, with the swizzle of its 32, 64 or 128 bytes.

    x has 8 or 16 bits a number, a contiguous last dimension, and other strides of multiples of 16 bytes.

    Raises:
        CudaError: the driver refuses.
    """
    driver, _ = _driver_and_context(torch.cuda.current_device())
    rank = x.dim()
    dims = (ctypes.c_uint64 * rank)(*reversed(x.shape))
    size = x.element_size()
    strides = (ctypes.c_uint64 * (rank - 1))(*[size * stride for stride in reversed(x.stride()[:-1])])
    steps, blocks = (ctypes.c_uint32 * rank)(*[1] * rank), (ctypes.c_uint32 * rank)(*box)
    room = ctypes.create_string_buffer(128 + 64)
    made = TensorMap.from_buffer(room, -ctypes.addressof(room) % 64)
    _expect_driver(driver, driver.cuTensorMapEncodeTiled(
        ctypes.byref(made), _UINT[size], rank, ctypes.c_void_p(x.data_ptr()), dims, strides, blocks, steps,
        0, _SWIZZLE[box[0] * size], _L2_128, 0,
    ))  # fmt: skip
    return made


def _argument(x: Argument) -> Any:
    if isinstance(x, TensorMap):
        return x
    if isinstance(x, Tensor):
        return ctypes.c_void_p(x.data_ptr())
    return ctypes.c_float(x) if isinstance(x, float) else ctypes.c_int(x)


@cache
def _driver_and_context(index: int) -> tuple[Any, ctypes.c_void_p]:
    """The driver's library, and the context of a device that torch uses too. A thread may have none yet."""
    driver, context, device = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_int()
    torch.cuda.init()
    _expect_driver(driver, driver.cuDeviceGet(ctypes.byref(device), index))
    _expect_driver(driver, driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    return driver, context


def _expect_driver(driver: Any, result: int) -> None:
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        raise CudaError(f"CUDA driver: {(text.value or b'unknown error').decode()}")


def compile_cuda(
    source: Path, architecture: str, constants: Mapping[str, int], before: Sequence[str] = ()
) -> bytes:
    """Machine code of a file of CUDA C++ for an architecture, such as sm_90a. constants: macros to define.

    It is kept for the next start. before: further files beside it that are put before it.

    Raises:
        CudaError: the compiler is absent, or it refuses.
    """
    text = source_text(source, hopper=architecture == "sm_90a", before=before).encode()
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += [f"-D{name}={int(value)}" for name, value in constants.items()]
    file = kept_file(text, options)
    kept = _read_kept(file)
    return kept or _keep(_compile(source.name, text, options), file)


def kept_file(text: bytes, options: Sequence[str]) -> Path | None:
    """The file of a kernel's machine code, beside Triton's. None where Triton has no folder of its own."""
    folder = os.environ.get("TRITON_CACHE_DIR")
    made_of = "\0".join([torch.__version__, *options]).encode() + text
    return Path(folder) / f"cuda-{hashlib.sha256(made_of).hexdigest()}.cubin" if folder else None


def _read_kept(file: Path | None) -> bytes | None:
    """Machine code that an earlier start kept whole: after its own digest, since a disk can lose its end."""
    try:
        content = b"" if file is None else file.read_bytes()
    except OSError:
        return None
    digest, binary = content[:_DIGEST], content[_DIGEST:]
    return binary if binary and hashlib.sha256(binary).digest() == digest else None


def _keep(binary: bytes, file: Path | None) -> bytes:
    if file is not None:
        with suppress(OSError):  # the next start compiles again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, hashlib.sha256(binary).digest() + binary)
    return binary


def _compile(name: str, text: bytes, options: Sequence[str]) -> bytes:
    compiler = nvrtc()
    program = ctypes.c_void_p()
    _expect(compiler, compiler.nvrtcCreateProgram(
        ctypes.byref(program), text, name.encode(), 0, None, None
    ))  # fmt: skip
    try:
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        if compiler.nvrtcCompileProgram(program, len(options), array):
            raise CudaError(f"{name}: {_read(compiler, program, 'ProgramLog').decode()[:2000]}")
        return _read(compiler, program, "CUBIN")
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def source_text(source: Path, *, hopper: bool = False, before: Sequence[str] = ()) -> str:
    """A file of CUDA C++ with what it begins with."""
    names = ["common.cu", *["hopper.cu"] * hopper, *before, source.name]
    return "".join(source.with_name(name).read_text() for name in names)


@cache
def nvrtc() -> Any:
    """The compiler's library, as torch finds it.

    Raises:
        CudaError: there is none.
    """
    major = (torch.version.cuda or "13").split(".")[0]
    places = [f"libnvrtc.so.{major}"]
    packages = Path(torch.__file__).parent.parent / "nvidia"
    places += [str(found) for found in sorted(packages.glob(f"*/lib/libnvrtc.so.{major}"))]
    for place in places:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise CudaError(f"no {places[0]}")


def _read(compiler: Any, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _expect(compiler, getattr(compiler, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    made = ctypes.create_string_buffer(size.value)
    _expect(compiler, getattr(compiler, f"nvrtcGet{what}")(program, made))
    return made.raw


def _expect(compiler: Any, result: int) -> None:
    if result:
        compiler.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CudaError(f"NVRTC: {compiler.nvrtcGetErrorString(result).decode()}")
