"""What torch's allocator is told, and that the user's word stands."""

import pytest

from protocol.cuda_memory import NAMES, grow_segments


@pytest.mark.parametrize("name", NAMES)
def test_the_users_word_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import os

    for each in NAMES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "backend:cudaMallocAsync")
    grow_segments()
    assert [os.environ.get(each) for each in NAMES if each != name] == [None]
    monkeypatch.delenv(name)
    grow_segments()
    assert {os.environ.pop(each) for each in NAMES} == {"expandable_segments:True"}
