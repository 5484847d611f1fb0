"""Identities, voices and pose loops that training never saw, and the right pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.factory.figure.make_identities import SPLIT_FILE
from demo.factory.figure.renderer import Renderer
from demo.factory.figure.rest import rest_hands
from demo.factory.figure.state import FigureState
from demo.factory.motion.mouth import TRACK_RATE
from demo.factory.poses.make_poses import load_split, pose_arrays
from demo.factory.speech.corpus import Corpus, MouthTracks, load, mouth_tracks
from demo.factory.speech.stream import lip_closures, make_stream
from demo.factory.train.data import figure_state
from protocol.wire.clock import SAMPLE_RATE

#: A loop that moves the head, lids and shoulders like every other and keeps the hands at rest.
STILL = "still"
LOOP = 288
LOOP_FPS = 24


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech of one session.

    Attributes:
        samples: float32 (n,) at 16 kHz.
        mouth: the true mouth, float32 (rows, 6) at 120 Hz.
        closures: start and end of the lip closures, float64 (k, 2) in seconds.
        voice: name of the voice.
    """

    samples: NDArray[np.float32]
    mouth: NDArray[np.float32]
    closures: NDArray[np.float64]
    voice: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Scene:
    """One session: an identity, its speech and its hands.

    Attributes:
        identity: number in `HeldOut.names`.
        pose: name of the pose loop.
        speech: the sound and its mouth.
    """

    identity: int
    pose: str
    speech: Speech


class HeldOut:
    """The held-out side of the split.

    Args:
        figure: `identities.npz`, see `demo.factory.figure.make_identities`.
        speech: `speech.npz`, see `demo.factory.speech.make_speech`.
        count: number of identities to take, spread over the split, or all if there are fewer.
        size: side of the pictures.
        device: where the truth is drawn.

    Raises:
        FileNotFoundError: a file is missing. The text names the command that makes it.
        ValueError: the file has fewer than two held-out identities.
    """

    def __init__(self, figure: Path, speech: Path, count: int, size: int, device: torch.device) -> None:
        for path, module in (
            (figure, "demo.factory.figure.make_identities"),
            (speech, "demo.factory.speech.make_speech"),
        ):
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: build it with `python -m {module}`")
        with np.load(figure) as data:
            stored = {str(name) for name in data["names"]}
        held_out = [n for n in json.loads(SPLIT_FILE.read_text(encoding="utf-8"))["held_out"] if n in stored]
        if len(held_out) < 2:
            raise ValueError(f"{figure}: fewer than two identities of the held-out split")
        picked = np.linspace(0, len(held_out) - 1, min(max(count, 2), len(held_out))).round().astype(int)
        self.names = [held_out[i] for i in picked]
        self._figure = figure
        self.renderer = Renderer(figure, size=size, device=device, identities=self.names)
        split = load_split()
        # A bundled loop may be trained on where only bundled ones are (`demo.factory.train cache`).
        self.poses = [name for name in split["held_out"] if name not in split["bundled"]]
        self._arrays = {name: pose_arrays(name) for name in self.poses}
        self._arrays[STILL] = _still(self._arrays[self.poses[0]])
        self.corpus: Corpus = load(speech)
        self.tracks: MouthTracks = mouth_tracks(self.corpus)
        self.voices = sorted({self.corpus.voices[v] for v in self.corpus.voice_id[self.corpus.held_out]})

    def renderer_of(self, size: int) -> Renderer:
        """A renderer of the same people for pictures of another size."""
        return Renderer(self._figure, size=size, device=self.renderer.device, identities=self.names)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write reference pictures and pose loops. Returns their folders."""
        avatars, poses = folder / "avatars", folder / "poses"
        avatars.mkdir(parents=True)
        poses.mkdir(parents=True)
        everyone = torch.arange(len(self.names), device=self.renderer.device)
        for part in everyone.split(16):
            pictures = (
                self.renderer.reference(part).mul(255.0).round().byte().cpu().permute(0, 2, 3, 1).numpy()
            )
            for i, picture in zip(part.tolist(), pictures, strict=True):
                Image.fromarray(picture).save(avatars / f"{self.names[i]}.png")
        for name, arrays in self._arrays.items():
            contents: dict[str, Any] = arrays
            np.savez(poses / f"{name}.npz", **contents)
        return avatars, poses

    def speech(self, voice: str, seconds: float, seed: int) -> Speech:
        """Sentences of a held-out voice with pauses, cut to `seconds`."""
        made = make_stream(
            self.corpus,
            self.tracks,
            held_out=True,
            seconds=seconds,
            seed=seed,
            longest_pause=1.0,
            voices=(voice,),
        )
        length = round(seconds * SAMPLE_RATE)
        samples = (made.audio[:length] / np.float32(32768)).astype(np.float32)
        closures = made.closures.reshape(-1, 2)
        mouth = made.mouth[: round(seconds * TRACK_RATE)]
        return Speech(samples, mouth, closures[closures[:, 1] < seconds], voice)

    def scenes(self, count: int, seconds: float, seed: int = 0) -> list[Scene]:
        """Scenes of different identities. Voices and poses take turns, so that each pair comes in time."""
        voices, poses = len(self.voices), len(self.poses)
        return [
            Scene(
                i % len(self.names),
                self.poses[(i + i // voices) % poses],
                self.speech(self.voices[i % voices], seconds, seed + i),
            )
            for i in range(count)
        ]

    def sentence(self, voice: str, number: int) -> tuple[Speech, float]:
        """A short sentence, cut 0.1 s after its last sound, and the second at which that sound ends."""
        corpus = self.corpus
        own = np.flatnonzero(corpus.held_out & (corpus.voice_id == corpus.voices.index(voice)))
        own = own[np.argsort(np.diff(corpus.starts)[own], kind="stable")]
        utterance = int(own[number % len(own)])
        phones = corpus.phones(utterance)
        end = max(stop for _, stop, phone in phones if phone != "_")
        length = round((end + 0.1) * SAMPLE_RATE)
        samples = (corpus.samples(utterance)[:length] / np.float32(32768)).astype(np.float32)
        fade = min(len(samples), SAMPLE_RATE // 50)
        samples[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        mouth = self.tracks.values[self.tracks.starts[utterance] : self.tracks.starts[utterance + 1]]
        return Speech(samples, mouth, np.array(lip_closures(phones)).reshape(-1, 2), voice), end

    def states(self, scene: Scene, first: int, count: int, fps: int) -> FigureState:
        """The true states of `count` frames of a scene from frame `first`. The mouth rests after its end."""
        frames = np.arange(first, first + count)
        rows = frames * TRACK_RATE // fps
        mouth = scene.speech.mouth[np.minimum(rows, len(scene.speech.mouth) - 1)]
        mouth = mouth * (rows < len(scene.speech.mouth))[:, None]
        loop = self._arrays[scene.pose]
        index = frames * LOOP_FPS // fps % LOOP
        device = self.renderer.device
        return figure_state(
            *(
                torch.from_numpy(np.ascontiguousarray(x)).float().to(device)
                for x in (mouth, loop["life"][index], loop["hands"][index])
            )
        )

    def identity(self, scene: Scene, count: int) -> Tensor:
        """The scene's identity (count,), as the renderer takes it."""
        return torch.full((count,), scene.identity, dtype=torch.long, device=self.renderer.device)


def _still(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    hands = np.broadcast_to(rest_hands(), arrays["hands"].shape)
    return {**arrays, "hands": np.ascontiguousarray(hands, dtype=np.float32)}
