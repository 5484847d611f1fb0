"""Gesturing hands: seamless loops of two hands' key points between rest and a few open gestures."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demo.factory.figure.rest import HAND_LENGTH, HAND_TEMPLATE, REST_ANGLE, REST_WRIST, place_hand
from demo.factory.motion.life import FPS, LOOP_FRAMES

FINGERS = 5
MARGIN = 0.015  # key points stay this far inside the picture (rest alone may come closer)


@dataclass(frozen=True)
class HandPose:
    """One hand, written as the person's left one, on the right of the picture. The right hand is its mirror.

    Attributes:
        wrist: position (x, y) in fractions of the picture.
        angle: radians that the fingers lean inwards from upright.
        length: length of the stretched hand in fractions of the picture.
        curl: 0 straight to 1 fist, from thumb to little finger.
        spread: angle between the fingers, 1 for a relaxed hand.
    """

    wrist: tuple[float, float] = REST_WRIST
    angle: float = REST_ANGLE
    length: float = HAND_LENGTH
    curl: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    spread: float = 1.0

    def vector(self) -> NDArray[np.float64]:
        """The pose as 10 numbers, for interpolation."""
        return np.array([*self.wrist, self.angle, self.length, *self.curl, self.spread])


REST = HandPose()


def hand_points(vector: NDArray[np.float64], *, left: bool) -> NDArray[np.float32]:
    """Key points (21, 2), in fractions of the picture, of a `HandPose`'s vector (10,)."""
    x, y, angle, length = (float(value) for value in vector[:4])
    template = _bend(vector[4:9], float(vector[9]))
    return place_hand((x if left else 1.0 - x, y), angle, length, left=left, template=template)


def _bend(curl: NDArray[np.float64], spread: float) -> NDArray[np.float32]:
    """The hand template with fingers curled towards the palm and spread.

    From the front a curled finger looks shortened.
    """
    points = HAND_TEMPLATE.astype(np.float64).copy()
    for finger in range(FINGERS):
        base = 1 + 4 * finger
        turn = (spread - 1.0) * math.radians(9.0) * (2 - finger)  # away from the middle finger
        cos, sin = math.cos(turn), math.sin(turn)
        bones = np.diff(HAND_TEMPLATE[base : base + 4].astype(np.float64), axis=0)
        joint = points[base].copy()
        for number, bone in enumerate(bones):
            # Each joint bends on. A bone past a right angle points back to the palm, hence the negative
            # cosine.
            bent = math.cos(min(1.0, max(0.0, float(curl[finger]))) * math.radians(62.0) * (number + 1))
            joint = joint + np.array([cos * bone[0] - sin * bone[1], sin * bone[0] + cos * bone[1]]) * bent
            points[base + 1 + number] = joint
    bent_hand: NDArray[np.float32] = points.astype(np.float32)
    return bent_hand


# --- gestures: each gives the poses to pass through, with seconds from its start ----------------------------
_OPEN, _SOFT, _FIST = (0.0,) * 5, (0.1, 0.2, 0.25, 0.3, 0.35), (0.55, 0.85, 0.9, 0.9, 0.85)
_POINT, _TWO, _PINCH = (0.6, 0.0, 0.9, 0.9, 0.9), (0.6, 0.0, 0.0, 0.9, 0.9), (0.35, 0.5, 0.25, 0.15, 0.05)
_SHAPES = {"open": _OPEN, "soft": _SOFT, "fist": _FIST, "point": _POINT, "two": _TWO, "pinch": _PINCH}

Key = tuple[float, HandPose]


def _place(rng: np.random.Generator, height: float, shape: str, angle: float) -> HandPose:
    """A hand held up: height 0 (just above rest) .. 1 (beside the shoulder)."""
    x = 0.69 + 0.09 * height + rng.uniform(-0.03, 0.03)
    y = 0.91 - 0.16 * height + rng.uniform(-0.02, 0.02)
    length = HAND_LENGTH * rng.uniform(0.94, 1.04)
    return HandPose(
        (x, y), math.radians(angle + rng.uniform(-8, 8)), length, _SHAPES[shape], rng.uniform(0.9, 1.6)
    )


