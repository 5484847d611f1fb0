"""The command: `python -m demo.factory.evaluate [--quick|--full] [--out FOLDER]` measures the bundled model.

Plays held-out identities, voices and hands through the streaming path and prints every figure beside its
target. `--out FOLDER` also writes the report with pictures, curves and JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from demo.factory.evaluate import (
    report,
    trial_conditions,
    trial_human,
    trial_long,
    trial_silence,
    trial_size,
    trial_speed,
    trial_truth,
)
from demo.factory.evaluate.bench import FULL, QUICK, Bench, Scale
from demo.factory.evaluate.judge import Judge
from demo.factory.evaluate.material import HeldOut
from demo.factory.evaluate.path import StreamingPath
from demo.factory.evaluate.table import Section, as_text, count_met
from demo.factory.figure.renderer import DEFAULT_ASSETS
from protocol.model.config import ModelConfig
from protocol.process.settings import ROOT, Settings, SettingsError
from protocol.wire.clock import FRAME_RATES, SAMPLE_RATE
from scripts.bench.common.tools import cores
from scripts.run.managed import RunError
from scripts.talk.sound import SoundError, read_sound, synthetic_voice, write_wav

SPEECH = ROOT / "demo/factory/speech/build/speech.npz"
SAMPLE = Path(__file__).resolve().parent / "sample"
TRIALS = ("size", "truth", "long", "silence", "conditions", "human", "speed", "machines")
SLOW = ("speed", "machines")
"""Start whole runs, which --quick is too short for."""
SPOKEN = 20.0
"""Seconds of speech that those runs hear."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.evaluate", description=__doc__)
    much = parser.add_mutually_exclusive_group()
    much.add_argument(
        "--quick", action="store_true", help="a moment of each trial, under a minute; figures are noisy"
    )
    much.add_argument("--full", action="store_true", help="every held-out identity and longer trials")
    parser.add_argument("--identities", type=int, help="held-out identities")
    parser.add_argument("--seconds", type=float, help="seconds of speech of each")
    parser.add_argument("--drift-minutes", type=float, help="length of the long session")
    parser.add_argument(
        "--only", action="append", choices=TRIALS, help="this trial alone; may be given several times"
    )
    parser.add_argument("--config", type=Path, default=Settings.__dataclass_fields__["config"].default)
    parser.add_argument("--fps", type=int, default=24, choices=FRAME_RATES)
    parser.add_argument("--steps", type=int, help="denoising steps; the model's if not given")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--no-use-init-latent", action="store_true", help="without latent preservation")
    parser.add_argument(
        "--device", default="auto", help="of denoiser, decoder and truth: auto, cpu, cuda:0, …"
    )
    parser.add_argument(
        "--figure", type=Path, help=f"identities; {DEFAULT_ASSETS.name} where built, else the sample"
    )
    parser.add_argument("--speech", type=Path, help=f"speech; {SPEECH.name} where built, else the sample")
    parser.add_argument(
        "--recordings", type=Path, default=ROOT.parent / "shared/data/audio", help="human speech, .wav"
    )
    parser.add_argument("--out", type=Path, help="folder for the report, such as docs/lab")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a target is missed")
    return parser.parse_args(argv)


def scale_of(arguments: argparse.Namespace) -> Scale:
    scale = QUICK if arguments.quick else FULL if arguments.full else Scale()
    given = {
        "identities": arguments.identities,
        "seconds": arguments.seconds,
        "drift_seconds": None if arguments.drift_minutes is None else 60 * arguments.drift_minutes,
    }
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


