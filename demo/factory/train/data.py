"""Endless training material: pictures, clips and their conditions, made on the training device.

Everything is drawn anew for each batch. Identities × speech × gestures × life never repeat, and nothing is
read from a disk. Speech, identities and gestures of the held-out split never appear here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from demo.factory.figure.captured import CapturedRenderer
from demo.factory.figure.make_identities import SPLIT_FILE
from demo.factory.figure.renderer import Renderer
from demo.factory.figure.state import FigureState
from demo.factory.motion.hands import hand_track
from demo.factory.motion.life import life_track
from demo.factory.motion.marks import life_to_marks
from demo.factory.motion.pose_map import draw_pose_maps
from demo.factory.motion.visemes import CHANNELS as MOUTH_COLUMNS
from demo.factory.poses.make_poses import load_split, pose_arrays
from demo.factory.train.config import FINE_SIZE, FIRST_TRACK_SEED, FPS, SIZE
from demo.factory.train.variety import RECOLORED, color_matrices, recolor
from demo.factory.train.voices import Voices

LOOP = 288
HEAD = slice(2, 5)  # of the signs of life
PRESSED = MOUTH_COLUMNS.index("lips_pressed")
LANDMARKS = 512
RARE = (0.5, 4.0)  # least and largest weight
TWINS = 0.5  # share of pairs that are twins
BUNDLED, BUNDLED_AGAIN = 6, 8  # the first identities of the renderer are the bundled avatars


def figure_state(mouth: Tensor, life: Tensor, hands: Tensor) -> FigureState:
    """The figure's states at N moments.

    Args:
        mouth: values (N, 6) of `visemes.CHANNELS`.
        life: signs of life (N, 8) of `motion.life`.
        hands: key points (N, 2, 21, 2) in fractions of the picture.
    """
    values = {name: mouth[:, i] for i, name in enumerate(MOUTH_COLUMNS)}
    return FigureState(
        **values,
        eyelid=life[:, 0],
        breath=life[:, 1],
        head=life[:, HEAD],
        gaze=life[:, 5:7],
        brow=life[:, 7],
        hands=hands,
        hands_visible=torch.ones(len(hands), 2, device=hands.device),
    )


def rarity(hands: Tensor) -> Tensor:
    """(tracks, LOOP) sampling weights of hands (tracks, LOOP, 2, 21, 2): rare positions come more often.

    A position's weight is its distance to the nearest tenth of `LANDMARKS` positions spread over the bank,
    over the median of that, within `RARE`. Gestures return to a few rests, so that evenly drawn moments
    hardly show a raised or a pointing hand, and those smear.
    """
    every = hands.flatten(2).flatten(0, 1)
    spread = torch.linspace(0, len(every) - 1, min(LANDMARKS, len(every)), device=hands.device).long()
    distance = torch.cdist(every, every[spread]).kthvalue(max(1, len(spread) // 10), dim=1).values
    weights = distance / distance.median().clamp_min(1e-6)
    return weights.clamp(*RARE).view(hands.shape[:2])


@dataclass
class Poses:
    """A bank of pose tracks: gestures combined with life. Maps cost most, so they are drawn once."""

    hands: Tensor  # (tracks, LOOP, 2, 21, 2)
    life: Tensor  # (tracks, LOOP, 8)
    maps: Tensor  # (tracks, LOOP, 3, SIZE, SIZE) uint8
    weights: Tensor  # (tracks, LOOP), see `rarity`

    @classmethod
    def draw(cls, tracks: int, device: torch.device, *, twins: bool = False) -> Poses:
        """Draw tracks with seeds of their own, all above those of the written split.

        With `twins`, tracks 2i and 2i + 1 have the same life.

        Raises:
            ValueError: twins need an even number of tracks.
        """
        if twins and tracks % 2:
            raise ValueError(f"--tracks {tracks}: choose an even number; twins take two tracks of one life")
        hands, life = [], []
        for track in range(tracks):
            gesture = hand_track(FIRST_TRACK_SEED + track, LOOP, FPS)
            if track % 8 == 7:  # still hands under a moving head, so that the two come apart
                gesture = np.repeat(gesture[:1], LOOP, axis=0)
            lived = life_track(LOOP, FIRST_TRACK_SEED + (track - track % 2 if twins else track), FPS)
            hands.append(gesture)
            life.append(lived)
        return cls.from_arrays(np.stack(hands), np.stack(life), device)

    @classmethod
    def bundled(cls, device: torch.device) -> Poses:
        """The loops that ship with the project."""
        arrays = [pose_arrays(name) for name in load_split()["bundled"]]
        return cls.from_arrays(
            np.stack([a["hands"] for a in arrays]), np.stack([a["life"] for a in arrays]), device
        )

    @classmethod
    def from_arrays(cls, hands: np.ndarray, life: np.ndarray, device: torch.device) -> Poses:
        """Tracks from hands (tracks, LOOP, 2, 21, 2) and life (tracks, LOOP, 8)."""
        points = torch.from_numpy(hands).float().to(device)
        marks = torch.from_numpy(life_to_marks(life)).float().to(device)
        score = torch.ones(points.shape[1:-1], device=device)
        maps = [
            (draw_pose_maps(points[i], score, marks[i], SIZE) * 255).round().to(torch.uint8)
            for i in range(len(points))
        ]
        return cls(points, torch.from_numpy(life).float().to(device), torch.stack(maps), rarity(points))


@dataclass
class ClipBatch:
    """Conditions and truth of B clips. The first frame of `pictures` is the one before the clip."""

    pictures: Tensor  # (B, 1 + F, 3, SIZE, SIZE) 0..1
    reference: Tensor  # (B, 3, SIZE, SIZE) 0..1
    poses: Tensor  # (B, F, 3, SIZE, SIZE) uint8
    pcm: Tensor  # (B, WINDOW_SAMPLES)
    mouth: Tensor  # (B, 1 + F, columns)
    identity: Tensor  # (B,) index in the renderer
    track: Tensor  # (B,) index in the pose bank
    frame: Tensor  # (B, F) frame of the pose loop
    twin: Tensor  # (B,) whether it and the other clip of its pair are twins, see `Material`
    fine: Tensor | None = None  # (B, F, 3, FINE_SIZE, FINE_SIZE) 0..1: the clip's own frames, drawn larger


class Moments(NamedTuple):
    """The conditions of N pictures that a loss asks for. Further axes may stand between N and the values."""

    hands: Tensor  # (N, 2, 21, 2) in fractions of the picture
    head: Tensor  # (N, 3), as in `FigureState.head`
    pressed: Tensor  # (N,) how far the lips are pressed together, as for m, b and p, 0 to 1
    twin: Tensor  # (N,) whether the other moment of the pair differs in its hands alone, see `Material`

    def frames(self, numbers: Tensor) -> Moments:
        """Moments of clips, batch and frames first: those of some frames, one after another."""
        return Moments(*(values.index_select(1, numbers).flatten(0, 1) for values in self))


def halved(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, 2h, 2w) → (N, 3, h, w): each pixel is the mean of four."""
    return F.avg_pool2d(pictures, 2)


