"""Run a GPU benchmark as if on an older card.

    python -m scripts.bench.gpu.as_if --capability 8.6                       decoder and denoiser, both sizes
    python -m scripts.bench.gpu.as_if --capability 8.9 scripts.bench.gpu.decode --sizes 512 --only JPEG

As on the older card are the project's own choices (`torch.cuda.get_device_capability` answers the given one),
the code that Triton generates, and the shared memory of a Triton kernel. As on the real card are its rates,
cuBLAS, cuDNN and torch's own kernels. So the figures show that everything runs and which way is taken. The
speed of a real older card follows from its rates.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

#: Compute capability → bytes of shared memory that a block may have (CUDA C++ Programming Guide, "Technical
#: Specifications per Compute Capability").
SHARED_MEMORY = {"8.0": 163 << 10, "8.6": 99 << 10, "8.9": 99 << 10, "12.0": 99 << 10}
#: Modules that are run where none is named, with their words.
BY_DEFAULT: tuple[tuple[str, ...], ...] = (
    ("scripts.bench.gpu.decode", "--chunks", "2", "--only", "served"),
    ("scripts.bench.gpu.decode", "--chunks", "2", "--only", "served", "--decoder", "tiny"),
    ("scripts.bench.gpu.ladder", "--rows", "exact,tier-fast"),
)


def pretend(capability: str) -> None:
    """From now on this process's GPU looks like one of that compute capability, such as "8.6"."""
    major, minor = map(int, capability.split("."))
    # asked once before: Triton's driver keeps the real capability, for which it loads programs
    os.environ["TRITON_OVERRIDE_ARCH"] = f"sm{major}{minor}"
    import torch
    from triton.compiler import compiler
    from triton.runtime import driver

    driver.active.get_current_target()

    def shared_memory(device: object) -> int:
        return SHARED_MEMORY[capability]

    def answer(device: object = None) -> tuple[int, int]:
        return major, minor

    older: dict[tuple[Any, str], Callable[..., object]] = {
        (compiler, "max_shared_mem"): shared_memory,
        (torch.cuda, "get_device_capability"): answer,
    }
    for (module, name), function in older.items():
        setattr(module, name, function)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.as_if",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--capability", choices=SHARED_MEMORY, required=True, help="compute capability")
    parser.add_argument("module", nargs="?", help="benchmark to run; decoder and denoiser if not given")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its arguments")
    args = parser.parse_args(argv)
    import torch

    if torch.cuda.is_available():
        pretend(args.capability)
        print(f"as if of compute capability {args.capability}", flush=True)
    else:
        print("no CUDA device here: nothing pretends to be older", flush=True)
    for module, *words in [(args.module, *args.words)] if args.module else BY_DEFAULT:
        sys.argv = [module, *words]
        try:
            # a package's __main__ is found by its own name
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:
                return int(ended.code) if isinstance(ended.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
