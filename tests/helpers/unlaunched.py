"""A worker's way to its Triton kernels without a GPU: looked up or compiled as ever, and not launched.

    python -m tests.helpers.unlaunched MODULE CAPABILITY ahead|late FLAGS

"ahead" compiles the kernels of MODULE's `parts_of` as the helper process does. "late" launches them, as a
worker would that comes later, and prints how many are in Triton's folder and how many it has to compile.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

from triton import knobs
from triton.runtime import driver

from protocol.model.kernels.helper import UnopenedDriver, compile_parts
from protocol.process.settings import load_settings


class UnlaunchedDriver(UnopenedDriver):
    """Triton's driver of a GPU that takes every program and runs none."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 232448},
        load_binary=lambda *given: (0, 0, 32, 0, 1024),
    )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Launches nothing."""
        return lambda *given: None


def main() -> None:
    module, capability, when, *flags = sys.argv[1:]
    parts = importlib.import_module(module).parts_of(load_settings(flags), int(capability))
    if when == "ahead":
        compile_parts(parts, int(capability), 2, print)
        return
    found: Counter[bool] = Counter()
    driver.set_active(UnlaunchedDriver(int(capability)))
    knobs.compilation.listener = lambda *, cache_hit, **_: found.update([cache_hit])
    for _, launch in parts:
        launch()
    print(f"kept {found[True]}, compiled {found[False]}")


if __name__ == "__main__":
    main()
