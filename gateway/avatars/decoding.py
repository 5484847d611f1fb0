"""Decodes one picture that a stranger sent, in a process that can do little else.

    python -m gateway.avatars.decoding LEFT,TOP,WIDTH,HEIGHT RATIO < PICTURE

The gateway starts it for each picture. It limits its own memory, processor time and files before it reads
anything. On stdout it writes two numbers of 4 bytes, big-endian, the width and the height. Then come
the pixels (RGB, 8 bits each). So the gateway and the GPU workers decode nothing that a stranger made.
On failure it writes the reason to stderr, one line, and exits with 3.
"""

from __future__ import annotations

import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.avatars.cropping import CropError, cut, parse_crop
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture
from protocol.wire.phrases import phrase

#: Most pixels of a picture. A camera of 48 megapixels is below it.
MOST_PIXELS = 50_000_000
#: Exit status for a picture that cannot be used.
REFUSED = 3
#: Width and height of the pixels that follow.
HEAD = struct.Struct(">II")

#: Bytes of memory, seconds of processor time, bytes of files written, and open files.
_MEMORY, _CPU, _FILES_WRITTEN, _OPEN_FILES = 2 << 30, 20, 0, 64
_INPUT = Path("/dev/stdin")


def limit_this_process() -> None:
    """Limits that hold for the rest of this process."""
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _CPU),
        (resource.RLIMIT_FSIZE, _FILES_WRITTEN),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, soft))


def main(arguments: Sequence[str]) -> int:
    """Decode stdin. Returns the exit status."""
    limit_this_process()
    try:
        picture = read_picture(_INPUT, most_pixels=MOST_PIXELS)
        kept = cut(picture, parse_crop(arguments[0]), float(arguments[1]))
    except (AssetError, CropError) as error:
        print(str(error).removeprefix(f"{_INPUT}: "), file=sys.stderr)
        return REFUSED
    except MemoryError:
        print(phrase("picture_memory"), file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(HEAD.pack(*kept.size) + kept.tobytes())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
