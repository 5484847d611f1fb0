"""How torch's allocator takes a GPU's memory, where several processes share one."""

from __future__ import annotations

import os

#: Environment variables of torch's allocator: that of torch 2.9 and later, and that of earlier ones.
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def use_expandable_segments() -> None:
    """Have torch map memory page by page into segments that grow. Call it before torch is imported.

    Otherwise torch takes blocks as large as each request. A freed block that is a little too small for the
    next request lies idle, and no other process can use it. If the environment already configures torch's
    allocator, nothing changes.
    """
    if not any(name in os.environ for name in ALLOCATOR_VARIABLES):
        os.environ.update(dict.fromkeys(ALLOCATOR_VARIABLES, "expandable_segments:True"))
