"""The command: `python -m demo.factory.evaluate [--quick|--full] [--out FOLDER]` measures the bundled model.

It plays held-out identities, voices and hands through the streaming path, and prints every figure beside its
target. With `--out FOLDER` it also writes the report with pictures, curves and JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from demo.factory.evaluate import (
    report,
    trial_conditions,
    trial_fine,
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
from protocol.wire.clock import FRAME_RATES, USUAL_CLIP_FRAMES
from scripts.run.managed import RunError
from scripts.talk.sound import SoundError

SPEECH = ROOT / "demo/factory/speech/build/speech.npz"
SAMPLE = Path(__file__).resolve().parent / "sample"
TRIALS = ("size", "truth", "fine", "long", "silence", "conditions", "human", "speed", "machines")
#: Trials that start whole runs, which takes too long for --quick.
SLOW = ("speed", "machines")
#: Seconds of speech that trial "speed" pours in.
POURED = 20.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of the command, by default those of `sys.argv`."""
    parser = argparse.ArgumentParser(prog="python -m demo.factory.evaluate", description=__doc__)
    much = parser.add_mutually_exclusive_group()
    much.add_argument(
        "--quick", action="store_true", help="a moment of each trial, under a minute (figures are noisy)"
    )
    much.add_argument("--full", action="store_true", help="every held-out identity and longer trials")
    parser.add_argument("--identities", type=int, help="held-out identities")
    parser.add_argument("--seconds", type=float, help="seconds of speech of each")
    parser.add_argument("--drift-minutes", type=float, help="length of the long session")
    parser.add_argument(
        "--only", action="append", choices=TRIALS, help="this trial alone (may be given several times)"
    )
    parser.add_argument("--config", type=Path, default=Settings.__dataclass_fields__["config"].default)
    parser.add_argument("--fps", type=int, default=24, choices=FRAME_RATES)
    parser.add_argument("--clip-frames", type=int, default=USUAL_CLIP_FRAMES, help="frames of a clip")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    engines = Settings.__dataclass_fields__["cpu_engine"].metadata["choices"]
    parser.add_argument("--cpu-engine", default="auto", choices=engines, help="library on a CPU")
    parser.add_argument("--no-use-init-latent", action="store_true", help="nothing is kept between clips")
    parser.add_argument("--session-state", default="auto", help="way to keep a session's state")
    parser.add_argument(
        "--device", default="auto", help="device of denoiser, decoder and truth: auto, cpu, cuda:0, …"
    )
    parser.add_argument(
        "--figure", type=Path, help="file of identities (default: the one that was built, else the sample)"
    )
    parser.add_argument(
        "--speech", type=Path, help="file of speech (default: the one that was built, else the sample)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        default=ROOT.parent / "shared/data/audio",
        help="folder of human speech, .wav",
    )
    parser.add_argument("--out", type=Path, help="folder for the report, such as docs/lab")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a target is missed")
    return parser.parse_args(argv)


def scale_of(arguments: argparse.Namespace) -> Scale:
    """The extent of the trials: a named scale, with single values replaced by their flags."""
    scale = QUICK if arguments.quick else FULL if arguments.full else Scale()
    given = {
        "identities": arguments.identities,
        "seconds": arguments.seconds,
        "drift_seconds": None if arguments.drift_minutes is None else 60 * arguments.drift_minutes,
    }
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


def material_files(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The files of identities and of speech.

    A file that is given comes first. Then come the built files, except with --quick. The sample comes last.
    """
    built = DEFAULT_ASSETS.is_file() and SPEECH.is_file() and not arguments.quick
    figure, speech = (DEFAULT_ASSETS, SPEECH) if built else (SAMPLE / "identities.npz", SAMPLE / "speech.npz")
    return arguments.figure or figure, arguments.speech or speech


def make_bench(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Load the model, the material and the judge.

    Args:
        arguments: the parsed flags.
        folder: an empty folder for the held-out reference pictures and pose loops.

    Raises:
        SettingsError: the configuration cannot work, or its pictures are not square.
        FileNotFoundError: the material is missing.
    """
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
        clip_frames=arguments.clip_frames,
        steps=arguments.steps,
        dtype=arguments.dtype,
        cpu_engine=arguments.cpu_engine,
        use_init_latent=not arguments.no_use_init_latent,
        session_state=arguments.session_state,
        gpu_devices=(str(device),),
        encoder_devices=(str(device),),
        threads=len(os.sched_getaffinity(0)),  # every core: one stage works at a time here
        run_dir=folder,
    )
    return Bench(StreamingPath(settings), material, Judge(material, arguments.fps), scale)