def material_files(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Identities and speech: as given, else what was built, else (and for --quick) the small sample."""
    built = DEFAULT_ASSETS.is_file() and SPEECH.is_file() and not arguments.quick
    figure, speech = (DEFAULT_ASSETS, SPEECH) if built else (SAMPLE / "identities.npz", SAMPLE / "speech.npz")
    return arguments.figure or figure, arguments.speech or speech


def make_bench(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Loads everything; `folder` takes the held-out reference pictures and pose loops."""
    scale = scale_of(arguments)
    config = ModelConfig.load(arguments.config)
    if config.width != config.height:
        raise SettingsError(
            f"{arguments.config}: {config.width}×{config.height}; the figure is drawn as a square"
        )
    name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name if arguments.device == "auto" else arguments.device)
    material = HeldOut(*material_files(arguments), scale.identities, config.width, device)
    avatars, poses = material.write(folder)
    settings = Settings(
        config=Path(arguments.config),
        reference_image=(avatars,),
        pose_dir=(poses,),
        fps=arguments.fps,
        steps=arguments.steps,
        dtype=arguments.dtype,
        use_init_latent=not arguments.no_use_init_latent,
        gpu_devices=(str(device),),
        encoder_devices=(str(device),),
        threads=cores(),  # one stage works at a time here
        run_dir=folder,
    )
    return Bench(StreamingPath(settings), material, Judge(material, arguments.fps), scale)


def run_flags(arguments: argparse.Namespace) -> list[str]:
    """The flags of a whole run of the same model; its rate is for the warm-up to choose."""
    flags = ["--config", str(arguments.config)]
    flags += [] if arguments.steps is None else ["--steps", str(arguments.steps)]
    return [*flags, *([] if arguments.dtype == "auto" else ["--dtype", arguments.dtype])]


def spoken(recordings: Path, folder: Path) -> Path:
    """A WAV file of `SPOKEN` seconds: the first recording again and again, or a synthetic voice."""
    found = sorted(recordings.glob("*.wav")) if recordings.is_dir() else []
    speech = read_sound(found[0]) if found else synthetic_voice(SPOKEN)
    length = round(SPOKEN * SAMPLE_RATE)
    write_wav(folder / "spoken.wav", np.tile(speech, -(-length // len(speech)))[:length])
    return folder / "spoken.wav"


def evaluate(
    bench: Bench, arguments: argparse.Namespace, folder: Path, tell: Callable[[str], None]
) -> list[Section]:
    """Runs the trials in order; `tell` hears of each when it is done."""
    recordings, flags = arguments.recordings, run_flags(arguments)
    sections: dict[str, Section] = {}

    def truth_follows() -> tuple[float, float]:
        names = ("truth_follows_loudness", "truth_follows_syllables")
        first, second = (sections["truth"].numbers[n] if "truth" in sections else 0.5 for n in names)
        return float(first), float(second)

    trials: dict[str, Callable[[], Section]] = {
        "size": lambda: trial_size.run(bench.path.config),
        "truth": lambda: trial_truth.run(bench),
        "long": lambda: trial_long.run(bench),
        "silence": lambda: trial_silence.run(bench),
        "conditions": lambda: trial_conditions.run(bench),
        "human": lambda: trial_human.run(bench, recordings, truth_follows()),
        "speed": lambda: trial_speed.run(spoken(recordings, folder), flags, SPOKEN),
        "machines": lambda: trial_speed.run_machines(spoken(recordings, folder), flags),
    }
    every = [name for name in TRIALS if not (arguments.quick and name in SLOW)]
    for name in arguments.only or every:
        begin = time.monotonic()
        sections[name] = trials[name]()
        tell(f"{name}: {time.monotonic() - begin:.0f} s")
    return list(sections.values())


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    begin = time.monotonic()

    def tell(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - begin:5.0f} s] {text}\n")

    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        try:
            bench = make_bench(arguments, Path(folder))
        except (SettingsError, FileNotFoundError, ValueError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        tell("loaded")
        try:
            sections = evaluate(bench, arguments, Path(folder), tell)
        except (RunError, SoundError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        print(as_text(sections))
        met, judged = count_met(sections)
        print(f"\n{met} of {judged} targets are met")
        if arguments.json:
            numbers = report.as_json(sections, report.describe(bench))
            arguments.json.write_text(
                json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        if arguments.out:
            given = sys.argv[1:] if argv is None else argv
            # Names alone: where things lie on this machine says nothing to a reader.
            words = " ".join(Path(word).name if Path(word).is_absolute() else word for word in given)
            print(
                report.write(
                    arguments.out, sections, bench, f"python -m demo.factory.evaluate {words}".strip()
                )
            )
    return 1 if arguments.strict and met < judged else 0
