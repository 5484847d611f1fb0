"""Find where quality is lost: `python -m demo.factory.train.gap --state DIR [--clips N]`.

It measures single clips from trained and from held-out people and voices, without the streaming path. The
figures are those of the pictures of both sizes, of the larger ones through the VAE alone, and of how the
mouth's opening follows the truth.

More people or voices can close the gap between trained and held-out ones. More training can close the gap
that remains on trained ones. --held-out looks only at people and voices that training never saw.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from demo.factory.evaluate.scores import SHUT, edge_strength, edges_kept, inside, ssim
from demo.factory.figure.measure import MouthMeter, crop_mouth, hand_boxes, mouth_box
from demo.factory.figure.renderer import Renderer
from demo.factory.figure.state import FigureState
from demo.factory.train.config import CLIP_FRAMES, FPS
from demo.factory.train.data import PRESSED, Material, Poses, figure_state
from demo.factory.train.denoiser import ConditionEncoder, predicted_latents
from demo.factory.train.listen import ADAPTER, load_ears
from demo.factory.train.models import Networks, build_networks
from demo.factory.train.vae import AutoencoderLite

ROOT = Path(__file__).resolve().parent.parent
HALF = 0.5  # of the way to lips pressed together


def psnr(output: Tensor, truth: Tensor) -> float:
    """Mean PSNR of pictures (N, 3, H, W), in dB."""
    return float((-10 * torch.log10((output - truth).square().flatten(1).mean(1))).mean())


def sharpness(renderer: Renderer, state: FigureState, output: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR of whole pictures and of the mouth's box, and the edges kept in mouth and hands.

    Args:
        renderer: of the pictures' size.
        state: N moments.
        output: pictures (N, 3, H, W) in 0..1.
        truth: the drawn ones.
    """
    boxes = mouth_box(renderer, state).to(output.device)
    places = {"mouth": boxes[:, None], "hands": hand_boxes(renderer, state).to(output.device)}
    return {
        "psnr": psnr(output, truth),
        "mouth": psnr(crop_mouth(output, boxes), crop_mouth(truth, boxes)),
        **{
            f"{name}_edges": float(edges_kept(output, truth, inside(where, renderer.size)).mean())
            for name, where in places.items()
        },
        **{
            f"{name}_strength": float(edge_strength(output, truth, inside(where, renderer.size)).mean())
            for name, where in places.items()
        },
        "ssim": float(ssim(output, truth).mean()),
    }


class Gauge:
    """Measures clips of one material.

    Args:
        material: draws at `FINE_SIZE`.
        conditions: the encoders.
        networks: the denoiser and its parts.
        figure: file of identities.
    """

    def __init__(
        self, material: Material, conditions: ConditionEncoder, networks: Networks, figure: Path
    ) -> None:
        self._material, self._conditions, self._networks = material, conditions, networks
        # Places are asked of it and nobody is drawn, so one person is enough.
        renderer = material.renderer
        self._small = Renderer(figure, renderer.size // 2, material.device, renderer.names[:1])
        self._meter = MouthMeter(material.renderer)

    @torch.inference_mode()
    def measure(self, clips: int) -> dict[str, dict[str, float]]:
        """Figures of `clips` plain clips at 24 fps that begin from the true latent of the frame before.

        Returns:
            Figures by name, of the smaller pictures, of the larger ones, of the larger ones through the VAE
            alone, and of the mouth's opening. `pressed_shut` is the share of frames with pressed lips that
            show a shut mouth.
        """
        drawn = self._material.clips(clips, plain=True)
        assert drawn.fine is not None, "the material is drawn for both sizes"
        kept = self._conditions.encode(drawn)
        positions = self._conditions.positions(FPS, range(CLIP_FRAMES))
        batch = self._conditions.batch(kept, positions, self._material.poses.maps)
        carry = torch.ones(clips, dtype=torch.bool, device=self._material.device)
        made = predicted_latents(self._networks, batch, carry).float()
        plain, fine = self._pictures(made)
        _, through = self._pictures(batch.clean)
        truth = drawn.fine.flatten(0, 1)
        place = drawn.track[:, None], drawn.frame
        poses = self._material.poses
        life, hands = (bank[place].flatten(0, 1) for bank in (poses.life, poses.hands))
        state = figure_state(drawn.mouth[:, 1:].flatten(0, 1), life, hands)
        identity = drawn.identity.repeat_interleave(CLIP_FRAMES)
        opened, wanted = (self._meter.opening(p, identity, state.head) for p in (fine, truth))
        pressed = (drawn.mouth[:, 1:, PRESSED].flatten() > HALF) & (wanted < SHUT)
        return {
            "small": sharpness(self._small, state, plain, drawn.pictures[:, 1:].flatten(0, 1)),
            "large": sharpness(self._material.renderer, state, fine, truth),
            "large, VAE alone": sharpness(self._material.renderer, state, through, truth),
            "opening": {
                "correlation": float(torch.corrcoef(torch.stack([opened, wanted]))[0, 1]),
                "size": float((opened * wanted).mean() / wanted.square().mean()),
                "pressed_shut": float((opened[pressed] < SHUT).float().mean()),
                "pressed_frames": float(pressed.sum()),
            },
        }

    def _pictures(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of both sizes, in 0..1, of latents (B, C, F, h, w)."""
        flat = latents.transpose(1, 2).flatten(0, 1)
        plain, fine = self._conditions.vae.decode_both(flat)
        return plain.float().clamp(0, 1), fine.float().clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.train.gap", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the training state")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument(
        "--held-out", action="store_true", help="people and voices of the held-out split alone"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--figure", type=Path, default=ROOT / "figure" / "build" / "identities.npz")
    parser.add_argument("--speech", type=Path, default=ROOT / "speech" / "build" / "speech.npz")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    vae = AutoencoderLite().to(device)
    vae.load_state_dict(load_file(arguments.state / "vae.average.safetensors"))
    networks = build_networks().eval().to(device)
    networks.load_state_dict(load_file(arguments.state / "networks.average.safetensors"))
    conditions = ConditionEncoder(
        vae, load_ears(ROOT.parent / "bundled/model" / "whisper", arguments.state / ADAPTER), device
    )
    poses = Poses.draw(4, device)
    figures = {}
    for people, voices in product((False, True), repeat=2):
        if arguments.held_out and not (people and voices):
            continue
        torch.manual_seed(arguments.seed)
        material = Material(
            arguments.figure, arguments.speech, device, seed=arguments.seed, poses=poses,
            unknown_people=people, unknown_voices=voices, fine=True,
        )  # fmt: skip
        name = ", ".join(
            f"{'held-out' if new else 'trained'} {what}"
            for new, what in ((people, "people"), (voices, "voices"))
        )
        figures[name] = Gauge(material, conditions, networks, arguments.figure).measure(arguments.clips)
        print(name)
        for kind, numbers in figures[name].items():
            print(
                f"  {kind}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()), flush=True
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
