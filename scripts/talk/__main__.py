"""Stream a sound file to a running gateway in real time, and check every frame and sample that comes back.

    python -m scripts.talk speech.wav
    python -m scripts.talk speech.wav --v2 --sessions 2 --avatars ada,ben --save-frames out/

Exit status: 0 when every check passed, 1 when one failed, 2 when the session could not be held.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, USUAL_CLIP_FRAMES, frames_of_clip
from scripts.talk.live import ClientError, Plan, server_info, speak
from scripts.talk.sound import SoundError, read_sound, synthetic_voice
from scripts.talk.stream_check import Report


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the sessions and print their reports. Returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        samples = read_sound(args.wav, args.rate) if args.wav else synthetic_voice(6.0, rate=args.rate)
        if args.seconds:
            samples = samples[: round(args.seconds * args.rate)]
        token = read_token(args.token_from) if args.token_from else ""
        info = server_info(args.url, token)
        avatars = args.avatars.split(",") if args.avatars else [""]
        frames: list[list[bytes]] = [[] for _ in range(args.sessions)]
        plans = [
            Plan(
                samples,
                args.rate,
                2 if args.v2 else 1,
                avatars[number % len(avatars)],
                args.pose,
                args.fps,
                token=token,
                on_frame=_collector(frames[number]),
            )
            for number in range(args.sessions)
        ]
        fps = args.fps or int(info.get("full_fps") or info.get("fps") or FULL_RATE)
        usual = int(info.get("clip_frames") or USUAL_CLIP_FRAMES)
        clip_frames = args.clip_frames or frames_of_clip(fps, usual)
        reports = asyncio.run(_speak_all(args.url, plans, fps, clip_frames, args.apart))
    except (ClientError, SoundError) as error:
        print(f"client: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    _show(reports, as_json=args.json)
    _save(frames, args, reports[0].fps)
    return 1 if any(report.problems for report in reports) else 0


def read_token(place: str) -> str:
    """The token in a file, or on standard input for `-`. No flag takes it: all users see command lines.

    Raises:
        ClientError: there is none.
    """
    try:
        text = sys.stdin.readline() if place == "-" else Path(place).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ClientError(f"--token-from {place}: {error}") from None
    if len(text.split()) != 1:
        raise ClientError(f"--token-from {place}: expected a token and nothing else")
    return text.strip()


def _collector(jpegs: list[bytes]) -> Callable[[int, bytes], None]:
    """An `on_frame` that keeps each picture in `jpegs`."""
    return lambda _number, jpeg: jpegs.append(jpeg)


async def _speak_all(url: str, plans: list[Plan], fps: int, clip_frames: int, apart: float) -> list[Report]:
    """All sessions at once, each `apart` seconds after the one before."""

    async def speak_later(seconds: float, plan: Plan) -> Report:
        await asyncio.sleep(seconds)
        return await speak(url, plan, fps, clip_frames)

    return list(await asyncio.gather(*(speak_later(i * apart, plan) for i, plan in enumerate(plans))))


def _show(reports: list[Report], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(report) for report in reports]))
        return
    for number, report in enumerate(reports):
        if len(reports) > 1:
            print(f"session {number}")
        print("\n".join(report.lines()))


def _save(frames: list[list[bytes]], args: argparse.Namespace, fps: int) -> None:
    if args.save_frames:
        for number, pictures in enumerate(frames):
            folder = args.save_frames / f"session{number}" if len(frames) > 1 else args.save_frames
            folder.mkdir(parents=True, exist_ok=True)
            for index, jpeg in enumerate(pictures):
                (folder / f"{index:05d}.jpg").write_bytes(jpeg)
    if args.animation and frames[0]:
        save_animation(args.animation, frames[0], fps)


def save_animation(path: Path, jpegs: Sequence[bytes], fps: int) -> None:
    """Write pictures as an animated .gif or .webp (silent), every second one above 12 fps for a .gif."""
    from PIL import Image

    step = 2 if path.suffix == ".gif" and fps > 12 else 1
    pictures = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs[::step]]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=round(1000 * step / fps), loop=0, quality=80
    )


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m scripts.talk", description=about)
    parser.add_argument("wav", nargs="?", type=Path, help="sound file (default: six synthetic seconds)")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default %(default)s)")
    parser.add_argument("--token-from", metavar="FILE", help="file with the token, or - for standard input")
    parser.add_argument("--v2", action="store_true", help="speak version 2 of the wire (default: version 1)")
    parser.add_argument("--sessions", type=int, default=1, metavar="N", help="sessions at once")
    parser.add_argument(
        "--apart", type=float, default=0.0, metavar="S", help="seconds between the beginnings of two sessions"
    )
    parser.add_argument("--avatars", metavar="A,B", help="avatars, given to the sessions in turn")
    parser.add_argument("--pose", default="", help="pose of all sessions")
    parser.add_argument("--fps", type=int, help="frame rate to ask for")
    parser.add_argument(
        "--clip-frames", type=int, metavar="N", help="frames of a clip (default: half a second)"
    )
    parser.add_argument(
        "--rate", type=int, default=SAMPLE_RATE, help="rate of the samples sent (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="send only the first seconds")
    parser.add_argument("--save-frames", type=Path, metavar="DIR", help="write the pictures there")
    parser.add_argument("--animation", type=Path, metavar="FILE", help="write a .gif or .webp of the session")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
