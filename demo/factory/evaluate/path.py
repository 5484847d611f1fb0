"""The streaming path in one process: the workers' own classes one after another, without their sockets.

1. Sound goes in by chunks, as a browser sends it, and the ring cuts it into clips.
2. Whisper makes tokens of clips that hold a voice. All others have those of digital silence.
3. The GPU worker's engine denoises clip by clip, with the session's state between them. It makes a silent
   clip once, unless `--silence denoise` is set.
4. The encoder worker's decoder and JPEG encoder make the pictures that a browser would show.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from audio_worker.clip_features import ClipFeatures
from audio_worker.features import FeatureExtractor
from audio_worker.sessions import DueClip, Sessions
from audio_worker.voice import VoiceDetector
from encoder_worker.decode import ClipDecoder
from encoder_worker.jpeg import JpegEncoder
from encoder_worker.load import load_clip_decoder
from encoder_worker.still_pixels import SILENT, SPOKEN, StillPixels
from gpu_worker.avatars.vae_encoder import VaeEncoder, load_vae_encoder
from gpu_worker.engine.serve import DenoiserEngine
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.hardware.devices import decoder_device
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from protocol.wire.clock import FULL_RATE, SAMPLE_RATE, frames_of_clip, pts_after
from protocol.wire.messages import Array16, Clip, ClipKey, InfoValue, Latents, Pcm, clip_key

Picture = NDArray[np.uint8]
CHUNKS_PER_SECOND = 50  # browsers send 20 ms or less at a time


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A clip as the browser shows it.

    Attributes:
        first: number of its first frame in the session.
        count: number of frames.
        pictures: uint8 RGB (frames, H, W, 3), or None where they were not wanted.
        silent: whether it holds no voice.
    """

    first: int
    count: int
    pictures: Picture | None
    silent: bool = False


