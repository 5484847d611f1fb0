"""PyAV, where it is installed."""

from __future__ import annotations

from types import ModuleType

from scripts.render.errors import RenderError

#: The extra of pyproject.toml that brings PyAV.
EXTRA = "video"
#: Encoders of H.264 in the order of preference. Builds of ffmpeg without GPL have the second at most.
H264_ENCODERS = ("libx264", "libopenh264")


def library() -> ModuleType | None:
    """PyAV, or None where it is missing or does not load."""
    try:
        import av
    except (ImportError, OSError):
        return None
    return av


def require_library(target: str) -> None:
    """Make sure that films can be written.

    Raises:
        RenderError: PyAV is not there.
    """
    if library() is None:
        raise RenderError(
            f"{target}: writing it needs PyAV: pip install 'echomimic-live[{EXTRA}]' (or: pip install av);"
            " without it, -o FOLDER/ writes pictures and a WAV"
        )


def h264_encoder() -> str:
    """The name of ffmpeg's encoder for H.264.

    Raises:
        RenderError: this build of ffmpeg has none.
    """
    import av

    for name in H264_ENCODERS:
        if name in av.codecs_available:
            return name
    raise RenderError(
        f"this PyAV cannot write H.264: its ffmpeg has none of {', '.join(H264_ENCODERS)}; pip install av"
    )
