"""Decoders of files: pictures, sounds, poses, certificates, weights, configurations."""

from __future__ import annotations

import io
import struct
import sys
from datetime import datetime, timezone
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageCms

from gateway.door.certificates import CertificateError, CertificateFiles, read_certificate
from gateway.door.self_signed import make_certificate
from gateway.thumbnails import pose_svg
from gpu_worker.poses.track import PoseFileError, PoseTrack
from protocol.model import pictures
from protocol.model.assets import AssetError
from protocol.model.checkpoint import CheckpointError, read_state_dict
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.pictures import read_picture
from protocol.process.settings import ROOT
from protocol.wire.clock import SAMPLE_RATE
from scripts.convert_pose import ConvertError, read_pose
from scripts.talk.sound import SoundError, read_sound
from scripts.torture.fuzz.decoder import FuzzedDecoder, Scratch
from scripts.torture.fuzz.mutations import edited

#: Pixels of a picture that are read here. A header with larger sizes would take seconds for each.
MAX_PIXELS = 250_000
#: Pillow's name of a format, and options with which it is written.
FORMATS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})),
    *(("AVIF", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})),
    *(("TIFF", {"compression": "jpeg"}), ("TIFF", {"compression": "tiff_adobe_deflate"})),
    *(("JPEG2000", {}), ("PPM", {}), ("ICO", {}), ("ICNS", {}), ("DDS", {}), ("PCX", {}), ("SGI", {})),
    *(("TGA", {}), ("MPO", {})),
)


def decoders() -> list[FuzzedDecoder]:
    """All of them."""
    return [_pictures(), *_sounds(), *_poses(), _certificates(), *_models()]


# ------------------------------------------------------------------ pictures


def _pictures() -> FuzzedDecoder:
    scratch = Scratch()

    def read(content: bytes) -> object:
        with mock.patch.object(pictures, "MAX_PICTURE_PIXELS", MAX_PIXELS):
            return read_picture(scratch.file("face.png", content), (32, 32))

    return FuzzedDecoder("files: pictures", edited(_whole_pictures()), read, (AssetError,))


