"""The console's QR code as a camera sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zxingcpp

_LINE = re.compile("\x1b\\[38;5;16;48;5;231m([ ▄▀█]+)\x1b\\[0m")
_HALVES = {" ": (0, 0), "▄": (0, 1), "▀": (1, 0), "█": (1, 1)}


def code_lines(text: str) -> list[str]:
    """The lines of the code in a console's output."""
    return [match[0] for match in _LINE.finditer(text)]


def picture_of(lines: Sequence[str], pixels: int = 6) -> npt.NDArray[np.uint8]:
    """The picture of the code's lines, black on white, with so many pixels for each module."""
    rows = []
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match, line
        rows += [[_HALVES[character][half] for character in match[1]] for half in (0, 1)]
    modules = 255 * (1 - np.array(rows, np.uint8))
    return np.kron(modules, np.ones((pixels, pixels), np.uint8)).astype(np.uint8)


def texts_of_codes(picture: npt.NDArray[np.uint8]) -> list[str]:
    """The texts of the QR codes in a picture.

    Other kinds of codes are not looked for: one in 300 links of the console holds a bar code by chance.
    """
    wanted = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    return [code.text for code in zxingcpp.read_barcodes(picture, formats=wanted)]
