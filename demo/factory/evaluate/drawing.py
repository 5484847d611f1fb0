"""Pictures of the report: sheets of faces, curves, an animation. Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from demo.factory.evaluate.path import Picture

INK, PAPER, GRID, FAINT = (40, 42, 48), (255, 255, 255), (228, 230, 235), (120, 124, 132)
COLOURS = ((120, 124, 132), (214, 69, 65), (46, 117, 182), (58, 150, 90))
MARGIN, LABEL = 10, 22


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def sheet(rows: Sequence[tuple[str, Sequence[Picture]]], columns: Sequence[str] = ()) -> Image.Image:
    """Rows of equally large pictures, uint8 (H, W, 3). Rows and columns have titles."""
    height, width = rows[0][1][0].shape[:2]
    across = max(len(pictures) for _, pictures in rows)
    top = MARGIN + (LABEL if columns else 0)
    titles = [LABEL if title else 4 for title, _ in rows]
    size = (MARGIN + across * (width + 4) + MARGIN - 4, top + sum(height + t for t in titles) + MARGIN)
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(columns):
        draw.text((MARGIN + i * (width + 4) + width / 2, MARGIN), text, INK, font(15), anchor="ma")
    y = top
    for (title, pictures), space in zip(rows, titles, strict=True):
        if title:
            draw.text((MARGIN, y + space - 5), title, INK, font(14), anchor="ls")
        y += space
        for i, picture in enumerate(pictures):
            image.paste(Image.fromarray(picture), (MARGIN + i * (width + 4), y))
        y += height
    return image


def curves(
    panels: Sequence[tuple[str, Mapping[str, NDArray[np.floating]]]],
    fps: int,
    *,
    size: tuple[int, int] = (1100, 190),
    marks: float | None = None,
) -> Image.Image:
    """A panel of curves over seconds for each title. `marks` draws a horizontal line at that value."""
    image = Image.new("RGB", (size[0], size[1] * len(panels)), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (title, series) in enumerate(panels):
        _panel(draw, (0, number * size[1], size[0], (number + 1) * size[1]), title, series, fps, marks)
    return image


def _panel(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    title: str,
    series: Mapping[str, NDArray[np.floating]],
    fps: int,
    marks: float | None,
) -> None:
    left, top, right, bottom = box[0] + 44, box[1] + 30, box[2] - 12, box[3] - 24
    count = max(len(values) for values in series.values())
    highest = max(0.1, *(float(np.max(values)) for values in series.values())) * 1.05
    seconds = max(count / fps, 1e-3)

    def place(frame: float, value: float) -> tuple[float, float]:
        return left + (right - left) * frame / (seconds * fps), bottom - (bottom - top) * max(
            value, 0.0
        ) / highest

    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 60, 1e9) if seconds / s <= 14)
    for tick in np.arange(0, seconds + 1e-6, step):
        x = place(tick * fps, 0)[0]
        draw.line((x, top, x, bottom), GRID)
        draw.text((x, bottom + 4), f"{tick:g} s", FAINT, font(11), anchor="ma")
    for tick in np.arange(0, highest, 0.1 if highest < 0.6 else 0.25):
        y = place(0, tick)[1]
        draw.line((left, y, right, y), GRID)
        draw.text(
            (left - 5, y), f"{tick:.1f}" if highest < 0.6 else f"{tick:.2f}", FAINT, font(11), anchor="rm"
        )
    if marks is not None:
        y = place(0, marks)[1]
        draw.line((left, y, right, y), (180, 184, 190))
    draw.text((left, box[1] + 8), title, INK, font(14), anchor="la")
    x = right
    for (name, values), colour in reversed(list(zip(series.items(), COLOURS, strict=False))):
        points = [place(i, float(value)) for i, value in enumerate(values)]
        draw.line(points, colour, 2, joint="curve")
        draw.text((x, box[1] + 9), name, colour, font(13), anchor="ra")
        x -= draw.textlength(name, font(13)) + 18


def save_picture(image: Image.Image, path: Path) -> None:
    """WebP for faces (small and without visible loss), PNG for curves, by the path's suffix."""
    if path.suffix == ".webp":
        image.save(path, quality=88, method=6)
    else:
        image.quantize(64).save(path, optimize=True)


def save_animation(pictures: Picture, fps: int, path: Path, *, every: int = 1) -> None:
    """Pictures (n, H, W, 3) as an animated WebP that loops, every so many of them."""
    frames = [Image.fromarray(picture) for picture in pictures[::every]]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 * every / fps),
        loop=0,
        quality=60,
        method=4,
    )
