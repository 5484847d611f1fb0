"""A QR code as lines of text for a terminal."""

from __future__ import annotations

import segno

#: Modules of empty border. The standard asks for 4; every phone reads 2, and a terminal is small.
BORDER = 2
#: Black on white out of the 256 colours, since the first 16 are whatever the terminal's theme makes of them.
_BEGIN, _END = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
#: Two modules above each other as one character: (upper, lower) → character; 1 is dark.
_HALVES = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}


def qr_lines(text: str) -> list[str]:
    """The code of `text`, black on white, as lines of equal width.

    Raises:
        ValueError: the text is too long for a QR code.
    """
    rows = [[int(module) for module in row] for row in _code(text).matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [_BEGIN + "".join(_HALVES[halves] for halves in zip(*pair, strict=True)) + _END for pair in pairs]


def qr_width(text: str) -> int:
    """Columns that `qr_lines` takes. Raises ValueError as it does."""
    return int(_code(text).symbol_size(border=BORDER)[0])


def _code(text: str) -> segno.QRCode:
    # The lowest redundancy makes the smallest code: a screen has no dirt to correct for.
    return segno.make(text, error="l", micro=False)
