"""`python -m scripts.bench.host.video`: the bits and the processor time of H.264, VP8 and JPEG.

The pictures are a bundled avatar that sways and speaks, or those of a folder. `python -m scripts.render
--jpeg-quality 100 speech.wav -o FOLDER/` makes such a folder with the model.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from encoder_worker.jpeg import JpegEncoder
from encoder_worker.video import ENCODERS, ClipEncoder, CodedPicture, VideoEncoder, working_encoder
from protocol.process.settings import ROOT, Settings
from protocol.wire.clock import FULL_RATE
from scripts.bench.common.tools import machine, table

CLIP = 12
CLIPS = 16
SIDES = (256, 512)
Pictures = npt.NDArray[np.uint8]
HEAD = ("pictures", "code", "Mbit/s", "ms a picture", "key frame", "PSNR")


@dataclass(frozen=True)
class CodeCost:
    """Of all pictures: bytes, seconds of processor time, bytes of a clip's first picture, and PSNR in dB."""

    size: int
    seconds: float
    first: float
    psnr: float

    def cells(self, count: int) -> tuple[str, ...]:
        """The columns behind the name, for `count` pictures at 24 a second."""
        rate = self.size * 8 * FULL_RATE / count / 1e6
        milliseconds, first = 1e3 * self.seconds / count, self.first / 1e3
        return f"{rate:.2f}", f"{milliseconds:.2f}", f"{first:.1f} kB", f"{self.psnr:.1f} dB"


def swaying(side: int, count: int) -> Pictures:
    """An avatar of `side` pixels whose head sways and whose mouth opens, (count, side, side, 3)."""
    path = sorted((ROOT / "demo/bundled/avatars").glob("*.png"))[0]
    with Image.open(path) as file:
        whole = file.convert("RGB").resize((side + side // 16, side + side // 16), Image.Resampling.LANCZOS)
    frames = []
    for number in range(count):
        t = number / FULL_RATE
        x, y = (side / 32 * (1 + 0.5 * math.sin(t * speed)) for speed in (3.4, 2.7))
        frame = whole.transform(
            (side, side), Image.Transform.AFFINE, (1, 0.01 * math.sin(2 * t), x, 0, 1, y),
            resample=Image.Resampling.BICUBIC,
        )  # fmt: skip
        opening = side * 0.03 * abs(math.sin(9 * t))
        box = (side * 0.45, side * 0.4 - opening, side * 0.55, side * 0.4 + opening)
        ImageDraw.Draw(frame).ellipse(box, fill=(120, 30, 42))
        frames.append(np.asarray(frame))
    return np.stack(frames)


def of_folder(folder: Path) -> Pictures:
    """The pictures of a folder, in the order of their names: whole clips of them."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    files = files[: len(files) // CLIP * CLIP]
    frames = []
    for path in files:
        with Image.open(path) as file:
            frames.append(np.asarray(file.convert("RGB")))
    return np.stack(frames)


def jpeg_cost(pictures: Pictures, quality: int) -> CodeCost:
    """The cost of JPEG as the encoder worker makes it, by one thread."""
    encode = JpegEncoder(quality)
    encode(pictures[0])
    begin = time.process_time()
    coded = [encode(picture) for picture in pictures]
    seconds = time.process_time() - begin

    def decode(data: bytes) -> Pictures:
        with Image.open(io.BytesIO(data)) as file:
            return np.asarray(file.convert("RGB"))

    shown = [decode(data) for data in coded[:CLIP]]
    first = statistics.mean(map(len, coded))
    return CodeCost(sum(map(len, coded)), seconds, first, _psnr(shown, pictures))


def video_cost(encoder: VideoEncoder, pictures: Pictures) -> CodeCost:
    """The cost of clips as the encoder worker makes them."""
    size = pictures.shape[1], pictures.shape[2]
    begin = time.process_time()
    clips: list[list[CodedPicture]] = []
    for start in range(0, len(pictures), CLIP):
        clips.append(ClipEncoder(encoder, size, FULL_RATE, generated=True)(pictures[start : start + CLIP]))
    seconds = time.process_time() - begin
    total = sum(len(picture.data) for clip in clips for picture in clip)
    first = statistics.mean(len(clip[0].data) for clip in clips)
    return CodeCost(total, seconds, first, _psnr(_decoded(encoder.codec, clips[0]), pictures))


def _decoded(codec: str, clip: Sequence[CodedPicture]) -> list[Pictures]:
    import av

    decoder: Any = av.CodecContext.create(codec, "r")
    frames = [frame for picture in clip for frame in decoder.decode(av.Packet(picture.data))]
    return [frame.to_ndarray(format="rgb24") for frame in [*frames, *decoder.decode(None)]]


def _psnr(shown: Sequence[Pictures], pictures: Pictures) -> float:
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(shown, pictures, strict=False)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def rows_of(name: str, pictures: Pictures) -> list[tuple[str, ...]]:
    """A row for each code that works here."""
    quality = Settings().jpeg_quality
    size = pictures.shape[1], pictures.shape[2]
    costs = {f"JPEG {quality}": jpeg_cost(pictures, quality)}
    for asked, encoder in ENCODERS.items():
        if working_encoder(asked, size) is not None:
            costs[f"{encoder.codec} by {encoder.library}"] = video_cost(encoder, pictures)
    return [(name, way, *cost.cells(len(pictures))) for way, cost in costs.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="a folder of pictures in order, 24 a second")
    asked = parser.parse_args()
    print(machine(), flush=True)
    rows: list[tuple[str, ...]] = [HEAD]
    if asked.pictures:
        pictures = of_folder(asked.pictures)
        rows += rows_of(f"{len(pictures)} of {asked.pictures.name}, {pictures.shape[1]}²", pictures)
    else:
        for side in SIDES:
            rows += rows_of(f"swaying avatar, {side}²", swaying(side, CLIP * CLIPS))
    print("\n".join(table(rows, left=2)))


if __name__ == "__main__":
    main()
