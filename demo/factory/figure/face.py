"""The drawn face: skin, nose, eyes with lids, brows and the speaking mouth.

All lengths are in the view's units (see `demo.factory.figure.layers`). x and y are head coordinates: the
picture's with the head's motion undone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.factory.figure.sdf import col, coverage, paint, smoothstep, superellipse
from demo.factory.figure.state import FigureState

MOUTH_X, MOUTH_Y = 132.0, 153.0
EYES = (106.0, 158.0)
EYE_Y = 113.0
#: Farthest opening of the mouth, lips not included.
MOUTH_HEIGHT = 25.0
#: By how much the chin follows the widest opening.
JAW = 4.5
CAVITY = (0.21, 0.055, 0.07)
TONGUE = (0.90, 0.36, 0.40)
TEETH = (0.985, 0.98, 0.965)


@dataclass(frozen=True)
class Palette:
    """Colours (3,) that every figure shares, kept on the device.

    Made once, because a constant made while drawing is a copy that the host waits for, and no CUDA graph can
    hold it.
    """

    white: Tensor
    cavity: Tensor
    tongue: Tensor
    teeth: Tensor
    rose: Tensor
    natural_lip: Tensor
    lip_line: Tensor
    blush: Tensor
    lash: Tensor
    brow: Tensor

    @classmethod
    def make(cls, device: torch.device) -> Palette:
        colors = {
            "white": (1.0, 1.0, 1.0),
            "cavity": CAVITY,
            "tongue": TONGUE,
            "teeth": TEETH,
            "rose": (0.80, 0.33, 0.36),
            "natural_lip": (0.86, 0.70, 0.68),
            "lip_line": (0.66, 0.54, 0.55),
            "blush": (0.95, 0.38, 0.36),
            "lash": (0.13, 0.09, 0.09),
            "brow": (0.16, 0.11, 0.10),
        }
        return cls(**{name: torch.tensor(color, device=device) for name, color in colors.items()})


@dataclass
class Appearance:
    """Colours (B, 3) and proportions (B,) of each identity in the batch."""

    palette: Palette
    skin: Tensor
    hair: Tensor
    iris: Tensor
    lip: Tensor
    line: Tensor
    proportions: dict[str, Tensor]


def make_appearance(
    palette: Palette, skin: Tensor, hair: Tensor, iris: Tensor, proportions: dict[str, Tensor]
) -> Appearance:
    """Derive lip and line colours from the skin: (B, 3) colours in 0..1."""
    amount = (0.15 + 0.55 * proportions["lip_rose"])[:, None]
    # On dark skin a full rose would glow: it follows the skin's lightness.
    lightness = skin.mean(1, keepdim=True)
    lip = torch.lerp(skin * palette.natural_lip, palette.rose * (0.80 + 0.26 * lightness), amount)
    return Appearance(palette, skin, hair, iris, lip, lip * palette.lip_line, proportions)


def jaw_drop(state: FigureState) -> Tensor:
    """How far the chin is down (B,), in units."""
    opening = state.mouth_open.clamp(0.0, 1.0) * (1.0 - state.lips_pressed.clamp(0.0, 1.0))
    return JAW * opening


def draw_skin(
    canvas: Tensor, x: Tensor, y: Tensor, scale: float, look: Appearance, state: FigureState
) -> Tensor:
    """Face, ears, blush and nose."""
    head_y = y - torch.minimum(y.clamp_min(92.0), 130.0 + col(jaw_drop(state)))
    head = torch.hypot(x - 132.0, head_y) - 56.0
    ear_y = y - y.clamp(110.0, 124.0)
    ears = torch.hypot((x - 132.0).abs() - 54.0, ear_y) - 12.0
    face = coverage(torch.minimum(head, ears) * scale)
    canvas = paint(canvas, look.skin, face)
    inner_ear = (torch.hypot(((x - 132.0).abs() - 60.5) / 0.5, (y - 117.0) * 0.9) - 6.0) * 0.5
    canvas = paint(canvas, look.skin * 0.86, coverage(inner_ear * scale) * coverage((1.5 - head) * scale))
    blush = torch.exp(-(((x - 132.0).abs() - 37.0) ** 2 / 110.0 + (y - 141.0) ** 2 / 60.0))
    canvas = paint(canvas, look.palette.blush, blush * face * 0.30 * col(look.proportions["blush"]))
    nose = torch.maximum(torch.hypot((x - 132.0) / 1.5, y - 130.0) - 8.0, 130.0 - y)
    return paint(canvas, look.skin * 0.0, coverage(nose * scale) * 0.16)


def draw_eyes(
    canvas: Tensor, x: Tensor, y: Tensor, scale: float, look: Appearance, state: FigureState
) -> Tensor:
    """Eyes that look (gaze) and blink (eyelid)."""
    shut = col(state.eyelid.clamp(0.0, 1.0))
    size = col(look.proportions["eye_size"])
    white = look.proportions["eye_white"]
    lash_color = torch.lerp(look.hair * 0.4, look.palette.lash, 0.75)
    rx, ry = 11.2 * size, 9.0 * size
    for eye in EYES:
        side = 1.0 if eye > MOUTH_X else -1.0
        ex = x - eye
        u = (ex / rx).clamp(-1.0, 1.0)
        arc = 1.0 - u * u
        # As the eye shuts, its middle line sinks into the curve of closed lashes.
        middle = EYE_Y + shut * (1.5 + 3.0 * arc)
        up, down = ry * (1.0 - shut), ry * (1.0 - shut)
        opening = superellipse(ex, y - middle, rx, up, down, 2.2)
        inside = coverage(opening * scale) * (1.0 - smoothstep(0.82, 0.97, shut))
        canvas = paint(canvas, look.palette.white, inside * col(white))
        shade = smoothstep(-0.35, -1.0, (y - middle) / ry) * 0.16
        canvas = paint(canvas, look.skin * 0.5, inside * shade * col(white))
        ix = ex - 3.6 * size * col(state.gaze[:, 0]) + 0.6 * side * col(white)
        iy = y - EYE_Y - 3.0 * size * col(state.gaze[:, 1]) + 0.5
        reach = torch.hypot(ix, iy)
        canvas = paint(canvas, look.iris, inside * coverage((reach - 6.9 * size) * scale))
        canvas = paint(canvas, look.iris * 0.35, inside * coverage((reach - 3.6 * size) * scale))
        glint = torch.hypot(ix - 2.0, iy + 2.3) - 1.9
        canvas = paint(canvas, look.palette.white, inside * coverage(glint * scale) * 0.92)
        canvas = _lashes(canvas, (ex, y, middle, up, rx), side, scale, look, shut, lash_color)
    return canvas


def _lashes(
    canvas: Tensor,
    eye: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    side: float,
    scale: float,
    look: Appearance,
    shut: Tensor,
    color: Tensor,
) -> Tensor:
    """The upper lid's line along the eye's upper edge. On dot eyes it shows only while they shut."""
    ex, y, middle, up, rx = eye
    u = (ex / rx).clamp(-1.0, 1.0)
    round_ = (1.0 - u.abs() ** 2.2).clamp_min(1e-3) ** (1.0 / 2.2)
    slope = (up / rx * (u.abs() / round_).clamp(max=2.5)).clamp(max=2.5)
    dy = (y - (middle - up * round_)) / torch.sqrt(1.0 + slope * slope)
    lashes = col(look.proportions["lashes"])
    thick = 1.15 + 0.45 * shut + 0.35 * lashes * (0.4 + u * side).clamp_min(0.0)
    line = torch.hypot(dy, (ex.abs() - rx).clamp_min(0.0)) - thick
    # A flick at the outer corner.
    fx, fy = ex * side - rx, y - middle + 0.55 * up
    flick = torch.hypot(fx - fx.clamp(-1.0, 2.6), fy + 0.75 * fx.clamp(-1.0, 2.6)) - 1.0
    flick = torch.where(lashes > 0, flick, torch.full_like(flick, 9.0))
    seen = torch.maximum(col(look.proportions["eye_white"]), smoothstep(0.25, 0.8, shut))
    canvas = paint(canvas, color, coverage(line * scale) * seen)
    return paint(canvas, color, coverage(flick * scale) * seen * lashes)


def draw_brows(
    canvas: Tensor, x: Tensor, y: Tensor, scale: float, look: Appearance, state: FigureState
) -> Tensor:
    """Brows in a darkened hair colour, raised or lowered by `brow`."""
    lift = col(state.brow)
    color = torch.lerp(look.hair * 0.62, look.palette.brow, 0.35)
    arch = col(look.proportions["brow_arch"])
    thick = col(look.proportions["brow_thickness"])
    for center in (104.5, 159.5):
        side = 1.0 if center > MOUTH_X else -1.0
        bx = (x - center) * side
        u = (bx / 12.5).clamp(-1.0, 1.0)
        curve = 95.5 - 4.5 * lift.clamp_min(-0.8) - arch * (3.8 * (1.0 - (u - 0.05) ** 2))
        curve = curve + u * (1.5 + 1.6 * lift.clamp(max=0.0))
        dy = (y - curve) / torch.sqrt(1.0 + (0.6 * arch * (u - 0.05)) ** 2)
        width = (2.15 - 0.85 * u.clamp_min(0.0) - 0.35 * (-u).clamp_min(0.0)) * thick
        line = torch.hypot(dy, (bx.abs() - 12.5).clamp_min(0.0)) - width
        canvas = paint(canvas, color, coverage(line * scale) * 0.92)
    return canvas


@dataclass
class MouthShape:
    """The mouth's outline. Each value is (B, 1, 1) in units.

    Attributes:
        half_width: of the opening.
        up: height of the opening above the middle line.
        down: height of the opening below it.
        bend: by how much a smile lifts the corners.
        center: y of the middle line.
        upper_lip: thickness.
        lower_lip: thickness.
        exponent: of the superellipse, without a unit.
    """

    half_width: Tensor
    up: Tensor
    down: Tensor
    bend: Tensor
    center: Tensor
    upper_lip: Tensor
    lower_lip: Tensor
    exponent: Tensor


def mouth_shape(look: Appearance, state: FigureState) -> MouthShape:
    """Turn the articulation parameters into an outline."""
    pressed = state.lips_pressed.clamp(0.0, 1.0)
    round_ = state.mouth_round.clamp(0.0, 1.0)
    wide = state.mouth_width.clamp(-1.0, 1.0)
    teeth = state.teeth.clamp(0.0, 1.0) * (1.0 - pressed)
    opening = state.mouth_open.clamp(0.0, 1.0) * (1.0 - pressed)
    spread = 18.0 + 5.0 * wide.clamp_min(0.0) + 4.0 * wide.clamp(max=0.0)
    spread = spread * (1.0 - 0.10 * opening * (1.0 - wide.clamp_min(0.0))) + 0.8 * pressed
    half_width = (
        torch.lerp(spread, 8.2 + 3.6 * opening, round_)
        * (1.0 - 0.16 * teeth)
        * look.proportions["mouth_width"]
    )
    height = opening * (MOUTH_HEIGHT - 1.5 * round_ - 4.0 * wide.clamp_min(0.0))
    height = torch.lerp(height, torch.full_like(height, 5.6), teeth)
    up = height * (0.20 + 0.26 * round_)
    full = look.proportions["lip_fullness"]
    thin = 1.0 - 0.72 * pressed
    return MouthShape(
        half_width=col(half_width),
        up=col(up),
        down=col(height - up),
        bend=col(
            look.proportions["smile"]
            * 3.4
            * (1.0 - 0.9 * round_)
            * (1.0 - 0.45 * opening)
            * (1 - 0.6 * pressed)
        ),
        center=col(MOUTH_Y - 1.2 * opening + 0.8 * round_),
        upper_lip=col((2.3 + 0.7 * round_) * full * thin),
        lower_lip=col((3.5 + 0.5 * round_) * full * thin * (1.0 - 0.35 * teeth)),
        exponent=col(2.35 - 0.3 * round_),
    )


def draw_mouth(
    canvas: Tensor, x: Tensor, y: Tensor, scale: float, look: Appearance, state: FigureState
) -> Tensor:
    """Lips, cavity, tongue, teeth and, when shut, the line between the lips."""
    shape = mouth_shape(look, state)
    mx = x - MOUTH_X
    u = (mx / shape.half_width).clamp(-1.25, 1.25)
    my = y - shape.center - shape.bend * (0.6 - u * u)
    height = shape.up + shape.down
    lips = superellipse(
        mx,
        my,
        shape.half_width + 1.7,
        shape.up + shape.upper_lip,
        shape.down + shape.lower_lip,
        shape.exponent,
    )
    # A cupid's bow: the upper lip dips in the middle.
    bow = 0.9 * torch.exp(-((mx / 3.2) ** 2)) * (my < 0) * smoothstep(6.0, 1.0, height)
    canvas = paint(canvas, look.lip, coverage((lips + bow) * scale))
    cavity = superellipse(mx, my, shape.half_width, shape.up, shape.down, shape.exponent)
    inside = coverage(cavity * scale) * smoothstep(0.3, 1.6, height)
    canvas = paint(canvas, look.palette.cavity, inside)
    canvas = _inside_mouth(canvas, mx, my, scale, look.palette, shape, state, inside)
    width = 1.05 + 0.35 * col(state.lips_pressed)
    line = torch.hypot(my, (mx.abs() - shape.half_width + 0.4).clamp_min(0.0)) - width
    return paint(canvas, look.line, coverage(line * scale) * (1.0 - smoothstep(0.6, 2.4, height)))


def _inside_mouth(
    canvas: Tensor,
    mx: Tensor,
    my: Tensor,
    scale: float,
    palette: Palette,
    shape: MouthShape,
    state: FigureState,
    inside: Tensor,
) -> Tensor:
    """Tongue and teeth, seen through the opening."""
    height = shape.up + shape.down
    round_ = col(state.mouth_round.clamp(0.0, 1.0))
    wide = col(state.mouth_width.clamp(0.0, 1.0))
    raised = col(state.tongue.clamp(0.0, 1.0))
    bite = col(state.teeth.clamp(0.0, 1.0) * (1.0 - state.lips_pressed.clamp(0.0, 1.0)))
    tongue_y = shape.down + 0.02 * height - raised * 0.42 * height
    tongue = superellipse(
        mx, my - tongue_y, shape.half_width * (0.66 - 0.12 * raised), 0.36 * height, height, 2.0
    )
    tongue_seen = torch.maximum(
        smoothstep(7.0, 11.0, height) * (1.0 - 0.8 * round_), raised * smoothstep(2.0, 4.0, height)
    )
    canvas = paint(canvas, palette.tongue, inside * coverage(tongue * scale) * tongue_seen)
    upper = (height * (0.34 + 0.10 * wide)).clamp(max=6.2)
    upper_edge = my + shape.up - upper - 0.6 * (1.0 - (mx / shape.half_width) ** 2)
    seen = smoothstep(1.8, 4.5, height) * (1.0 - 0.9 * smoothstep(0.35, 0.8, round_)) * (1.0 - bite)
    canvas = paint(canvas, palette.teeth, inside * coverage(upper_edge * scale) * seen)
    lower_edge = shape.down - (0.24 * height).clamp(max=3.6) - my
    seen = smoothstep(4.0, 7.0, height) * wide * (1.0 - bite)
    canvas = paint(canvas, palette.teeth * 0.95, inside * coverage(lower_edge * scale) * seen)
    # f, v: a row of upper teeth resting on the lower lip.
    row = superellipse(
        mx, my + shape.up * 0.2, shape.half_width * 0.88, shape.up + 0.2, shape.down + 0.7, 3.6
    )
    return paint(canvas, palette.teeth, coverage(row * scale) * smoothstep(0.2, 0.7, bite))
