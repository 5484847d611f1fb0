"""Find where quality is lost: `python -m demo.factory.train.gap --state DIR [--clips N]`.

It measures single clips from trained and from held-out people and voices, without the streaming path. The
figures are the PSNR of the output, of its mouth's box and of the VAE alone, the edges kept in mouth and
hands, and how the mouth's opening follows the truth.

More people or voices can close the gap between trained and held-out ones. More training can close the gap
that remains on trained ones. --held-out looks only at people and voices that training never saw.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from demo.factory.evaluate.scores import edges_kept, inside
from demo.factory.figure.measure import MouthMeter, crop_mouth, hand_boxes, mouth_box
from demo.factory.figure.renderer import Renderer
from demo.factory.train.config import CLIP_FRAMES, FPS
from demo.factory.train.data import Material, Poses, figure_state
from demo.factory.train.denoiser import ConditionEncoder, predicted_latents
from demo.factory.train.listen import ADAPTER, load_ears
from demo.factory.train.models import Networks, build_networks
from demo.factory.train.vae import AutoencoderLite

ROOT = Path(__file__).resolve().parent.parent


def psnr(output: Tensor, truth: Tensor) -> float:
    """Mean PSNR of pictures (N, 3, H, W), in dB."""
    return float((-10 * torch.log10((output - truth).square().flatten(1).mean(1))).mean())


@torch.inference_mode()
def measure(
    material: Material, conditions: ConditionEncoder, networks: Networks, meter: MouthMeter, clips: int
) -> dict[str, float]:
    """Figures of `clips` plain clips at 24 fps that begin from the true latent of the frame before."""
    drawn = material.clips(clips, plain=True)
    kept = conditions.encode(drawn)
    batch = conditions.batch(kept, conditions.positions(FPS, range(CLIP_FRAMES)), material.poses.maps)
    made = predicted_latents(networks, batch, torch.ones(clips, dtype=torch.bool)).float()
    vae = conditions.vae
    truth = drawn.pictures[:, 1:].flatten(0, 1)
    output, through = (
        vae.decode(x.transpose(1, 2).flatten(0, 1)).float().clamp(0, 1) for x in (made, batch.clean)
    )
    place = drawn.track[:, None], drawn.frame
    life, hands = (bank[place].flatten(0, 1) for bank in (material.poses.life, material.poses.hands))
    state = figure_state(drawn.mouth[:, 1:].flatten(0, 1), life, hands)
    opened, wanted = (
        meter.opening(pictures, drawn.identity.repeat_interleave(CLIP_FRAMES), state.head)
        for pictures in (output, truth)
    )
    renderer = material.renderer
    boxes = mouth_box(renderer, state)
    places = {"mouth": boxes[:, None], "hands": hand_boxes(renderer, state)}
    return {
        "psnr": psnr(output, truth),
        "mouth": psnr(crop_mouth(output, boxes), crop_mouth(truth, boxes)),
        **{
            f"{name}_edges": float(edges_kept(output, truth, inside(where, renderer.size)).mean())
            for name, where in places.items()
        },
        "vae": psnr(through, truth),
        "correlation": float(torch.corrcoef(torch.stack([opened, wanted]))[0, 1]),
        "movement": float((opened * wanted).mean() / wanted.square().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.train.gap", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the training state")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument(
        "--held-out", action="store_true", help="people and voices of the held-out split alone"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--figure", type=Path, default=ROOT / "figure" / "build" / "identities.npz")
    parser.add_argument("--speech", type=Path, default=ROOT / "speech" / "build" / "speech.npz")
    arguments = parser.parse_args()
    device = torch.device("cpu")
    vae = AutoencoderLite()
    vae.load_state_dict(load_file(arguments.state / "vae.average.safetensors"))
    networks = build_networks().eval()
    networks.load_state_dict(load_file(arguments.state / "networks.average.safetensors"))
    conditions = ConditionEncoder(
        vae, load_ears(ROOT.parent / "bundled/model" / "whisper", arguments.state / ADAPTER), device
    )
    poses = Poses.draw(4, device)
    meter = MouthMeter(Renderer(arguments.figure))  # measures everybody's mouth at rest: once is enough
    print("voices   people   PSNR      mouth's   VAE alone  edges: mouth, hands  opening: correlation, size")
    for people, voices in product((False, True), repeat=2):
        if arguments.held_out and not (people and voices):
            continue
        torch.manual_seed(arguments.seed)
        material = Material(
            arguments.figure, arguments.speech, device, seed=arguments.seed, poses=poses,
            unknown_people=people, unknown_voices=voices,
        )  # fmt: skip
        made = measure(material, conditions, networks, meter, arguments.clips)
        names = ("held out" if voices else "trained", "held out" if people else "trained")
        print(
            f"{names[0]:<9}{names[1]:<9}{made['psnr']:5.2f} dB  {made['mouth']:5.2f} dB  "
            f"{made['vae']:5.2f} dB   {made['mouth_edges']:.3f}, {made['hands_edges']:.3f}         "
            f"{made['correlation']:.3f}, {made['movement']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
