"""JPEG of several pictures in threads."""

from __future__ import annotations

import threading
from typing import ClassVar

import numpy as np

from encoder_worker.jpeg import JpegEncoder, Picture
from encoder_worker.jpeg_pool import JpegPool, threads_for


def pictures(count: int, side: int) -> Picture:
    """Noise: no two of them encode to the same bytes."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_pictures_come_back_in_order() -> None:
    encode, given = JpegEncoder(), pictures(7, 64)
    assert JpegPool(encode, 3)(given) == [encode(picture) for picture in given]
    assert JpegPool(encode, 3)(given[:0]) == []


def test_pictures_are_encoded_side_by_side() -> None:
    """Each waits until the other has begun, which one thread could not do."""
    both = threading.Barrier(2, timeout=10)

    class Waiting(JpegEncoder):
        def __call__(self, picture: Picture) -> bytes:
            both.wait()
            return super().__call__(picture)

    assert len(JpegPool(Waiting(), 2)(pictures(2, 16))) == 2


def test_one_picture_is_encoded_at_once() -> None:
    class Noting(JpegEncoder):
        threads: ClassVar[set[str]] = set()

        def __call__(self, picture: Picture) -> bytes:
            self.threads.add(threading.current_thread().name)
            return super().__call__(picture)

    given = pictures(1, 16)
    assert JpegPool(Noting(), 2)(given) == [JpegEncoder()(given[0])]
    assert Noting.threads == {threading.current_thread().name}


def test_threads() -> None:
    assert [threads_for(cores, gpu=False) for cores in (1, 2, 4, 32)] == [1, 2, 4, 4]
    assert [threads_for(cores, gpu=True) for cores in (1, 4, 8, 12, 16, 64)] == [1, 4, 4, 6, 8, 8]
