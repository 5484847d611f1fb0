"""Draw figures: `Renderer(...).render(identity, state)` is the truth that the bundled model learns.

Order of layers: background, hair behind, body, face, eyes, brows, hair and glasses, mouth, arms, hands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.factory.figure import face, hands
from demo.factory.figure.face import Appearance, Palette, make_appearance
from demo.factory.figure.sdf import col, smoothstep
from demo.factory.figure.state import FigureState

DEFAULT_ASSETS = Path(__file__).resolve().parent / "build" / "identities.npz"
#: Where the head turns, in the view's units.
PIVOT = (132.0, 196.0)
#: Part of the view that the drawn face can reach, with the head's motion: x from, x to, y from, y to.
FACE_WINDOW = (54.0, 210.0, 18.0, 212.0)
#: Arms and hands are drawn below this fraction of the picture's height.
ARM_TOP = 0.30


class Renderer:
    """Draws batches of figures.

    Args:
        assets: file made by `python -m demo.factory.figure.make_identities`.
        size: side of the pictures in pixels.
        device: where to keep the layers and draw.
        identities: names or indices to keep, in the order of their new indices. None: all.

    Raises:
        FileNotFoundError: the assets have not been built.
    """

    def __init__(
        self,
        assets: str | Path = DEFAULT_ASSETS,
        size: int = 256,
        device: torch.device | str = "cpu",
        identities: list[str] | list[int] | None = None,
    ) -> None:
        if not Path(assets).is_file():
            command = "python -m demo.factory.figure.make_identities"
            raise FileNotFoundError(f"{assets} is missing: build it with `{command}`")
        self.size = size
        self.device = torch.device(device)
        with np.load(assets) as data:
            all_names = [str(name) for name in data["names"]]
            keep = _indices(all_names, identities)
            self.names = [all_names[i] for i in keep]
            self._load(data, keep)
        self.palette = Palette.make(self.device)
        self._outline_tint = torch.tensor(hands.OUTLINE_TINT, device=self.device)
        self._grid()

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The index of an identity by name."""
        return self.names.index(name)

    def _load(self, data: dict[str, np.ndarray], keep: list[int]) -> None:
        self.view_x, self.view_y, self.view = (float(v) for v in data["view"])
        self.scale = self.size / self.view  # pixels per unit

        def layer(name: str, rows: list[int]) -> Tensor:
            # Turned on the device: thousands of people are some gigabytes.
            return torch.from_numpy(data[name][rows]).to(self.device).permute(0, 3, 1, 2).contiguous()

        self.body = layer("body", keep)
        self.front = layer("front", keep)
        stored = {int(identity): row for row, identity in enumerate(data["behind_of"])}
        self.behind = layer("behind", [stored[i] for i in keep if i in stored])
        rows = [-1] * len(keep)
        for count, position in enumerate(p for p, i in enumerate(keep) if i in stored):
            rows[position] = count
        self.behind_row = torch.tensor(rows, device=self.device)
        self.colors = {
            name: torch.from_numpy(data[name][keep]).float().div(255.0).to(self.device)
            for name in ("skin", "hair", "clothes", "background", "iris")
        }
        proportions = torch.from_numpy(data["proportions"][keep]).to(self.device)
        self.proportions = {str(name): proportions[:, i] for i, name in enumerate(data["proportion_names"])}

    def _grid(self) -> None:
        centers = torch.arange(self.size, device=self.device, dtype=torch.float32) + 0.5
        self._patch_steps = torch.arange(int(hands.PATCH * self.size), device=self.device)
        self.py, self.px = torch.meshgrid(centers, centers, indexing="ij")
        self.ux = self.px / self.scale + self.view_x
        self.uy = self.py / self.scale + self.view_y
        x0, x1, y0, y1 = FACE_WINDOW
        self.face_columns = slice(int((x0 - self.view_x) * self.scale), int((x1 - self.view_x) * self.scale))
        self.face_rows = slice(int((y0 - self.view_y) * self.scale), int((y1 - self.view_y) * self.scale))

    def appearance(self, identity: Tensor) -> Appearance:
        """Colours and proportions of identities (B,)."""
        return make_appearance(
            self.palette,
            self.colors["skin"][identity],
            self.colors["hair"][identity],
            self.colors["iris"][identity],
            {name: value[identity] for name, value in self.proportions.items()},
        )

    @torch.no_grad()
    def render(self, identity: Tensor, state: FigureState) -> Tensor:
        """Draw a batch.

        Args:
            identity: (B,) int64 indices of identities.
            state: B moments.

        Returns:
            (B, 3, size, size) float32 in 0..1.

        On a GPU nothing here waits for it: no constant is copied there and no value is read back. So a CUDA
        graph can capture calls of one batch size (`demo.factory.figure.captured`).
        """
        identity = identity.to(self.device)
        state = state.to(self.device)
        canvas = self._background(identity)
        head = self._head_points(self.ux, self.uy, state.head)
        head_grid = self._normalized(*head)
        rows = self.behind_row[identity]
        if self._hair_behind(rows):
            behind = self.behind[rows.clamp_min(0)].float() * (rows >= 0)[:, None, None, None]
            canvas = _over(canvas, _sample(behind, head_grid))
        canvas = _over(canvas, _sample(self.body[identity].float(), self._body_grid(state)))
        canvas = self._face(canvas, identity, state)
        canvas = _over(canvas, _sample(self.front[identity].float(), self._front_grid(*head, state)))
        canvas = self._mouth(canvas, identity, state)
        return self._hands(canvas, identity, state).clamp_(0.0, 1.0)

    def _hair_behind(self, rows: Tensor) -> bool:
        """Whether to draw hair behind.

        On a GPU it is drawn wherever a loaded identity has some, because asking for this batch would wait.
        """
        if len(self.behind) == 0:
            return False
        return self.device.type != "cpu" or bool((rows >= 0).any())

    def reference(self, identity: Tensor) -> Tensor:
        """The reference pictures (B, 3, size, size) in 0..1, in the neutral state."""
        return self.render(identity, FigureState.neutral(len(identity), self.device))

    def _background(self, identity: Tensor) -> Tensor:
        """The identity's colour with a soft light behind the head."""
        color = self.colors["background"][identity][:, :, None, None]
        across, fall = self.px / self.size, self.py / self.size
        glow = torch.exp(-(((across - 0.5) / 0.42) ** 2 + ((fall - 0.40) / 0.46) ** 2))
        return (color * (0.955 - 0.03 * fall + 0.045 * glow) + 0.07 * glow * (1.0 - color)).clamp(0.0, 1.0)

    def _head_points(self, x: Tensor, y: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the head's motion: view coordinates (h, w) → head coordinates (B, h, w)."""
        cos, sin = torch.cos(head[:, 2])[:, None, None], torch.sin(head[:, 2])[:, None, None]
        dx = x - PIVOT[0] - head[:, 0, None, None] * self.view
        dy = y - PIVOT[1] - head[:, 1, None, None] * self.view
        return cos * dx + sin * dy + PIVOT[0], -sin * dx + cos * dy + PIVOT[1]

    def _normalized(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack(((x - self.view_x), (y - self.view_y)), dim=-1) * (2.0 / self.view) - 1.0

    def _front_grid(self, x: Tensor, y: Tensor, state: FigureState) -> Tensor:
        """Hair and glasses follow the head. A beard follows the chin as well."""
        reach = 1.0 - smoothstep(48.0, 60.0, (x - PIVOT[0]).abs())
        ramp = smoothstep(146.0, 178.0, y) * (1.0 - smoothstep(192.0, 220.0, y))
        return self._normalized(x, y - col(face.jaw_drop(state)) * ramp * reach)

    def _body_grid(self, state: FigureState) -> Tensor:
        """Breathing lifts and widens the shoulders a little and leaves the waist where it is."""
        breath = state.breath[:, None, None]
        depth = ((322.0 - self.uy) / 124.0).clamp(0.0, 1.0)
        y = self.uy + 2.0 * breath * depth
        x = PIVOT[0] + (self.ux - PIVOT[0]) * (1.0 - 0.010 * breath * depth)
        return self._normalized(x, y)

    def _face_points(self, state: FigureState) -> tuple[Tensor, Tensor]:
        rows, columns = self.face_rows, self.face_columns
        return self._head_points(self.ux[rows, columns], self.uy[rows, columns], state.head)

    def _face(self, canvas: Tensor, identity: Tensor, state: FigureState) -> Tensor:
        x, y = self._face_points(state)
        look = self.appearance(identity)
        window = canvas[:, :, self.face_rows, self.face_columns]
        window = face.draw_skin(window, x, y, self.scale, look, state)
        window = face.draw_eyes(window, x, y, self.scale, look, state)
        window = face.draw_brows(window, x, y, self.scale, look, state)
        canvas[:, :, self.face_rows, self.face_columns] = window
        return canvas

    def _mouth(self, canvas: Tensor, identity: Tensor, state: FigureState) -> Tensor:
        """The mouth lies over beards, so that every shape can be read."""
        rows = slice(int((124.0 - self.view_y) * self.scale), self.face_rows.stop)
        columns = slice(int((90.0 - self.view_x) * self.scale), int((174.0 - self.view_x) * self.scale))
        x, y = self._head_points(self.ux[rows, columns], self.uy[rows, columns], state.head)
        window = canvas[:, :, rows, columns]
        canvas[:, :, rows, columns] = face.draw_mouth(
            window, x, y, self.scale, self.appearance(identity), state
        )
        return canvas

    def _hands(self, canvas: Tensor, identity: Tensor, state: FigureState) -> Tensor:
        colors = hands.hand_colors(
            self.colors["skin"][identity],
            self.colors["clothes"][identity],
            self.proportions["bare_arms"][identity],
            self._outline_tint,
        )
        points = state.hands * self.size
        top = int(ARM_TOP * self.size)
        for hand, side in ((1, -1.0), (0, 1.0)):
            seen = state.hands_visible[:, hand]
            lower = canvas[:, :, top:]
            canvas[:, :, top:] = hands.draw_arm(
                lower, self.px[top:], self.py[top:], points[:, hand], side, seen, colors
            )
            canvas = self._hand_patch(canvas, points[:, hand], seen, colors)
        return canvas

    def _hand_patch(self, canvas: Tensor, points: Tensor, seen: Tensor, colors: hands.HandColors) -> Tensor:
        """Draw one hand on a square cut out around it. Pixels outside the picture are dropped."""
        patch = int(hands.PATCH * self.size)
        batch = canvas.shape[0]
        middle = (points.amax(1) + points.amin(1)) / 2.0
        corner = (middle - patch / 2.0).round().clamp(-patch, self.size).long()
        columns = (corner[:, 0, None] + self._patch_steps + patch)[:, None, :].expand(-1, patch, -1)
        rows = (corner[:, 1, None] + self._patch_steps + patch)[:, :, None].expand(-1, -1, patch)
        wide = F.pad(canvas, (patch,) * 4)
        index = (rows * wide.shape[-1] + columns).reshape(batch, 1, -1).expand(-1, 3, -1)
        flat = wide.reshape(batch, 3, -1)
        window = flat.gather(2, index).reshape(batch, 3, patch, patch)
        window = hands.draw_hand(
            window, columns.float() - patch + 0.5, rows.float() - patch + 0.5, points, seen, colors, self.size
        )
        flat = flat.scatter(2, index, window.reshape(batch, 3, -1))
        return flat.reshape(wide.shape)[:, :, patch:-patch, patch:-patch].contiguous()


def _indices(names: list[str], identities: list[str] | list[int] | None) -> list[int]:
    if identities is None:
        return list(range(len(names)))
    return [names.index(i) if isinstance(i, str) else int(i) for i in identities]


def _sample(layer: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(layer, grid, mode="bilinear", padding_mode="zeros", align_corners=False) / 255.0


def _over(canvas: Tensor, layer: Tensor) -> Tensor:
    """Premultiplied RGBA over the canvas."""
    return canvas * (1.0 - layer[:, 3:]) + layer[:, :3]
