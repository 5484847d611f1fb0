"""Train the bundled model: `python -m demo.factory.train STAGE --state DIR [--minutes M]`.

Each call works for its minutes and writes its state into DIR, from which the next call continues. `export`
writes the averaged weights in half precision into `demo/bundled/model/`. `scripts/train_bundled.sh` runs all
stages in order.

Several GPUs train together with one call for each GPU. Each call has its own --rank, sees one GPU, and has
the same --processes as the others.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from demo.factory.train.blend import blend_states
from demo.factory.train.cached import tune, write_cache
from demo.factory.train.data import Material
from demo.factory.train.decoder import train_decoder
from demo.factory.train.denoiser import train_denoiser
from demo.factory.train.export import export_model
from demo.factory.train.level import level_state
from demo.factory.train.listen import listen
from demo.factory.train.sharp import train_sharp
from demo.factory.train.step import join
from demo.factory.train.vae import train_vae

ROOT = Path(__file__).resolve().parent.parent


def parse() -> argparse.Namespace:
    """Parse the flags of the command."""
    parser = argparse.ArgumentParser(prog="python -m demo.factory.train", description=__doc__)
    stages = ("vae", "denoiser", "decoder", "sharp", "listen", "cache", "tune", "blend", "level", "export")
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--state", type=Path, required=True, help="folder of the training state")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate of this call")
    parser.add_argument("--final-lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracks", type=int, default=96, help="pose tracks drawn at the start")
    parser.add_argument("--rank", type=int, default=0, help="number of this process of --processes")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, a GPU each")
    parser.add_argument("--meeting", default="127.0.0.1:29517", help="host:port where they find each other")
    parser.add_argument("--memory", type=int, default=None, help="examples kept to be learned from again")
    parser.add_argument(
        "--start",
        action="store_true",
        help="listen: its attention starts the denoiser's, if they are untrained",
    )
    parser.add_argument("--audio-only", action="store_true", help="tune: only the audio cross-attentions")
    parser.add_argument("--other", type=Path, help="blend: the state to move towards")
    parser.add_argument("--share", type=float, default=0.5, help="blend: how far, 0 to 1")
    parser.add_argument("--whole", help="blend: tensors whose names begin so move all the way")
    parser.add_argument("--export", type=Path, help="sharp: write the averaged weights here at each save")
    parser.add_argument(
        "--vae-share", type=float, default=0.4, help="sharp: its first part's share of the time"
    )
    parser.add_argument(
        "--contrast", type=float, default=1.0, help="level: of the pictures, 1 is that of least squares"
    )
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--figure", type=Path, default=ROOT / "figure" / "build" / "identities.npz")
    parser.add_argument("--speech", type=Path, default=ROOT / "speech" / "build" / "speech.npz")
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT.parent / "bundled/model",
        help="whisper is read, exports are written here",
    )
    return parser.parse_args()


def run_blend(arguments: argparse.Namespace) -> None:
    """Stage `blend`."""
    if arguments.other is None:
        raise SystemExit("blend: name the state to move towards with --other")
    blend_states(arguments.state, arguments.other, arguments.share, arguments.whole)


def run_cache(arguments: argparse.Namespace) -> None:
    """Stage `cache`."""
    write_cache(
        arguments.figure,
        arguments.speech,
        arguments.model / "whisper",
        arguments.state,
        minutes=arguments.minutes,
        seed=arguments.seed,
    )


def run_listen(arguments: argparse.Namespace) -> None:
    """Stage `listen`."""
    device = torch.device(arguments.device)
    join(arguments.rank, arguments.processes, arguments.meeting, device)
    listen(
        arguments.speech,
        arguments.model / "whisper",
        arguments.state,
        minutes=arguments.minutes,
        batch=arguments.batch or 256,
        seed=arguments.seed + 1000 * arguments.rank,
        device=device,
        start=arguments.start,
    )


def run_tune(arguments: argparse.Namespace) -> None:
    """Stage `tune`."""
    tune(
        arguments.figure,
        arguments.state,
        minutes=arguments.minutes,
        batch=arguments.batch or 4,
        peak=arguments.lr,
        final=arguments.final_lr,
        seed=arguments.seed,
        audio_only=arguments.audio_only,
    )


def run_on_drawn_material(arguments: argparse.Namespace) -> None:
    """Stages `vae`, `denoiser`, `decoder`, `sharp` and `level`, which draw their material as they go."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device)
    join(arguments.rank, arguments.processes, arguments.meeting, device)
    seed = arguments.seed + 1000 * arguments.rank
    torch.manual_seed(seed)
    speech = None if arguments.stage in ("vae", "level") else arguments.speech
    fine = arguments.stage in ("decoder", "sharp", "level")
    material = Material(
        arguments.figure, speech, device, seed=seed, tracks=arguments.tracks, fine=fine,
        twins=arguments.stage == "sharp",
    )  # fmt: skip
    if arguments.stage == "level":
        level_state(material, arguments.state, arguments.contrast)
        return
    common = {
        "minutes": arguments.minutes,
        "peak": arguments.lr,
        "final": arguments.final_lr,
    }
    if arguments.memory:
        common["memory"] = arguments.memory
    compiled = not arguments.no_compile
    whisper = arguments.model / "whisper"
    if arguments.stage == "vae":
        train_vae(material, arguments.state, batch=arguments.batch or 96, compile_model=compiled, **common)
    elif arguments.stage == "denoiser":
        train_denoiser(
            material, arguments.state, whisper,
            batch=arguments.batch or 48, compile_model=compiled, **common,
        )  # fmt: skip
    elif arguments.stage == "sharp":
        common.setdefault("memory", 2560)
        train_sharp(
            material, arguments.state, whisper,
            batch=arguments.batch or 32, vae_share=arguments.vae_share, export=arguments.export, **common,
        )  # fmt: skip
    else:
        train_decoder(
            material, arguments.state, whisper,
            batch=arguments.batch or 24, **common,
        )  # fmt: skip


def main() -> None:
    """Run the stage that the flags name."""
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stages = {
        "export": lambda given: export_model(given.state, given.model),
        "blend": run_blend,
        "cache": run_cache,
        "listen": run_listen,
        "tune": run_tune,
    }
    torch.manual_seed(arguments.seed)
    stages.get(arguments.stage, run_on_drawn_material)(arguments)


if __name__ == "__main__":
    main()
