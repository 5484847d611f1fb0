"""Settings of torch's allocator, where the user's word stands."""

import os

import pytest

from protocol.model.hardware.gpu_allocator import ALLOCATOR_VARIABLES, use_expandable_segments


@pytest.mark.parametrize("name", ALLOCATOR_VARIABLES)
def test_the_users_word_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment = {name: "backend:cudaMallocAsync"}
    monkeypatch.setattr(os, "environ", environment)
    use_expandable_segments()
    assert environment == {name: "backend:cudaMallocAsync"}
    environment.clear()
    use_expandable_segments()
    assert environment == dict.fromkeys(ALLOCATOR_VARIABLES, "expandable_segments:True")
