"""How torch's allocator takes a GPU's memory, where several processes share one."""

from __future__ import annotations

import os

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What torch 2.9 and later read, and what those before do."""


def grow_segments() -> None:
    """Have torch map memory page by page into segments that grow. Call it before torch is imported.

    Otherwise it takes blocks as large as what was asked for, and a freed one that is a little too small for
    the next request lies idle, where no other process can have it. What the environment says of torch's
    allocator is left as it is.
    """
    if not any(name in os.environ for name in NAMES):
        os.environ.update(dict.fromkeys(NAMES, "expandable_segments:True"))