def _beat(rng: np.random.Generator) -> list[Key]:
    """Short strokes down and back, two to four of them."""
    up = _place(rng, rng.uniform(0.2, 0.7), str(rng.choice(["soft", "open", "pinch"])), rng.uniform(5, 40))
    drop = rng.uniform(0.025, 0.05)
    down = replace(up, wrist=(up.wrist[0] - 0.015, up.wrist[1] + drop), angle=up.angle + math.radians(8))
    keys, now = [(0.45, up)], 0.45
    for _ in range(int(rng.integers(2, 5))):
        keys += [(now + 0.22, down), (now + 0.52, up)]
        now += 0.52
    return keys


def _raise(rng: np.random.Generator) -> list[Key]:
    """An open palm lifted, held with a slow sway, then left."""
    high = _place(rng, rng.uniform(0.7, 1.0), "open", rng.uniform(-20, 10))
    sway = replace(high, angle=high.angle + math.radians(rng.uniform(-14, 14)), spread=1.5)
    return [(0.6, high), (1.2, sway), (1.7, high)]


def _offer(rng: np.random.Generator) -> list[Key]:
    """A palm opened outwards at chest height."""
    near = _place(rng, 0.3, "soft", 40)
    wrist = (min(0.82, near.wrist[0] + 0.09), near.wrist[1] - 0.02)
    out = replace(near, wrist=wrist, angle=math.radians(-30), curl=_OPEN, spread=1.4)
    return [(0.4, near), (0.85, out), (1.5, replace(out, wrist=(out.wrist[0], out.wrist[1] - 0.012)))]


def _point(rng: np.random.Generator) -> list[Key]:
    """The index (sometimes two fingers) up, two small nods."""
    up = _place(rng, rng.uniform(0.5, 0.9), str(rng.choice(["point", "point", "two"])), rng.uniform(-10, 20))
    nod = replace(up, angle=up.angle + math.radians(14), wrist=(up.wrist[0], up.wrist[1] + 0.02))
    return [(0.55, up), (0.85, nod), (1.15, up), (1.4, nod), (1.7, up)]


def _close(rng: np.random.Generator) -> list[Key]:
    """A loose fist that opens."""
    fist = _place(rng, rng.uniform(0.3, 0.7), "fist", rng.uniform(0, 30))
    return [
        (0.5, fist),
        (1.0, replace(fist, curl=_OPEN, spread=1.5, wrist=(fist.wrist[0] + 0.02, fist.wrist[1]))),
    ]


def _settle(rng: np.random.Generator) -> list[Key]:
    """A small shift near rest."""
    wrist = (REST_WRIST[0] + rng.uniform(-0.01, 0.03), REST_WRIST[1] - rng.uniform(0, 0.03))
    shift = replace(REST, wrist=wrist, angle=REST_ANGLE - math.radians(rng.uniform(0, 12)), curl=_SOFT)
    return [(0.5, shift), (1.1, shift)]


GESTURES = {
    "beat": _beat,
    "raise": _raise,
    "offer": _offer,
    "point": _point,
    "close": _close,
    "settle": _settle,
}