class StreamingPath:
    """Plays sessions one after another.

    Args:
        settings: as the workers take them. `reference_image` and `pose_dir` name the avatars and poses.

    Raises:
        SettingsError: the configuration cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fps = settings.fps or FULL_RATE
        self.clip_frames = frames_of_clip(self.fps, settings.frames_a_clip)
        self.config = ModelConfig.load(settings.config)
        detector = VoiceDetector.load(settings) if settings.silence == "loop" else None
        self._features = ClipFeatures(FeatureExtractor.load(self.config, settings), detector)
        device = decoder_device(settings)
        #: By whether the finer head draws, and whether in float32. Only the first is made at once.
        self._decoders = {(False, False): self._make_decoder(device, fine=False, exact=False)}
        self._device = device
        self._jpeg = JpegEncoder(settings.jpeg_quality)
        #: As in a worker, for as many sessions as a table may have rows.
        self._still = StillPixels(most_sessions=256)
        # Last, because it sets the number of threads for the heaviest work.
        self.engine = DenoiserEngine(settings)
        self.engine.load()
        self._encoder: VaeEncoder | None = None
        self._played = 0
        #: Seconds spent by stage since the start: processor time of all threads, or wall time on a GPU.
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock = time.process_time if device.type == "cpu" else time.perf_counter
        self.clips = 0

    def _make_decoder(self, device: torch.device, *, fine: bool, exact: bool) -> ClipDecoder:
        """The decoder that an encoder worker chooses here with these settings, or one in float32."""
        settings, folder = self.settings, VaeFolder.of(self.config)
        decoder = load_clip_decoder(
            self.config,
            folder,
            device,
            "float32" if exact else settings.dtype,
            fine=fine,
            fast="" if exact else "exact",
            engine=None if exact else CpuEngine.of(settings),
        )
        if device.type == "cpu":
            width, height = self.config.picture_size(settings)
            decoder.warm_up(height // folder.factor, width // folder.factor)
        return decoder

    def name_sessions_anew(self) -> None:
        """Gives the next sessions the names, and so the noise, of this path's first ones."""
        self._played = 0

    def info(self) -> dict[str, InfoValue]:
        """The facts that the workers put in their status."""
        return {
            **self.engine.info(),
            "decoder": self._decoders[False, False].describe(),
            "jpeg": self._jpeg.library,
        }

    def play(
        self,
        avatar: str,
        pose: str,
        samples: NDArray[np.float32],
        *,
        rate: int = SAMPLE_RATE,
        wanted: Callable[[int], bool] = lambda first: True,
    ) -> Iterator[Made]:
        """One session from its start to the end of the speech.

        Args:
            avatar: name of the avatar.
            pose: name of the pose loop.
            samples: mono float32 (n,).
            rate: of the samples, in Hz.
            wanted: whether to decode the clip that starts at a frame. All clips are denoised, because each
                starts from the one before.
        """
        for clip in self.latents(avatar, pose, samples, rate=rate):
            first, made = clip.seq * self.clip_frames, clip.latents
            kind = SILENT if clip.silent else SPOKEN
            shown = wanted(first)
            pictures = self.pictures(made, clip=clip_key(clip), kind=kind) if shown else None
            yield Made(first, len(made), pictures, clip.silent)

    def latents(
        self, avatar: str, pose: str, samples: NDArray[np.float32], *, rate: int = SAMPLE_RATE
    ) -> Iterator[Latents]:
        """The clips of one session as the encoder worker gets them. Arguments as for `play`."""
        self._played += 1
        name = f"evaluation-{self._played}"
        for due in self._due(name, avatar, pose, samples, rate):
            with self._time("features"):
                ((tokens, silent),) = self._features.tokens([due])
            clip = Clip(
                name, due.epoch, due.seq, due.pts, due.fps, due.avatar, due.pose, tokens, silent=silent
            )
            with self._time("denoise"):
                made = self.engine.rest(clip) if silent else None
                if made is None:
                    made = self.engine.denoise(self.engine.prepare(clip))
            self.clips += 1
            yield Latents(name, clip.epoch, clip.seq, clip.pts, clip.fps, made, silent=silent)
        self.engine.close(name, 0)

    def through_vae(self, picture: Picture) -> Picture:
        """A picture (H, W, 3) encoded, decoded and sent as JPEG. It shows the loss without any denoising."""
        through: Picture = self.pictures(self.encode(picture[None]))[0]
        return through

    def encode(self, pictures: Picture) -> Array16:
        """Scaled latents (n, C, h, w) of pictures (n, H, W, 3), by the VAE's encoder in float32."""
        if self._encoder is None:
            self._encoder = load_vae_encoder(VaeFolder.of(self.config))
        with torch.inference_mode():
            made = self._encoder(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1)
        latents: Array16 = made.half().numpy()
        return latents

    def through_jpeg(self, picture: Picture) -> Picture:
        """A picture (H, W, 3) sent as JPEG, and nothing else done to it."""
        return read_jpeg(self._jpeg(picture))

    def _due(
        self, name: str, avatar: str, pose: str, samples: NDArray[np.float32], rate: int
    ) -> Iterator[DueClip]:
        sessions = Sessions()
        step = max(1, rate // CHUNKS_PER_SECOND)
        for seq, start in enumerate(range(0, len(samples), step)):
            last = start + step >= len(samples)
            pcm = Pcm(
                name, 0, seq, pts_after(start, rate), rate, self.fps, self.clip_frames, avatar, pose, last,
                np.ascontiguousarray(samples[start : start + step], np.float32),
            )  # fmt: skip
            for failed in sessions.add_speech(pcm, time.monotonic()):
                raise RuntimeError(failed.reason)
            yield from sessions.take_due(8)

    def decoder(self, *, fine: bool = False, exact: bool = False) -> ClipDecoder:
        """The decoder that makes pictures of either size, as it serves or in float32."""
        if (fine, exact) not in self._decoders:
            self._decoders[fine, exact] = self._make_decoder(self._device, fine=fine, exact=exact)
        return self._decoders[fine, exact]

    def pictures(
        self,
        latents: Array16,
        *,
        fine: bool = False,
        exact: bool = False,
        clip: ClipKey | None = None,
        kind: str = SPOKEN,
    ) -> Picture:
        """Pictures (n, H, W, 3) of scaled latents, sent as JPEG.

        Args:
            latents: of n frames.
            fine: let the finer head draw, which makes them twice as large.
            exact: decode in float32, whatever serves.
            clip: the clip's session, epoch and number, by which still pixels are held as in a worker. None:
                they stay as decoded.
            kind: the clip's, as for `StillPixels.through`.
        """
        decoder = self.decoder(fine=fine, exact=exact)
        with self._time("decode"):
            made = decoder.decode(latents)
            if clip is not None and decoder.is_eight_bit:
                made = self._still.through(clip, made, kind)
            decoded = np.concatenate(list(made))
        with self._time("jpeg"):
            jpegs = [self._jpeg(picture) for picture in decoded]
        return np.stack([read_jpeg(jpeg) for jpeg in jpegs])

    @contextmanager
    def _time(self, stage: str) -> Iterator[None]:
        begin = self._clock()
        yield
        self.seconds[stage] += self._clock() - begin


def read_jpeg(jpeg: bytes) -> Picture:
    """Pixels, uint8 RGB (H, W, 3), of a JPEG."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        pixels: Picture = np.asarray(picture.convert("RGB"))
        return pixels