def _whole_pictures() -> list[bytes]:
    """A small picture in each format and mode, with a profile and an orientation where it takes them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = []
    Image.init()
    for form, options in FORMATS:
        if form in Image.SAVE:
            whole.append(_saved(Image.fromarray(noise), form, **options))
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
        whole.append(_saved(Image.fromarray(noise), form, exif=exif, icc_profile=profile))
    for form, mode in (("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "LAB"), ("PNG", "P"), ("PNG", "LA")):
        whole.append(_saved(Image.new(mode, (16, 16)), form))
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16))
    whole += [_saved(deep, "PNG"), _saved(deep, "TIFF")]
    whole.append(_saved(Image.fromarray(np.full((16, 16), 0.5, np.float32)), "TIFF"))
    moving = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for form in ("PNG", "GIF", "WEBP"):
        whole.append(_saved(moving[0], form, save_all=True, append_images=moving[1:]))
    whole.append(struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 4, 4, 8, 3) + bytes(14 + 48))
    whole.append(b"qoif" + struct.pack(">IIBB", 4, 4, 3, 0) + b"\xfe\x01\x02\x03" * 16 + bytes(7) + b"\1")
    return whole


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


# ------------------------------------------------------------------ sounds


def _sounds() -> list[FuzzedDecoder]:
    scratch = Scratch()

    def read(content: bytes) -> object:
        return read_sound(scratch.file("voice.wav", content))

    def read_alone(content: bytes) -> object:
        # Only this entry: a module that is imported meanwhile must stay.
        before = sys.modules.pop("soundfile", None)
        sys.modules["soundfile"] = None  # type: ignore[assignment]
        try:
            return read(content)
        finally:
            del sys.modules["soundfile"]
            if before is not None:
                sys.modules["soundfile"] = before

    inputs = edited(_whole_sounds())
    # libsndfile 1.2.2 keeps about 130 bytes of each file that it refuses. A client reads one file.
    lossy = 20_000_000
    return [
        FuzzedDecoder("files: sounds", inputs, read_alone, (SoundError,)),
        FuzzedDecoder("files: sounds, by soundfile too", inputs, read, (SoundError,), lossy),
    ]


def _whole_sounds() -> list[bytes]:
    tone = np.sin(np.arange(200) / 5)
    whole = []
    for codec, width, body in (
        *((1, 2, (tone * 32767).astype("<i2")), (1, 1, (tone * 100 + 128).astype(np.uint8))),
        *((3, 4, tone.astype("<f4")), (3, 8, tone.astype("<f8")), (6, 1, np.arange(200, dtype=np.uint8))),
    ):
        for extensible in (False, True):
            form = struct.pack(
                "<HHIIHH", 0xFFFE if extensible else codec, 1, SAMPLE_RATE, 0, width, 8 * width
            )
            if extensible:
                form += struct.pack("<HHIH", 22, 8 * width, 4, codec)
                form += bytes.fromhex("000000001000800000aa00389b71")
            chunks = b"fmt " + struct.pack("<I", len(form)) + form
            chunks += b"data" + struct.pack("<I", body.nbytes) + body.tobytes()
            whole.append(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    try:
        import soundfile
    except (ImportError, OSError):
        return whole
    for form_name, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16"), ("AU", "ULAW")):
        out = io.BytesIO()
        soundfile.write(out, tone, SAMPLE_RATE, format=form_name, subtype=subtype)
        whole.append(out.getvalue())
    return whole


# ------------------------------------------------------------------ poses


def _poses() -> list[FuzzedDecoder]:
    scratch = Scratch()
    tracks = [_track("official"), _track("sdf")]
    pickled = _official_pose()

    def load(content: bytes) -> object:
        track = PoseTrack.load(scratch.file("talk.npz", content), (64, 64))
        return track.draw([0])

    def card(content: bytes) -> object:
        return pose_svg(scratch.file("talk.npz", content), keyframes=1)

    return [
        FuzzedDecoder("files: poses", edited(tracks), load, (PoseFileError,)),
        FuzzedDecoder("files: poses for cards", edited(tracks), card, (AssetError,)),
        FuzzedDecoder(
            "files: official poses",
            edited([pickled]),
            lambda content: read_pose(scratch.file("0.npy", content)),
            (ConvertError,),
        ),
    ]


def _track(style: str) -> bytes:
    arrays: dict[str, Any] = {
        "hands": np.full((2, 2, 21, 2), 0.5, np.float32),
        "hands_score": np.ones((2, 2, 21), np.float32),
        "fps": np.int64(24),
        "style": np.array(style),
    }
    if style == "sdf":
        arrays |= {
            "marks": np.full((2, 2, 2), 0.5, np.float32),
            "marks_edges": np.array([[0, 1]]),
            "marks_color": np.ones((1, 3), np.float32),
            "marks_radius": np.ones(1, np.float32) * 0.1,
        }
    else:
        arrays |= {"draw_params": np.array([[768, 768, 0, 768, 0, 768]] * 2), "canvas": np.int64(768)}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _official_pose() -> bytes:
    pose = {
        "hands": np.zeros((2, 21, 2)),
        "hands_score": np.zeros((2, 21)),
        "draw_pose_params": [768, 768, 0, 768, 0, 768],
    }
    out = io.BytesIO()
    np.save(out, np.array(pose, dtype=object), allow_pickle=True)
    return out.getvalue()


# ------------------------------------------------------------------ certificates


def _certificates() -> FuzzedDecoder:
    scratch = Scratch()
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    whole = make_certificate(["localhost", "127.0.0.1"], now)

    def read(content: bytes) -> object:
        path = scratch.file("both.pem", content)
        return read_certificate(CertificateFiles(path, path), now)

    return FuzzedDecoder("files: certificates", edited([whole]), read, (CertificateError,))


# ------------------------------------------------------------------ models


def _models() -> list[FuzzedDecoder]:
    scratch = Scratch()
    state = {"a": torch.zeros(4, 4), "b.c": torch.ones(3, dtype=torch.float16)}
    zipped = io.BytesIO()
    torch.save(state, zipped)
    folder = ROOT / "demo/bundled/model"
    text = (folder / "infer_bundled.yaml").read_text(encoding="utf-8")
    configuration = text.replace(" ./", f" {folder}/").encode()

    def weights(content: bytes) -> object:
        # Torch's files are zip archives.
        suffix = ".pth" if content[:1] == b"P" else ".safetensors"
        return read_state_dict(scratch.file(f"weights{suffix}", content))

    def model(content: bytes) -> object:
        return ModelConfig.load(scratch.file("infer.yaml", content))

    contents = edited([safetensors.torch.save(state), zipped.getvalue()])
    return [
        FuzzedDecoder("files: weights", contents, weights, (CheckpointError,)),
        FuzzedDecoder("files: configurations", edited([configuration]), model, (ConfigError,)),
    ]
