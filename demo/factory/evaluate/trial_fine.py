"""Pictures of twice the side: the finer head against the usual pictures as a browser enlarges them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.judge import Judge, Scores
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import correlation, psnr
from demo.factory.evaluate.table import Section

FINE = "finer head"
#: Ways to enlarge. A canvas takes the first as a rule, and an element's own scaling the second.
ENLARGED = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
#: Frames judged at once.
BATCH = 6


def run(bench: Bench) -> Section:
    """Play held-out scenes and compare both kinds of pictures with the truth drawn at twice the side."""
    section = Section("Pictures of twice the side")
    if not bench.path.config.has_fine_head:
        section.told("Finer head", "none", "this model's VAE draws one size")
        return section
    judge = Judge(bench.material, bench.fps, bench.material.renderer_of(2 * bench.material.renderer.size))
    scores: dict[str, list[Scores]] = {name: [] for name in (FINE, *ENLARGED)}
    for scene in bench.material.scenes(bench.scale.identities, bench.scale.seconds):
        avatar, first = bench.material.names[scene.identity], 0
        for clip in bench.path.latents(avatar, scene.pose, scene.speech.samples):
            plain = bench.path.pictures(clip.latents)
            made = {FINE: bench.path.pictures(clip.latents, fine=True)}
            made |= {name: enlarged(plain, way) for name, way in ENLARGED.items()}
            for start in range(0, len(plain), BATCH):
                for name, pictures in made.items():
                    part = pictures[start : start + BATCH]
                    scores[name].append(judge.score(scene, first + start, part))
            first += len(plain)
    for name, parts in scores.items():
        _rows(section, name, Scores.cat(parts))
    return section


def enlarged(pictures: Picture, way: Image.Resampling) -> Picture:
    """Pictures (n, H, W, 3) at twice their side."""
    size = 2 * pictures.shape[2], 2 * pictures.shape[1]
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, way)) for picture in pictures])


def _rows(section: Section, name: str, scores: Scores) -> None:
    figures = {
        "psnr": float(psnr(scores.error).mean()),
        "mouth_psnr": float(psnr(scores.mouth_error).mean()),
        "ssim": float(scores.ssim.mean()),
        "mouth_edges": float(scores.mouth_edges.mean()),
        "hand_edges": float(scores.hand_edges.mean()),
        "mouth_strength": float(scores.mouth_strength.mean()),
        "hand_strength": float(scores.hand_strength.mean()),
        "opening": correlation(scores.opening, scores.true_opening),
    }
    section.numbers[name] = figures
    if name == FINE:
        section.at_least(f"{name}: PSNR, whole frame", figures["psnr"], 32, " dB")
        section.at_least(f"{name}: SSIM", figures["ssim"], 0.96, digits=4)
        section.at_least(f"{name}: PSNR, mouth box", figures["mouth_psnr"], 28.5, " dB")
        for place in ("mouth", "hand"):
            section.at_least(f"{name}: edges kept, {place}", figures[f"{place}_edges"], 0.8, digits=2)
        section.at_least(f"{name}: mouth opening, correlation", figures["opening"], 0.94, digits=3)
        section.told(
            f"{name}: strength of edges, mouth, hands",
            f"{figures['mouth_strength']:.2f}, {figures['hand_strength']:.2f}",
        )
        return
    section.told(
        f"usual pictures enlarged, {name}: PSNR, mouth box, SSIM",
        f"{figures['psnr']:.2f} dB, {figures['mouth_psnr']:.2f} dB, {figures['ssim']:.4f}",
    )
    section.told(
        "… edges kept and their strength: mouth, hands",
        f"{figures['mouth_edges']:.2f} and {figures['mouth_strength']:.2f},"
        f" {figures['hand_edges']:.2f} and {figures['hand_strength']:.2f}",
    )
