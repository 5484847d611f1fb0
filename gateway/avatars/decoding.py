"""Decodes one picture that a stranger sent, in a process that can do little else.

    python -m gateway.avatars.decoding LEFT,TOP,WIDTH,HEIGHT RATIO < PICTURE
    python -m gateway.avatars.decoding faces < PICTURE

The gateway starts it for each picture. It limits its own memory, processor time and files before it reads
anything. On stdout it writes two numbers of 4 bytes, big-endian, the width and the height. Then come
the pixels (RGB, 8 bits each). So the gateway and the GPU workers decode nothing that a stranger made.
With `faces` it writes JSON: `size` (width and height in pixels) and `faces` (left, top and side of each).
On failure it writes the reason to stderr, one line, and exits with 3. Where nothing can look for faces, it
exits with 4.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gateway.avatars.cropping import CropError, cut, parse_crop
from gateway.avatars.faces import FacesError, find_faces
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture
from protocol.wire.phrases import phrase

#: Most pixels of a picture. A camera of 48 megapixels is below it.
MOST_PIXELS = 50_000_000
#: Exit status for a picture that cannot be used.
REFUSED = 3
#: Exit status where nothing can look for faces.
UNABLE = 4
#: The argument that asks for the faces.
FACES = "faces"
#: Faces that are told at most.
MOST_FACES = 16
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
        output = _faces(picture) if arguments[0] == FACES else _part(picture, *arguments)
    except FacesError as error:
        print(error, file=sys.stderr)
        return UNABLE
    except (AssetError, CropError) as error:
        print(str(error).removeprefix(f"{_INPUT}: "), file=sys.stderr)
        return REFUSED
    except MemoryError:
        print(phrase("picture_memory"), file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(output)
    return 0


def _part(picture: Image.Image, crop: str, ratio: str) -> bytes:
    kept = cut(picture, parse_crop(crop), float(ratio))
    return HEAD.pack(*kept.size) + kept.tobytes()


def _faces(picture: Image.Image) -> bytes:
    found = sorted(find_faces(picture), key=lambda box: -box[2])[:MOST_FACES]
    return json.dumps({"size": picture.size, "faces": found}).encode()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
