"""The golden numbers in the repository are those of the larger set beside it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.parity import GOLDEN, golden, golden_json, shared_dir, whole_golden

pytestmark = pytest.mark.parity

#: Frames of `poses_uint8` that the small set keeps; the larger one has 30.
FRAMES_KEPT = 12


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.npz")))
def test_the_small_set_is_a_part_of_the_large_one(name: str) -> None:
    small, large = golden(name), whole_golden(name)
    assert small
    for key, value in small.items():
        wanted = large[key][:, :, :FRAMES_KEPT] if key == "poses_uint8" else large[key]
        assert value.dtype == wanted.dtype
        assert np.array_equal(value, wanted), key


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.json")))
def test_the_names_and_shapes_are_the_same(name: str) -> None:
    path = shared_dir() / "parity" / name
    if not path.exists():
        pytest.skip(f"the large golden numbers are absent: {path}")
    assert (GOLDEN / name).read_bytes() == path.read_bytes()
    assert golden_json(name)


def test_the_small_set_stays_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 5 * 2**20
