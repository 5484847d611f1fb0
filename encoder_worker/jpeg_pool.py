"""JPEG of several pictures at once in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from encoder_worker.jpeg import JpegEncoder, Picture

MOST_THREADS = 8


class JpegPool:
    """Encodes the pictures that a decoder made at once.

    Args:
        encode: for one picture. Any thread may call it.
        threads: that work side by side.
    """

    def __init__(self, encode: JpegEncoder, threads: int) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="jpeg")

    def __call__(self, pictures: Picture) -> list[bytes]:
        """(n, H, W, 3) uint8 RGB → n JPEGs, in order."""
        if len(pictures) == 1:
            return [self._encode(pictures[0])]  # another thread's core would have to fetch it first
        return list(self._pool.map(self._encode, pictures))


def threads_for(cores: int, *, gpu: bool) -> int:
    """Threads for JPEG on a machine of `cores`. While a GPU decodes, half of the cores are idle."""
    few = min(4, cores)
    return max(few, min(MOST_THREADS, cores // 2)) if gpu else few