def split_names(assets: Path, names: list[str], split: str) -> list[int]:
    """Indices of the identities of a split ("train" or "held_out") in `figure/split.json`.

    Raises:
        ValueError: there is none.
    """
    held_out = set(json.loads(SPLIT_FILE.read_text(encoding="utf-8"))["held_out"])
    wanted = [i for i, name in enumerate(names) if (name in held_out) == (split == "held_out")]
    if not wanted:
        raise ValueError(f"{assets}: no identity of the split {split!r}")
    return wanted


class Material:
    """Draws batches. All randomness comes from one generator on the device.

    Args:
        figure: `identities.npz` of `demo.factory.figure.make_identities`.
        speech: `speech.npz` of `demo.factory.speech.make_speech`, or None where only pictures are wanted.
        device: where everything is made.
        seed: of the generator.
        tracks: number of pose tracks to draw at the start. Each takes 57 MB of the device's memory.
        poses: the pose tracks to use. None: new ones are drawn.
        unknown_people: take identities of the held-out split, to measure with and never to train.
        unknown_voices: take voices of the held-out split, likewise.
        fine: draw at `FINE_SIZE`. Pictures of `SIZE` are then means of four pixels of those.
        twins: clips come in pairs, the first with the second and so on, and so do pictures. Of a share
            `TWINS` of them, the second is the first with other hands: person, colours, sound, mouth and life
            are the same. A bank of poses that is given must have been drawn with twins, too.

    Attributes:
        together: clips or pictures that are learned from in one step, with the same noise. Twins are two.
    """

    def __init__(
        self,
        figure: Path,
        speech: Path | None,
        device: torch.device,
        *,
        seed: int,
        tracks: int = 96,
        poses: Poses | None = None,
        unknown_people: bool = False,
        unknown_voices: bool = False,
        fine: bool = False,
        twins: bool = False,
    ) -> None:
        self.device = device
        self.twins = twins
        self.together = 2 if twins else 1
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.fine = fine
        self.renderer = Renderer(figure, size=FINE_SIZE if fine else SIZE, device=device)
        people = split_names(figure, self.renderer.names, "held_out" if unknown_people else "train")
        if not unknown_people:
            # Most will see one of the bundled avatars, so they are drawn more often than the others.
            people += list(range(BUNDLED)) * BUNDLED_AGAIN
        self.identities = torch.tensor(people, device=device)
        self._recordings: dict[int, CapturedRenderer] = {}
        self._pool: Any = None
        self.poses = poses or Poses.draw(tracks, device, twins=twins)
        self.voices = None if speech is None else Voices(speech, self.generator, held_out=unknown_voices)

    def conditions(self, track: Tensor, frame: Tensor, pressed: Tensor, twin: Tensor) -> Moments:
        """Moments (B, F) of clips.

        Args:
            track: (B,) index in the pose bank.
            frame: (B, F) frame of the pose loop.
            pressed: (B, F) how far the lips are pressed together.
            twin: (B,) as in `ClipBatch`.
        """
        place = track[:, None], frame
        twins = twin[:, None].expand(frame.shape)
        return Moments(self.poses.hands[place], self.poses.life[place][..., HEAD], pressed, twins)

    def _pair(self, count: int) -> tuple[Tensor, Tensor]:
        """Whose conditions each of `count` examples takes, and whether its pair are twins, both (count,)."""
        own = torch.arange(count, device=self.device)
        if not self.twins:
            return own, torch.zeros(count, dtype=torch.bool, device=self.device)
        twin = (self.uniform(count // 2) < TWINS).repeat_interleave(2)
        return own - own % 2 * twin, twin

    def integers(self, high: int, *shape: int) -> Tensor:
        """Random whole numbers from 0 to `high` - 1."""
        return torch.randint(high, shape, device=self.device, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Random numbers in 0..1."""
        return torch.rand(shape, device=self.device, generator=self.generator)

    def moments(self, count: int) -> tuple[Tensor, Tensor]:
        """Tracks and frames (count,) of the pose bank. Those with rare hands are drawn more often."""
        weights = self.poses.weights
        drawn = torch.multinomial(weights.flatten(), count, replacement=True, generator=self.generator)
        return drawn // weights.shape[1], drawn % weights.shape[1]

    def random_mouths(self, count: int) -> Tensor:
        """Mouths (count, 6) of every shape that a mouth can take, also those that are rare in speech."""
        values = self.uniform(count, len(MOUTH_COLUMNS))
        values[:, MOUTH_COLUMNS.index("mouth_width")] = values[:, MOUTH_COLUMNS.index("mouth_width")] * 2 - 1
        # Most shapes use few parameters at once; a fifth of the mouths are shut.
        return values * (self.uniform(count, len(MOUTH_COLUMNS)) < 0.6) * (self.uniform(count, 1) < 0.8)

    def pictures(self, count: int) -> Tensor:
        """Pictures (count, 3, SIZE, SIZE) in 0..1 of unrelated moments, some recoloured, for the VAE."""
        return self._usual(self.drawings(count)[0])

    @torch.no_grad()
    def drawings(self, count: int) -> tuple[Tensor, Moments]:
        """Pictures as those of `pictures`, of the size that is drawn, and their moments."""
        identity = self.identities[self.integers(len(self.identities), count)]
        track, frame = self.integers(len(self.poses.life), count), self.integers(LOOP, count)
        life, hands = self.poses.life[track, frame], self.poses.hands[self.moments(count)]
        mouths = self.random_mouths(count)
        matrix, offset = color_matrices(count, self.generator)
        like, twin = self._pair(count)
        identity, life, mouths, matrix, offset = (x[like] for x in (identity, life, mouths, matrix, offset))
        drawn = self._draw(identity, figure_state(mouths, life, hands))
        return recolor(drawn, matrix, offset), Moments(hands, life[:, HEAD], mouths[:, PRESSED], twin)

    def _draw(self, identity: Tensor, state: FigureState) -> Tensor:
        """Pictures of states. On CUDA a recording draws them, and the next call overwrites them."""
        if self.device.type != "cuda":
            return self.renderer.render(identity, state)
        count = len(identity)
        if count not in self._recordings:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            self._recordings[count] = CapturedRenderer(self.renderer, count, self._pool)
        return self._recordings[count].render(identity, state)

    @torch.no_grad()
    def clips(
        self,
        count: int,
        *,
        fps: int = FPS,
        frames: int = 12,
        only: range | None = None,
        plain: bool = False,
    ) -> ClipBatch:
        """Clips, and the frame before each.

        Args:
            count: number of clips.
            fps: frames a second.
            frames: frames of a clip.
            only: the frames of each clip to draw. None: all.
            plain: draw clips as spoken and drawn, without silence, other sounds, paces and colours, and with
                rare hands no more often than they are.

        Raises:
            ValueError: this material has no speech.
        """
        if self.voices is None:
            raise ValueError("clips need speech, and this material was made without")
        device = self.device
        picked = only or range(frames)
        when = torch.tensor([-1, *picked], device=device)  # the frame before the clip comes first
        pcm, mouth = self.voices.windows(count, when, fps=fps, plain=plain)
        if plain:
            track, middle = self.integers(len(self.poses.life), count), self.integers(LOOP, count)
        else:
            track, middle = self.moments(count)
        like, twin = self._pair(count)
        pcm, mouth, middle = pcm[like], mouth[like], middle[like]
        # The other track of the pair has the same life.
        track = track[like] ^ (like != torch.arange(count, device=device)).long()
        frame = (middle[:, None] + (when - frames // 2) * (FPS // fps)) % LOOP
        life, hands = self.poses.life[track[:, None], frame], self.poses.hands[track[:, None], frame]
        identity = self.identities[self.integers(len(self.identities), count)][like]
        state = figure_state(mouth.flatten(0, 1), life.flatten(0, 1), hands.flatten(0, 1))
        colors = color_matrices(count, self.generator, 0.0 if plain else RECOLORED)
        matrix, offset = (values[like] for values in colors)
        neutral = self._draw(identity, FigureState.neutral(count, device))
        reference = self._usual(recolor(neutral, matrix, offset))
        matrix, offset = (x.repeat_interleave(len(when), 0) for x in (matrix, offset))
        drawn = recolor(self._draw(identity.repeat_interleave(len(when)), state), matrix, offset)
        return ClipBatch(
            pictures=self._usual(drawn).unflatten(0, (count, len(when))),
            reference=reference,
            poses=self.poses.maps[track[:, None], frame[:, 1:]],
            pcm=pcm,
            mouth=mouth,
            identity=identity,
            track=track,
            frame=frame[:, 1:],
            twin=twin,
            fine=drawn.unflatten(0, (count, len(when)))[:, 1:] if self.fine else None,
        )

    def _usual(self, drawn: Tensor) -> Tensor:
        """Pictures of `SIZE`, whatever size is drawn."""
        return halved(drawn) if self.fine else drawn
