"""The report in `docs/lab/`: tables, pictures, curves, and the numbers as JSON."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo.factory.evaluate import drawing
from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import SHUT
from demo.factory.evaluate.table import Section, as_markdown, count_met

REPORT = "bundled-model-evaluation.md"
PREFIX = "evaluation-"
ANIMATED_SECONDS = 8


def write(folder: Path, sections: list[Section], bench: Bench, command: str) -> Path:
    """Write the report and its pictures, `media/evaluation-*`, into `folder`. Returns the report's path."""
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    facts = describe(bench)
    shown = {section.title: _draw(section, bench.fps, media) for section in sections}
    met, judged = count_met(sections)
    lines = [
        "# The bundled model, measured",
        "",
        "Identities, voices and hands that training never saw, through the streaming path (sound in 20 ms",
        "chunks → ring → Whisper → denoiser, clip by clip with the session's state → VAE → JPEG →",
        "browser), compared with the picture that the figure's program draws for the same moment.",
        "",
        f"**{met} of {judged} targets are met.** Measured {facts['date']} with `{command}`:",
        f"{facts['model']} ({facts['weights']}), {facts['dtype']} on {facts['device']},",
        f"decoder {facts['decoder']}, {facts['fps']} fps at {facts['size']}, JPEG {facts['jpeg_quality']},",
        f"torch {facts['torch']}. Processor time a clip, mean of {facts['clips']}: {facts['cost']}.",
        "",
    ]
    for section in sections:
        lines += as_markdown(section) + shown[section.title]
    path = folder / REPORT
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    results = media / f"{PREFIX}results.json"
    results.write_text(
        json.dumps(as_json(sections, facts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return path


def describe(bench: Bench) -> dict[str, Any]:
    """The facts of this measurement: model, machine, scale and material."""
    info, path = bench.path.info(), bench.path
    spent = ", ".join(
        f"{stage} {seconds / max(path.clips, 1):.3f} s" for stage, seconds in path.seconds.items()
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "model": f"model {info['model']}",
        "weights": f"digest {weights_digest(path.config.denoising_unet_path)}",
        "device": info["device"],
        "dtype": info["dtype"],
        "decoder": info["decoder"],
        "steps": info["steps"],
        "fps": bench.fps,
        "size": f"{info['width']}×{info['height']}",
        "jpeg_quality": path.settings.jpeg_quality,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "clips": path.clips,
        "cost": spent,
        "scale": vars(bench.scale),
        "identities": bench.material.names,
        "voices": bench.material.voices,
        "poses": bench.material.poses,
    }


def weights_digest(path: Path) -> str:
    """Twelve hex digits that name the denoiser's weights."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def as_json(sections: list[Section], facts: dict[str, Any]) -> dict[str, Any]:
    met, judged = count_met(sections)
    return {
        "about": facts,
        "met": met,
        "targets": judged,
        "sections": {
            section.title: {"rows": [vars(row) for row in section.rows], "numbers": _plain(section.numbers)}
            for section in sections
        },
    }


def _plain(value: Any) -> Any:
    """Numbers that JSON knows, rounded to five places."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5)
    return value.item() if isinstance(value, np.generic) else value


def _truth_rows(scenes: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """Rows of a sheet: for each scene the drawn truth of its moments, and under it the output."""
    rows: list[tuple[str, list[Any]]] = []
    for title, moments in scenes:
        rows.append((f"{title}: drawn truth", [m.truth for m in moments]))
        rows.append(("output", [m.made for m in moments]))
    return rows


def _animate(pictures: Picture, fps: int, media: Path) -> list[str]:
    """Save a moving picture. Returns the lines of the report that show it."""
    path = media / f"{PREFIX}human.webp"
    drawing.save_animation(pictures[: ANIMATED_SECONDS * fps], fps, path, every=max(1, fps // 12))
    return [f"![A held-out figure speaking with a recorded voice](media/{path.name})", ""]


def _draw(section: Section, fps: int, media: Path) -> list[str]:
    """Draw the pictures of a section. Returns the lines of the report that show them."""
    lines: list[str] = []

    def show(image: Any, name: str, text: str) -> None:
        drawing.save_picture(image, media / f"{PREFIX}{name}")
        lines.extend([text, "", f"![{text}](media/{PREFIX}{name})", ""])

    sheets = section.sheets
    if "truth" in sheets:
        rows = _truth_rows(sheets["truth"])
        labels = [m.label for m in sheets["truth"][0][1]]
        show(
            drawing.sheet(rows, labels),
            "truth.webp",
            "Truth above output, at the plainest moment of each mouth shape:",
        )
        show(
            drawing.sheet(sheets["strip"]),
            "mouths.webp",
            "Mouths of one clip, frame by frame, twice as large:",
        )
        show(
            drawing.curves(sheets["curves"], fps, marks=SHUT),
            "curves.png",
            "Opening of the mouth, read from both pictures:",
        )
    if "silence" in sheets:
        panels = [(title, {"output": values}) for title, values in sheets["silence"].items()]
        show(
            drawing.curves(panels, fps, marks=SHUT),
            "silence.png",
            "A sentence, then silence; under the line is shut:",
        )
    if "conditions" in sheets:
        names, pictures = zip(*sheets["conditions"], strict=True)
        show(
            drawing.sheet([("", pictures)], names),
            "conditions.webp",
            "The same moment with one condition exchanged:",
        )
    if "human" in sheets:
        show(
            drawing.curves(sheets["human"], fps),
            "human.png",
            "Loudness of the recording and opening of the mouth:",
        )
        lines.extend(_animate(sheets["animation"], fps, media))
    return lines
