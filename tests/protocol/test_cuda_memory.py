"""What torch's allocator is told, and that the user's word stands."""

import os

import pytest

from protocol.model.hardware.gpu_allocator import NAMES, grow_segments


@pytest.mark.parametrize("name", NAMES)
def test_the_users_word_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment = {name: "backend:cudaMallocAsync"}
    monkeypatch.setattr(os, "environ", environment)
    grow_segments()
    assert environment == {name: "backend:cudaMallocAsync"}
    environment.clear()
    grow_segments()
    assert environment == dict.fromkeys(NAMES, "expandable_segments:True")
