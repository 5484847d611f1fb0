"""Render a sound file into a film of a face that speaks it, as fast as this machine's workers go.

    python -m scripts.render speech.wav -o out.mp4                          # H.264 and AAC
    python -m scripts.render speech.flac --avatar maya --pose calm -o out.mkv   # H.264 and exact sound
    python -m scripts.render speech.wav -o pictures/                        # JPEGs and a WAV; needs no PyAV

Exit status: 0 when the film is written, 1 when it cannot be made, 2 for bad settings, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.model.config import ModelConfig
from protocol.process.settings import Settings, SettingsError, given_values
from protocol.process.user import complete_user
from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, first_frame_from
from scripts.official.errors import OfficialError
from scripts.render.errors import RenderError
from scripts.render.film import open_film
from scripts.render.job import run_job
from scripts.render.progress import RenderProgress
from scripts.render.source import read_source
from scripts.run.guard import guarded
from scripts.run.launch import require_assets, with_model
from scripts.run.poses import PoseError, convert_pose_folders
from scripts.run.rundir import RunDir, RunDirError
from scripts.talk.sound import SoundError

#: Of the pictures between the workers and the film, unless --jpeg-quality says otherwise.
JPEG_QUALITY = 95


def main(argv: Sequence[str] | None = None) -> int:
    """Make the film. Returns the exit status."""
    complete_user()  # the stages inherit it
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    words = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(words):
        _parser().parse_args(words)
    try:
        own: list[str] = []
        settings = render_settings(given_values(words, others=own))
        args = _parser().parse_args(own)
        return 0 if render(settings, args) else 130
    except (SettingsError, PoseError) as error:
        print(f"render: {error}", file=sys.stderr)
        return 2
    except (RenderError, SoundError, RunDirError, OfficialError) as error:
        print(f"render: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the stages were started
        return 130


def render_settings(given: Mapping[str, object]) -> Settings:
    """The settings of a run that renders: a frame rate that stays, and a run folder of its own.

    With an explicit `fps` the GPU worker never leaves frames out. A film need not be made in real time, so
    nothing is given up for that.
    """
    run_dir = Path(tempfile.gettempdir()) / f"echomimic-render-{os.getuid()}-{os.getpid()}"
    usual = {"fps": FULL_RATE, "quality": "fixed", "jpeg_quality": JPEG_QUALITY, "run_dir": run_dir}
    return Settings(**(usual | dict(given)))  # type: ignore[arg-type] # each value was parsed by its field


def render(settings: Settings, args: argparse.Namespace) -> bool:
    """Read the sound, run the stages, write the film.

    Returns:
        True when the film is written, False when a signal ended it.

    Raises:
        RenderError, SoundError, SettingsError, PoseError, RunDirError, OfficialError: it cannot be made.
    """
    source = read_source(args.sound)
    samples = source.heard()
    fps = settings.fps or FULL_RATE
    settings = with_model(settings)
    width, height = ModelConfig.load(settings.config).finest_size(settings)
    settings = dataclasses.replace(settings, width=width, height=height)
    with RunDir(settings.run_dir, settings.port) as run_dir, guarded(run_dir.path.absolute(), settings.port):
        poses = convert_pose_folders(settings.pose_dir, run_dir.path)
        settings = dataclasses.replace(settings, pose_dir=poses)
        require_assets(settings)
        names = chosen_names(settings, args.avatar, args.pose)
        film = open_film(args.output, source, fps, generated=settings.mark_generated)
        try:
            progress = RenderProgress(first_frame_from(len(samples), fps), fps)
            finished = run_job(settings, names, samples, film, progress)
        except BaseException:
            film.discard()
            raise
        if not finished:
            film.discard()
    if finished:
        print(f"{args.output}: {progress.done} pictures, {len(samples) / SAMPLE_RATE:.2f} s", file=sys.stderr)
    return finished


def chosen_names(settings: Settings, avatar: str, pose: str) -> tuple[str, str]:
    """The ids of avatar and pose. Empty names stand for the first ones.

    Raises:
        RenderError: there is none of that name. The text lists those that are there.
    """
    from protocol.model.assets import avatar_paths, picture_files, pose_files, pose_paths

    chosen = []
    there = {"--avatar": picture_files(avatar_paths(settings)), "--pose": pose_files(pose_paths(settings))}
    for flag, name in (("--avatar", avatar), ("--pose", pose)):
        names = list(there[flag])
        if name and name not in names:
            raise RenderError(f"{flag} {name}: there is none of that name, only {', '.join(names)}")
        chosen.append(name or names[0])
    return chosen[0], chosen[1]


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m scripts.render",
        allow_abbrev=False,
        description=about,
        epilog="Every other flag is a setting of the run, such as --steps, --encoders or --fps (24 here);"
        " `python -m scripts.run --help` lists them.",
    )
    parser.add_argument("sound", type=Path, help="sound file, or any file with sound where PyAV is installed")
    parser.add_argument("--avatar", default="", metavar="NAME", help="avatar (default: the first)")
    parser.add_argument("--pose", default="", metavar="NAME", help="pose (default: the first)")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".mp4, .mkv (exact sound), or a folder with a /"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