def run_flags(arguments: argparse.Namespace) -> list[str]:
    """The flags of a whole run of the same model. The run's warm-up chooses the frame rate."""
    flags = ["--config", str(arguments.config)]
    flags += [] if arguments.steps is None else ["--steps", str(arguments.steps)]
    return [*flags, *([] if arguments.dtype == "auto" else ["--dtype", arguments.dtype])]


def first_recording(recordings: Path) -> Path | None:
    """The first recording in the folder, or None where there is none."""
    found = sorted(recordings.glob("*.wav")) if recordings.is_dir() else []
    return found[0] if found else None


def evaluate(bench: Bench, arguments: argparse.Namespace, progress: Callable[[str], None]) -> list[Section]:
    """Run the trials in order and report each finished one to `progress`.

    Raises:
        RunError: a whole run failed.
        SoundError: a recording cannot be read.
    """
    recordings, flags = arguments.recordings, run_flags(arguments)
    sections: dict[str, Section] = {}

    def truth_follows() -> tuple[float, float]:
        # Without trial "truth", a correlation of 0.5 stands for the drawn mouth's.
        names = ("truth_follows_loudness", "truth_follows_syllables")
        first, second = (sections["truth"].numbers[n] if "truth" in sections else 0.5 for n in names)
        return float(first), float(second)

    trials: dict[str, Callable[[], Section]] = {
        "size": lambda: trial_size.run(bench.path.config),
        "truth": lambda: trial_truth.run(bench),
        "fine": lambda: trial_fine.run(bench),
        "long": lambda: trial_long.run(bench),
        "silence": lambda: trial_silence.run(bench),
        "conditions": lambda: trial_conditions.run(bench),
        "human": lambda: trial_human.run(bench, recordings, truth_follows()),
        "speed": lambda: trial_speed.run(first_recording(recordings), flags, POURED),
        "machines": lambda: trial_speed.run_machines(first_recording(recordings), flags),
    }
    every = [name for name in TRIALS if not (arguments.quick and name in SLOW)]
    for name in arguments.only or every:
        begin = time.monotonic()
        sections[name] = trials[name]()
        progress(f"{name}: {time.monotonic() - begin:.0f} s")
    return list(sections.values())


def write_results(
    arguments: argparse.Namespace, sections: list[Section], bench: Bench, given: list[str]
) -> None:
    """Write the numbers and the report where the flags ask for them. `given` has the words of the command."""
    if arguments.json:
        numbers = report.as_json(sections, report.describe(bench))
        arguments.json.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.out:
        # Names alone: the folders of one machine say nothing to a reader.
        words = " ".join(Path(word).name if Path(word).is_absolute() else word for word in given)
        command = f"python -m demo.factory.evaluate {words}".strip()
        print(report.write(arguments.out, sections, bench, command))


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    begin = time.monotonic()

    def progress(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - begin:5.0f} s] {text}\n")

    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        try:
            bench = make_bench(arguments, Path(folder))
        except (SettingsError, FileNotFoundError, ValueError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        progress("loaded")
        try:
            sections = evaluate(bench, arguments, progress)
        except (RunError, SoundError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        print(as_text(sections))
        met, judged = count_met(sections)
        print(f"\n{met} of {judged} targets are met")
        write_results(arguments, sections, bench, sys.argv[1:] if argv is None else argv)
    return 1 if arguments.strict and met < judged else 0
