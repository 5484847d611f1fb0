"""A GPU that is opened before torch is there: which one, and that nothing fails where there is none."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from protocol.model.hardware.early_gpu import (
    CAPABILITY_MAJOR,
    CAPABILITY_MINOR,
    capability_of,
    open_early,
    ordinal_of,
)


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("auto", 0), ("cuda", 0), ("cuda:3", 3), ("cuda:2+cuda:0", 2), ("cpu", None), ("cpu+cpu", None)],
)
def test_the_number_of_a_device(name: str, ordinal: int | None) -> None:
    assert ordinal_of(name) == ordinal


class Driver:
    """CUDA's driver with one card."""

    def __init__(self, major: int, cards: int = 1) -> None:
        self.major, self.cards = major, cards
        self.opened: list[int] = []

    def cuInit(self, flags: int) -> int:
        return flags

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0 if ordinal < self.cards else 101

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        value._obj.value = {CAPABILITY_MAJOR: self.major, CAPABILITY_MINOR: 6}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        self.opened.append(device.value)
        return 0


@pytest.mark.parametrize(
    ("name", "major", "opened"), [("cuda:0", 9, [0]), ("cuda:1", 9, []), ("auto", 6, []), ("cpu", 9, [])]
)
def test_what_is_opened(name: str, major: int, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(major)
    monkeypatch.setattr(ctypes, "CDLL", lambda library: driver)
    thread = open_early(name)
    if thread is not None:
        thread.join(10)
    assert driver.opened == opened


@pytest.mark.parametrize(("name", "capability"), [("cuda:0", 86), ("cuda:1", None), ("cpu", None)])
def test_a_capability_without_a_context(
    name: str, capability: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(8)
    monkeypatch.setattr(ctypes, "CDLL", lambda library: driver)
    assert capability_of(name) == capability
    assert driver.opened == []


def test_a_machine_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(library: str) -> Any:
        raise OSError(library)

    monkeypatch.setattr(ctypes, "CDLL", none)
    thread = open_early("auto")
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
