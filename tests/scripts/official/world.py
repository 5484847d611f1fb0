"""Settings and preparations of `--model official` for its tests."""

from __future__ import annotations

import io

from protocol.process.settings import Settings, load_settings
from scripts.official.hub import Hub
from scripts.official.prepare import Preparation
from tests.helpers.hub_server import HubServer

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3400035733\n"


def given(*flags: str) -> Settings:
    """The settings with a portrait and a pose, so that no samples are wanted."""
    return load_settings(
        ["--model", "official", "--reference-image", "a.png", "--pose-dir", "b.npz", *flags], {}
    )


def run_here(settings: Settings, env: dict[str, str]) -> tuple[Settings, str]:
    """Prepare without a terminal. Returns the settings and everything that was told."""
    console = io.StringIO()
    return Preparation(settings, env, io.StringIO(), console).run(), console.getvalue()


def hub_of(server: HubServer) -> type[Hub]:
    """The client of a server in this process, which reads HF_ENDPOINT once."""

    class Here(Hub):
        def __init__(self) -> None:
            super().__init__()
            self.endpoint, self.offline = server.url, False

    return Here
