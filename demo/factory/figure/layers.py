"""Take an SVG person apart into the layers that the renderer moves separately."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

#: The view in the part set's units: a square of VIEW units with its upper left corner at (VIEW_X, VIEW_Y).
VIEW = 336.0
VIEW_X = -36.0
VIEW_Y = -14.0

SVG = "http://www.w3.org/2000/svg"

#: The part set ends at the chest. Each pair lengthens one outline to below the picture.
_LENGTHEN = [
    ("V110H32v-8.95", "V200H32v-98.95"),
    ("V110h200v-8.95", "V200h200v-98.95"),
    ("v9h200v-9a", "v99h200v-99a"),
    ("V110H68", "V200H68"),
    ("V110h74s-10.7", "V200h74V110s-10.7"),
    ("V110h-74Z", "V200h-74Z"),
    ("82H90L76 74", "82v22L76 74"),
    ("82h16l14-36-6-9", "82v22L188 74l-6-9"),
]

_NECK = "M108 140V198.6h-4a72 72 0 0 0-72 72v99h200v-99a72 72 0 0 0-72-72h-4V140Z"
_NECK_SHADOW = "M108 140v49.6a55.79 55.79 0 0 0 24 5.39c8.59 0 16.73-1.93 24-5.39V140Z"

ET.register_namespace("", SVG)


def split_layers(svg: str, skin: str) -> dict[str, str]:
    """Split one person's SVG.

    Args:
        svg: the avatar library's SVG, drawn without eyes, brows and mouth.
        skin: skin colour, hex without #.

    Returns:
        Three SVGs of the renderer's view. `body` has neck, shoulders and clothes, lengthened downwards.
        `front` has all that lies over the drawn face: hair or hat, facial hair and glasses. `hair` has hair
        or hat alone.

    Raises:
        ValueError: the SVG does not have the nine groups of the part set's base figure.
    """
    root = ET.fromstring(svg)
    groups = [child for child in root.iter(f"{{{SVG}}}g") if child.get("transform") == "translate(8)"]
    if not groups or len(groups[0]) != 10:
        raise ValueError("unexpected SVG structure: the avatar library's base figure has changed")
    clothing, top, facial_hair, accessories = (groups[0][i] for i in (2, 7, 8, 9))
    neck = [
        ET.Element(f"{{{SVG}}}path", {"d": _NECK, "fill": f"#{skin}"}),
        ET.Element(f"{{{SVG}}}path", {"d": _NECK_SHADOW, "fill": "#000", "fill-opacity": ".14"}),
    ]
    return {
        "body": _lengthen(_document([*neck, clothing])),
        "front": _document([top, facial_hair, accessories]),
        "hair": _document([top]),
    }


def _document(children: list[ET.Element]) -> str:
    root = ET.Element(f"{{{SVG}}}svg", {"viewBox": f"{VIEW_X} {VIEW_Y} {VIEW} {VIEW}", "fill": "none"})
    root.extend(children)
    return ET.tostring(root, encoding="unicode")


def _lengthen(svg: str) -> str:
    for short, long in _LENGTHEN:
        svg = svg.replace(short, long)
    return svg


def premultiplied_average(rgba: np.ndarray, factor: int) -> np.ndarray:
    """Shrink (H, W, 4) uint8 straight-alpha RGBA by an integer factor into premultiplied uint8 RGBA."""
    height, width, _ = rgba.shape
    image: np.ndarray = rgba.astype(np.float32) / 255.0
    image[..., :3] *= image[..., 3:]
    image = image.reshape(height // factor, factor, width // factor, factor, 4).mean(axis=(1, 3))
    return np.round(image * 255.0).astype(np.uint8)


def hair_behind(hair: np.ndarray) -> np.ndarray:
    """The part of long hair behind neck and shoulders, so that a moving head opens no gap.

    Args:
        hair: (S, S, 4) premultiplied uint8 layer of the hair alone.

    Returns:
        (S, S, 4) premultiplied uint8: from the ears down each row filled between its outermost hair pixels,
        and all of it reaching a little further down, behind the shoulders.
    """
    size = hair.shape[0]
    unit = size / VIEW
    alpha = hair[..., 3] > 127
    start = int((118 - VIEW_Y) * unit)
    solid = hair[alpha & (hair[..., 3] == 255)]
    behind = np.zeros_like(hair)
    if len(solid) == 0:
        return behind
    colors, counts = np.unique(solid, axis=0, return_counts=True)
    color = colors[counts.argmax()].astype(np.float32)
    color[:3] *= 0.86
    mask = np.zeros((size, size), dtype=np.float32)
    for row in range(start, size):
        columns = np.flatnonzero(alpha[row])
        if len(columns):
            mask[row, columns[0] : columns[-1] + 1] = 1.0
    # Further down beside the neck, less towards the shoulders: ends that hang in the air keep their shape.
    from_neck = np.abs(np.arange(size) / unit + VIEW_X - 132.0)
    reach = 10.0 * unit * np.clip((80.0 - from_neck) / 30.0, 0.0, 1.0)
    filled = mask.copy()
    for step in range(1, int(10.0 * unit) + 1):
        mask[step:] = np.maximum(mask[step:], filled[:-step] * (reach >= step))
    # Pulled in a little, so that it never peeps out beside the hair that it continues.
    inset = max(1, int(1.5 * unit))
    mask = np.minimum(np.roll(mask, inset, axis=1), np.roll(mask, -inset, axis=1))
    for axis in (0, 1):  # a soft edge in place of a stepped one
        mask = (np.roll(mask, 1, axis) + 2.0 * mask + np.roll(mask, -1, axis)) / 4.0
    behind[:] = np.round(mask[..., None] * color)
    return behind
