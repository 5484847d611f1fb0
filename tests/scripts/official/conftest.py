"""A user who has nothing yet, a checkout of small random weights, and a server like the Hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hub_server import HubServer
from tests.helpers.official_hub import Repositories, official_repositories


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the official repository with small random weights."""
    return tmp_path_factory.mktemp("echomimic_v2")


@pytest.fixture(scope="module")
def repositories(layout: Path) -> Repositories:
    return official_repositories(layout)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of a user's who has nothing yet, for this process too."""
    values = {
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HF_HOME": str(tmp_path / "huggingface"),
    }
    (tmp_path / "home").mkdir()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return dict(os.environ)


@pytest.fixture
def mine(layout: Path, repositories: Repositories, tmp_path: Path) -> Path:
    """A copy of the checkout, to be damaged."""
    shutil.copytree(layout, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def server(repositories: Repositories) -> Iterator[HubServer]:
    with HubServer(repositories) as running:
        yield running
