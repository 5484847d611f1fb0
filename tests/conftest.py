"""Fixtures of all tests: the folder of golden data and recordings, which may be absent."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

# Triton reads this once, when it is first imported: without a GPU its interpreter runs the kernels. The
# driver's device tells, since asking torch would make every test pay for its import.
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
    os.environ["TRITON_INTERPRET"] = "1"

from protocol.process.settings import load_settings

# A shell that starts the tests in the background, or nohup, has them ignore these signals. Processes that the
# tests start would inherit that, and those are told to end by them.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """A busy machine can make a test of times fail, so each of them is tried again once."""
    for item in items:
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session", autouse=True)
def no_tokens_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The usual token file counts beyond loopback. That of the person who runs the tests must not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(autouse=True)
def levels_of_logging() -> Iterator[None]:
    """A command that a test runs in this process may silence loggers for good. The next test hears them."""
    loggers = [logging.getLogger(name) for name in ("", "protocol", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of golden data beside the repository (ECHOMIMIC_SHARED_DIR names another); skips without."""
    folder = load_settings([]).shared_dir
    if not folder.is_dir():
        pytest.skip(f"no golden data in {folder} (ECHOMIMIC_SHARED_DIR names another folder)")
    return folder


@pytest.fixture(scope="session")
def news_wav(shared_dir: Path) -> Path:
    """Seven seconds or so of real speech; skips where it is absent."""
    file = shared_dir / "data/audio/news.wav"
    if not file.is_file():
        pytest.skip(f"no recording at {file}")
    return file
