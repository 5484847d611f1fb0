"""Say why a run with these flags needs PyTorch: the program behind `install_for_run` of scripts/setup_env.sh.

    python -m scripts.run.needs --model official

It prints the reason, or nothing where OpenVINO can serve alone. Wrong settings are the run's own to tell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from protocol.process.settings import Settings, SettingsError, load_settings
from protocol.process.user import complete_user


def why_torch_for(settings: Settings) -> str | None:
    """Why a run needs torch, or None.

    Raises:
        SettingsError: a file cannot be read.
    """
    from gpu_worker.engine.cpu_model import why_torch
    from protocol.model.config import ModelConfig
    from protocol.model.hardware.drivers import only_a_cpu

    if settings.passthrough:
        return None
    if settings.model == "official":
        return "--model official"
    if not only_a_cpu(settings.encoder_devices):
        return f"--encoder-devices {','.join(settings.encoder_devices)}"
    config = ModelConfig.load(settings.config)
    workers = (replace(settings, worker_index=index) for index in range(len(settings.gpu_devices)))
    return next((reason for worker in workers if (reason := why_torch(worker, config))), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the reason. Returns the exit status, 0."""
    complete_user()
    try:
        reason = why_torch_for(load_settings(argv))
    except SettingsError:
        return 0
    if reason:
        print(reason.rstrip(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