def hand_track(
    seed: int, frames: int = LOOP_FRAMES, fps: float = FPS, gestures: tuple[str, ...] = tuple(GESTURES)
) -> NDArray[np.float32]:
    """A loop of gestures that starts and ends at rest.

    Args:
        seed: number of the loop.
        frames: length of the loop.
        fps: frames a second.
        gestures: names of `GESTURES` to choose from.

    Returns:
        Key points, float32 (frames, 2, 21, 2), in fractions of the picture. Hand 0 is the person's left.
    """
    rng = np.random.default_rng([seed, frames, 7])
    duration = frames / fps
    plans: list[list[Key]] = [[(0.0, REST)], [(0.0, REST)]]
    now = rng.uniform(0.4, 0.8)
    while True:
        name = str(rng.choice(gestures))
        both = rng.uniform() < (0.5 if name != "point" else 0.15)
        first = int(rng.integers(0, 2))
        state = rng.bit_generator.state
        length = 0.0
        chosen = (first, 1 - first) if both else (first,)
        for order, hand in enumerate(chosen):
            rng.bit_generator.state = state  # both hands make the same gesture, the second a little later
            keys = GESTURES[name](rng)
            delay = 0.06 * order
            if now + keys[-1][0] + delay + 0.9 > duration:
                length = math.inf
                break
            # Stay where the hand was until the gesture starts.
            plans[hand].append((now + delay, plans[hand][-1][1]))
            plans[hand] += [(now + delay + at, pose) for at, pose in keys]
            length = max(length, keys[-1][0] + delay)
        if length == math.inf:
            break
        stays_up = rng.uniform() < 0.35
        for hand in range(2):
            if not (hand in chosen and stays_up):
                back = max(plans[hand][-1][0], now) + 0.6
                if plans[hand][-1][1] is not REST:
                    plans[hand].append((back, REST))
        now = max(plan[-1][0] for plan in plans) + rng.uniform(0.1, 0.5)
    for plan in plans:
        _end_at_rest(plan, duration)
    return _points(plans, frames, fps, rng)


def _points(plans: list[list[Key]], frames: int, fps: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Key points (frames, 2, 21, 2) of both hands' plans, with a slow unrest."""
    times = np.arange(frames) / fps
    tracks = [_interpolate(plan, times) + _tremble(rng, frames) for plan in plans]
    points = np.stack(
        [np.stack([hand_points(v, left=hand == 0) for v in tracks[hand]]) for hand in range(2)], axis=1
    )
    return _keep_inside(points)


def _end_at_rest(plan: list[Key], duration: float) -> None:
    """Lead a hand's plan back to rest before the loop ends."""
    if plan[-1][1] is not REST:
        plan.append((min(duration - 0.05, plan[-1][0] + 0.7), REST))
    plan.append((duration, REST))


def _interpolate(plan: list[Key], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimum-jerk moves (frames, 10) from key to key, at rest in each (Flash & Hogan 1985)."""
    at = np.array([key[0] for key in plan])
    poses = np.stack([key[1].vector() for key in plan])
    index = np.clip(np.searchsorted(at, times, side="right") - 1, 0, len(at) - 2)
    x = np.clip((times - at[index]) / np.maximum(at[index + 1] - at[index], 1e-6), 0, 1)[:, None]
    blend = x**3 * (10 - 15 * x + 6 * x * x)
    moved: NDArray[np.float64] = poses[index] * (1 - blend) + poses[index + 1] * blend
    return moved


def _tremble(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """A slow periodic unrest (frames, 10), zero in frame 0, so that a held hand is alive."""
    phase = np.arange(frames) / frames
    unrest = np.zeros((frames, 10))
    for column, bound in ((0, 0.0015), (1, 0.0015), (2, 0.015)):
        for harmonic in (3, 5, 8):
            shift = rng.uniform()
            unrest[:, column] += bound * (
                np.sin(2 * np.pi * (harmonic * phase + shift)) - math.sin(2 * np.pi * shift)
            )
    return unrest / 2


def _keep_inside(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift a whole hand by as much as any of its key points leaves the picture."""
    low = np.maximum(0.0, MARGIN - points.min(axis=2, keepdims=True))
    high = np.minimum(0.0, 1.0 - MARGIN - points.max(axis=2, keepdims=True))
    shifted: NDArray[np.float32] = (points + low + high).astype(np.float32)
    return shifted
