"""Small pictures of the avatars and poses, for the page: made once, when they are first asked for."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from protocol.process.settings import ROOT, Settings

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 64_000_000
SIDE = 512
BUNDLED_POSES = ROOT / "demo/bundled/poses"

# OpenPose's 21 points of a hand: the wrist, then four joints for each finger from the thumb on.
BONES = tuple((0 if joint == 0 else 4 * f + joint, 4 * f + joint + 1) for f in range(5) for joint in range(4))
MIN_SCORE = 0.3
KEYFRAMES = 36


class Pictures:
    """Pictures by name. Names are made of the files' as the GPU worker makes them."""

    def __init__(self, settings: Settings) -> None:
        self._avatars = _named(settings.reference_image or (settings.avatar_dir,), SUFFIXES)
        self._poses = _named(settings.pose_dir or (BUNDLED_POSES,), (".npz",))
        self._made: dict[tuple[str, str], bytes | None] = {}

    def avatar(self, name: str) -> bytes | None:
        """PNG of an avatar, at most 512 pixels wide and high; None when there is none to show."""
        return self._once("avatar", name, self._avatars, avatar_png)

    def pose(self, name: str, live: bool) -> bytes | None:
        """SVG of a pose's hands, moving if `live`; None when there is none to show."""
        if live:
            return self._once("live pose", name, self._poses, pose_svg)
        return self._once("pose", name, self._poses, lambda path: pose_svg(path, 1))

    def _once(
        self, kind: str, name: str, files: dict[str, Path], make: Callable[[Path], bytes]
    ) -> bytes | None:
        if name not in files:
            return None
        if (kind, name) not in self._made:
            try:
                self._made[kind, name] = make(files[name])
            except Exception as error:  # decoders raise all kinds of things for damaged files
                log.warning("no picture of %s %s: %s", kind, name, error)
                self._made[kind, name] = None
        return self._made[kind, name]


def _named(paths: Iterable[Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in suffixes and file.is_file():
                named.setdefault(re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem)[:64] or "_", file)
    return named


def avatar_png(path: Path) -> bytes:
    """The picture, upright and on white, made smaller if it is large. Raises what a decoder raises."""
    with Image.open(path, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{path} has too many pixels")
        upright = ImageOps.exif_transpose(picture).convert("RGBA")
    upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    out = io.BytesIO()
    flat.save(out, "PNG")
    return out.getvalue()


def pose_svg(path: Path, keyframes: int = KEYFRAMES) -> bytes:
    """A figure with the pose's hands, moving through `keyframes` moments of the loop; 1 stands still.

    Raises ValueError for what is no pose file.
    """
    with np.load(path, allow_pickle=False) as file:
        hands = np.asarray(file["hands"], np.float64)
        score = np.asarray(file["hands_score"], np.float64)
        fps = int(file["fps"])
    if hands.ndim != 4 or hands.shape[1:] != (2, 21, 2) or score.shape != hands.shape[:-1] or fps < 1:
        raise ValueError(f"{path}: hands of shape {hands.shape}")
    seen = (score >= MIN_SCORE) & np.isfinite(hands).all(axis=-1)
    if keyframes == 1:
        x, y = hands[..., 0], hands[..., 1]
        inside = (~seen | ((x > 0.12) & (x < 0.88))).all(axis=(1, 2))
        reach = np.where(seen, y, np.inf).min(axis=(1, 2))
        moments = [int(np.argmin(np.where(inside, reach, np.inf)))]
    else:
        moments = [k * len(hands) // keyframes for k in range(keyframes)] + [0]
    seconds = len(hands) / fps
    drawn = ""
    for hand in range(2):
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
    """All bones, whether seen or not: an animated path keeps its shape, so an unseen bone has no length."""
    place = np.clip(np.nan_to_num(points), -1, 2) * 100
    parts = []
    for a, b in BONES:
        (x, y), (u, v) = place[a], place[b] if seen[a] and seen[b] else place[a]
        parts.append(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}")
    return "".join(parts)
