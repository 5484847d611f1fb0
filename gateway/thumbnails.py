"""Small pictures of the avatars and poses for the page. Each is made when it is first asked for, and kept.

They are made in a thread: a photo of 62 megapixels takes seconds, and the event loop serves everybody.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocol.model.assets import (
    HAND_BONES,
    MIN_POINT_SCORE,
    AssetError,
    avatar_paths,
    display_names,
    picture_files,
    pose_files,
    pose_paths,
)
from protocol.model.pictures import read_picture
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: Longest side of an avatar's small picture, in pixels.
MAX_SIDE = 512

KEYFRAMES = 36


class Thumbnails:
    """Thumbnails by id. The GPU worker gives the same files the same ids."""

    #: Display names of the avatars and of the poses, by id.
    avatar_names: Mapping[str, str]
    pose_names: Mapping[str, str]

    def __init__(self, settings: Settings) -> None:
        #: The pictures of the server's avatars, by id.
        self.avatar_files = _found(picture_files, avatar_paths(settings))
        self._poses = _found(pose_files, pose_paths(settings))
        self.avatar_names = display_names(self.avatar_files)
        self.pose_names = display_names(self._poses)
        #: Pictures, made or being made, by kind and name. All who ask for one picture wait for one job.
        self._jobs: dict[tuple[str, str], asyncio.Future[bytes | None]] = {}
        # One thread: a large picture takes hundreds of megabytes while it is made.
        self._maker = ThreadPoolExecutor(1, "thumbnails")
        self._closed = False
        self._frame = (0, 0)

    async def avatar(self, name: str, frame: tuple[int, int]) -> bytes | None:
        """PNG of the part of an avatar that is animated, at most 512 pixels wide and high.

        Args:
            name: id of the avatar.
            frame: (width, height) of the frames in pixels. Where one is 0, the last known size holds.

        Returns:
            None when there is none to show, and while no size of frames has been known.
        """
        if 0 not in frame:
            self._frame = frame
        if 0 in self._frame:
            return None
        width, height = card_size(self._frame)
        make = partial(avatar_png, size=(width, height))
        return await self._made_once(f"avatar at {width}×{height}", name, self.avatar_files, make)

    async def pose(self, name: str, live: bool) -> bytes | None:
        """SVG of a pose's hands, moving if `live`. None when there is none to show."""
        if live:
            return await self._made_once("live pose", name, self._poses, pose_svg)
        return await self._made_once("pose", name, self._poses, partial(pose_svg, keyframes=1))

    def close(self) -> None:
        """Make nothing more. Those who wait are cancelled, unless their picture is being made already."""
        self._closed = True
        self._maker.shutdown(wait=False, cancel_futures=True)

    async def _made_once(
        self, kind: str, name: str, files: Mapping[str, Path], make: Callable[[Path], bytes]
    ) -> bytes | None:
        if name not in files:
            return None
        job = self._jobs.get((kind, name))
        if job is None:
            if self._closed:
                return None
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(self._maker, _made, kind, name, files[name], make)
            self._jobs[kind, name] = job
        # A client that leaves does not end the job for the others.
        return await asyncio.shield(job)


def _made(kind: str, name: str, path: Path, make: Callable[[Path], bytes]) -> bytes | None:
    """The picture, or None where its file is damaged."""
    try:
        return make(path)
    except Exception as error:  # a card is never worth a request that fails
        logger.warning("no picture of %s %s: %s", kind, name, error)
        return None


def _found(find: Callable[[Sequence[Path]], Mapping[str, Path]], paths: Sequence[Path]) -> Mapping[str, Path]:
    """The files by name. The log of the GPU worker names those that are left out, so this one does not."""
    try:
        return find(paths)
    except AssetError as error:
        logger.warning("no pictures to show: %s", error)
        return {}


def card_size(frame: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in the shape of a frame, with no side longer than 512 pixels."""
    scale = min(1.0, MAX_SIDE / max(frame))
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


def avatar_png(path: Path, size: tuple[int, int]) -> bytes:
    """The part of the picture that is animated, at `size` = (width, height) in pixels.

    Raises:
        AssetError: it cannot be read; names the file.
    """
    out = io.BytesIO()
    read_picture(path, size).save(out, "PNG")
    return out.getvalue()


def pose_svg(path: Path, keyframes: int = KEYFRAMES) -> bytes:
    """A figure with the pose's hands, as SVG.

    Args:
        path: a converted pose.
        keyframes: moments of the loop that the hands move through. 1 stands still.

    Raises:
        AssetError: the file is not a pose.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            hands = np.asarray(file["hands"], np.float64)
            score = np.asarray(file["hands_score"], np.float64)
            fps = int(file["fps"])
    except Exception as error:  # readers of zip and npy raise all kinds of things for damaged files
        raise AssetError(f"{path}: not a pose file: {error}") from error
    fits = hands.ndim == 4 and hands.shape[2:] == (21, 2) and score.shape == hands.shape[:-1]
    if not fits or fps < 1 or not len(hands):
        raise AssetError(f"{path}: not a pose file: hands of shape {hands.shape}, {fps} fps")
    seen = (score >= MIN_POINT_SCORE) & np.isfinite(hands).all(axis=-1)
    if keyframes == 1:
        x, y = hands[..., 0], hands[..., 1]
        inside = (~seen | ((x > 0.12) & (x < 0.88))).all(axis=(1, 2))
        reach = np.where(seen, y, np.inf).min(axis=(1, 2))
        moments = [int(np.argmin(np.where(inside, reach, np.inf)))]
    else:
        moments = [k * len(hands) // keyframes for k in range(keyframes)] + [0]
    seconds = len(hands) / fps
    drawn = ""
    for hand in range(hands.shape[1]):
        values = [_hand_path(hands[moment, hand], seen[moment, hand]) for moment in moments]
        frames = ";".join(values)
        timing = f'dur="{seconds:.3f}s" repeatCount="indefinite"'
        loop = f'<animate attributeName="d" {timing} values="{frames}"/>'
        drawn += f'<path d="{values[0]}">{loop if keyframes > 1 else ""}</path>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="10 22 80 80" fill="none" stroke-linecap="round">'
        '<g stroke="#9a9fae" stroke-width="2.5"><circle cx="50" cy="40" r="13"/>'
        '<path d="M18 103c1-25 12-39 32-39s31 14 32 39"/></g>'
        f'<g stroke="#5b5bd6" stroke-width="2">{drawn}</g></svg>'
    ).encode()


def _hand_path(points: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]) -> str:
    """All bones of a hand. A bone that is not seen has no length: an animated path must keep its parts."""
    place = np.clip(np.nan_to_num(points), -1, 2) * 100
    parts = []
    for a, b in HAND_BONES:
        (x, y), (u, v) = place[a], place[b] if seen[a] and seen[b] else place[a]
        parts.append(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}")
    return "".join(parts)
