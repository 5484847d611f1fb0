"""Whether torch is installed, and the sentence that says how to install it. Does not import torch."""

from __future__ import annotations

import importlib.util

from protocol.process.settings import ROOT, SettingsError
from protocol.process.settings.sources import ENV_PREFIX

#: How to install it. An image has no launcher, and nothing can be installed into it while it runs.
REMEDY = (
    f"start with {ENV_PREFIX}TORCH=1 scripts/run_all.sh, or install it into this environment:"
    " pip install -r requirements-torch.lock"
    if (ROOT / "scripts/run_all.sh").exists()
    else "in a container take the image of the target cuda (docker build --target cuda),"
    " elsewhere install it: pip install -r requirements-torch.lock"
)


def torch_is_installed() -> bool:
    """Whether `import torch` finds a package."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):  # something keeps it from being imported
        return False


def require_torch(what: str) -> None:
    """Raises SettingsError where torch is not installed.

    Args:
        what: needs it. It begins the sentence, such as "--cpu-engine torch".
    """
    if not torch_is_installed():
        raise SettingsError(f"{what} needs PyTorch, which is not installed; {REMEDY}")
