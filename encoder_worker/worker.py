"""The encoder worker: latents of a clip in, its coded pictures out, each as soon as it is ready."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from encoder_worker.coders import ClipCoder, Coders
from encoder_worker.graph_decoder import CPU_CHUNK, DecoderRecord, GraphDecoder
from encoder_worker.head_choices import HeadChoices
from encoder_worker.heads import HeadDecoders
from encoder_worker.jpeg import JpegEncoder, Picture, with_segments
from encoder_worker.jpeg_pool import JpegPool, threads_for
from encoder_worker.kept_clips import Coded, KeptClips, PicturesKey, clip_digest
from encoder_worker.kept_pictures import KeptPictures
from encoder_worker.latents import DecodeError
from encoder_worker.shipped_decoder import ShippedDecoders
from encoder_worker.still_pixels import OWN_SILENT, SILENT, SPOKEN, StillPixels
from encoder_worker.video import CodedPicture
from protocol.hop.client import Job
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, require_openvino
from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.threads import thread_count
from protocol.model.hardware.torch_missing import require_torch
from protocol.model.timed_apart import choose_library
from protocol.model.vae_folder import VaeFolder
from protocol.process.c_allocator import return_freed_memory
from protocol.process.compute import Output
from protocol.process.ledger import JobLedger
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.process.stage import Stage, Worker
from protocol.wire.clock import first_frame_from, pts_of_frame
from protocol.wire.messages import FINE_DECODER, ClipKey, Frame, InfoValue, Latents, clip_key
from protocol.wire.video import JPEG

if TYPE_CHECKING:
    from encoder_worker.by_name import NamedDecoders
    from encoder_worker.decode import ClipDecoder

logger = logging.getLogger(__name__)

STAGE = "encoder_worker"
FIGURES_EVERY = 0.5


class EncoderWorker(Worker):
    """Decodes clips one after the other. A clip is acknowledged when the gateway has all its frames."""

    def __init__(self, settings: Settings, stage: Stage) -> None:
        self._settings = settings
        self._stage = stage
        self._ledger = JobLedger(stage.jobs.ack)
        self._facts: dict[str, InfoValue] = {}
        self._jpeg = JpegEncoder(settings.jpeg_quality)
        self._coders = Coders(settings, self._jpeg_pool(gpu=False))
        self._kept = KeptClips()
        self._still = StillPixels()
        #: The pictures that stay between starts.
        self._folder: KeptPictures | None = None
        self._decoder: ClipDecoder | GraphDecoder | None = None
        #: The decoders of the VAE's heads.
        self._heads: HeadDecoders | None = None
        #: The library of each head, where that is timed against torch.
        self._choices = HeadChoices(settings, STAGE, ())
        #: On a GPU, the decoders that a GPU worker may ask for.
        self._named: NamedDecoders | None = None
        self._device_memory: Callable[[], dict[str, float]] = dict
        self._figures_at = float("-inf")
        #: The picture that --passthrough sends, shape (1, H, W, 3).
        self._plain: Picture | None = None

    def warm_up(self) -> None:
        settings = self._settings
        self._facts = {"jpeg": self._jpeg.library, "jpeg_quality": settings.jpeg_quality}
        config = ModelConfig.load(settings.config)
        heads = config.heads(settings)
        width, height = (
            config.asked_size(settings) if settings.passthrough else config.drawn_size(settings, heads[0])
        )
        self._coders.warm_up(height, width)
        if settings.passthrough:
            self._plain = np.full((1, height, width, 3), 128, np.uint8)
            return
        small = settings.decoder == "tiny"
        folder = VaeFolder.small_of(config) if small else VaeFolder.of(config)
        self._folder = KeptPictures.of(settings, config, folder, self._coders.describe())
        self._choices = HeadChoices(settings, STAGE, heads)
        # The usual one last, since its facts are told until a clip is decoded.
        self._heads = HeadDecoders(partial(self._make, config, folder), heads)

    def _make(self, config: ModelConfig, folder: VaeFolder, fine: bool) -> ClipDecoder | GraphDecoder:
        """A decoder that is ready: the kept one, or by torch."""
        record = DecoderRecord(self._settings, config, folder, CPU_CHUNK, fine=fine)
        by_openvino = record.load() or self._load_shipped(config, folder, fine, record)
        if by_openvino is not None:
            self._serve(by_openvino, by_openvino.facts.kind, "cpu", by_openvino.warm_up())
        else:
            self._load_by_torch(config, folder, fine, record)
        return_freed_memory()
        assert self._decoder is not None
        return self._decoder

    def _load_shipped(
        self, config: ModelConfig, folder: VaeFolder, fine: bool, record: DecoderRecord
    ) -> GraphDecoder | None:
        """The decoder that the model ships, or None where torch serves, or the choice needs it here."""
        if not record.chosen_without_torch:
            return None
        assert record.engine is not None
        dtype = cpu_arithmetic(self._settings.dtype)[-1]  # bfloat16 where the processor has it
        try:
            require_openvino(dtype)
            shipped = ShippedDecoders.find(config, folder, fine=fine)
            if shipped is None:
                return None
            choice = choose_library(record, "decoding", partial(self._choices.get, fine))
            if not choice.openvino:
                return None
            width, height = config.picture_size(self._settings)
            size = height // folder.factor, width // folder.factor
            made = shipped.chosen(choice.eight_bit, CPU_CHUNK, *size, dtype, record.engine)
        except SettingsError:
            raise
        except Exception as error:  # a library that is not there, or that cannot compute so
            logger.warning("decoding: OpenVINO cannot serve: %s", first_line(error))
            return None
        if choice.keep:
            record.store(made)
        return made

    def _load_by_torch(
        self, config: ModelConfig, folder: VaeFolder, fine: bool, record: DecoderRecord
    ) -> None:
        """Load the decoder by torch, and the choice between it and OpenVINO where it is to be made."""
        # Here, because the import takes a second and 200 MB, and a kept decoder needs none of it.
        asks = self._settings.cpu_engine == "torch"
        require_torch("--cpu-engine torch" if asks else "decoding by this model here")
        import torch

        from encoder_worker.by_name import NamedDecoders, chunk_of, fast_kind, own_name
        from encoder_worker.load import load_clip_decoder
        from protocol.model.hardware.devices import decoder_device
        from protocol.model.hardware.gpu_memory import device_memory

        settings = self._settings
        torch.set_num_threads(thread_count(settings))
        device = decoder_device(settings)
        cuda, name = device.type == "cuda", own_name(settings)
        if cuda:
            self._coders.jpeg = self._jpeg_pool(gpu=True)
        chunk = chunk_of(name, settings.frames_a_clip) if cuda else CPU_CHUNK
        engine = None if record.torch_serves() else CpuEngine.of(settings)
        decoder = load_clip_decoder(
            config,
            folder,
            device,
            settings.dtype,
            fine=fine,
            chunk=chunk,
            fast=fast_kind(name),
            engine=engine,
        )
        width, height = config.picture_size(settings)
        seconds = decoder.warm_up(height // folder.factor, width // folder.factor)
        if decoder.was_timed:
            record.store(decoder.openvino)
        self._device_memory = partial(device_memory, decoder.device)
        self._serve(decoder, folder.class_name, str(device), seconds)
        # Another VAE than Stable Diffusion's is the only one of its model.
        if cuda and folder.class_name in ("AutoencoderKL", "AutoencoderTiny"):
            self._named = NamedDecoders(settings, config, device, decoder, name)

    def _serve(self, decoder: ClipDecoder | GraphDecoder, kind: str, device: str, seconds: float) -> None:
        """Decode by this from now on. `seconds`: what a chunk takes."""
        # A new dictionary, since the loop's thread reads the old one.
        self._facts = self._facts | {"vae": kind, "device": device, "plan": decoder.describe()}
        logger.info(
            "%s on %s in %s, frames at once: %d, %.1f ms a frame",
            kind, device, decoder.describe(), decoder.chunk, seconds / decoder.chunk * 1e3,
        )  # fmt: skip
        self._decoder = decoder

    def info(self) -> dict[str, InfoValue]:
        return self._facts | {"codecs": self._coders.names} if self._stage.warm else {}

    def on_job(self, job: Job) -> None:
        if not isinstance(job.msg, Latents):
            return
        if not self._ledger.enter(job, job.msg):
            return
        # A clip that is kept is sent at once: to wake the compute thread would cost more than all of it.
        idle = not self._stage.compute.waiting
        key = _key_of(job.msg) if job.msg.silent and idle else None
        kept = None if key is None else self._kept.get(key)
        if kept is None:
            self._stage.compute.start_task(job, self._pictures, job, key, time.monotonic())
            return
        begin = time.monotonic()
        for frames in self._frames_of(job.msg, iter(kept), begin):
            self._send(frames)

    def on_output(self, output: Output) -> None:
        job = output.key
        assert isinstance(job, Job) and isinstance(job.msg, Latents)
        if output.error is not None:
            self._fail(job.msg, output.error)
        elif output.value is not None and clip_key(job.msg) in self._ledger:
            self._send(output.value)

    def _send(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._stage.results.send(frame)
        self._stage.metrics.count("frames_total", by=len(frames))

    def on_confirmed(self, key: ClipKey) -> None:
        self._stage.metrics.count("clips_total", by=self._ledger.settle(key))

    def on_tick(self) -> None:
        now = time.monotonic()
        if self._decoder is not None and now - self._figures_at >= FIGURES_EVERY:
            self._figures_at = now
            self._kept.forget_old()
            self._still.forget_old()
            kept = {"kept_clips_hits_total": self._kept.hits, "kept_clips_bytes": self._kept.size}
            if self._folder is not None:
                kept["kept_clips_read_total"] = self._folder.hits
            for name, value in (kept | self._device_memory()).items():
                self._stage.metrics.gauge(name, value)

    def on_reset(self, upstream: int) -> None:
        for key in self._ledger.void(upstream):
            self._stage.results.forget(*key)

    def _fail(self, msg: Latents, error: Exception) -> None:
        if isinstance(error, DecodeError):
            logger.error("clip %d of session %s cannot be decoded: %s", msg.seq, msg.session, error)
            reason, fatal = str(error), error.fatal
        else:
            logger.error("clip %d of session %s failed", msg.seq, msg.session, exc_info=error)
            reason, fatal = f"decoding failed: {type(error).__name__}: {error}", False
        self._stage.metrics.count("clips_failed_total")
        self._stage.results.forget(*clip_key(msg))
        self._stage.fail(msg, reason, fatal=fatal)
        self._ledger.settle(clip_key(msg))

    # ------------------------------------------------------------------ in the compute thread

    def _pictures(self, job: Job, key: PicturesKey | None, since: float) -> Iterator[list[Frame]]:
        """The frames of a clip, a chunk at a time. None for a clip that was taken back meanwhile.

        Args:
            job: with the clip.
            key: of its pictures, where it is known.
            since: when it came.
        """
        msg = job.msg
        assert isinstance(msg, Latents)
        if clip_key(msg) in self._ledger:
            yield from self._frames_of(msg, self._coded(msg, key), since)

    def _frames_of(self, msg: Latents, coded: Iterator[Coded], since: float) -> Iterator[list[Frame]]:
        begin = time.monotonic()
        index = 0
        for size, pictures in coded:
            frames = [
                _frame(msg, index + i, size, picture, self._coders.generated)
                for i, picture in enumerate(pictures)
            ]
            if index == 0:
                self._stage.metrics.observe("first_frame_seconds", time.monotonic() - since)
            index += len(frames)
            yield frames
        self._stage.metrics.observe("clip_seconds", time.monotonic() - begin)
        self._stage.metrics.observe_clip(time.monotonic() - since)

    def _jpeg_pool(self, *, gpu: bool) -> JpegPool:
        return JpegPool(self._jpeg, threads_for(os.cpu_count() or 1, gpu=gpu))

    def _coded(self, msg: Latents, key: PicturesKey | None) -> Iterator[Coded]:
        """Size and coded pictures, a few at a time. A silent clip comes again, so it is kept."""
        if not msg.silent:
            return self._code(msg)
        known = key or _key_of(msg)
        make = partial(self._code, msg)
        if self._folder is not None and not msg.private:
            make = partial(self._folder.through, known, make, msg.codec)
        return self._kept.through(known, make, private=msg.private)

    def _code(self, msg: Latents) -> Iterator[Coded]:
        self._stage.metrics.count("clips_decoded_total")
        code = ClipCoder(self._coders, msg.codec, msg.fps)
        # A clip of video is the same from every worker, so that the gateway may mix its frames.
        for pictures in self._decoded(msg, hold=not code.codes_video):
            yield (pictures.shape[1], pictures.shape[2]), list(code(pictures))

    def _decoded(self, msg: Latents, *, hold: bool) -> Iterator[Picture]:
        """Pictures, a few at a time. `hold`: whether still pixels may stay as they were shown."""
        if self._plain is not None:
            yield np.repeat(self._plain, len(msg.latents), axis=0)
            return
        if self._named is not None:
            self._decoder = self._named.get(msg.decoder, len(msg.latents))
        elif self._heads is not None:
            self._decoder = self._heads.get(fine=msg.decoder == FINE_DECODER)
        assert self._decoder is not None
        decoded = self._decoder.decode(msg.latents)
        if hold and self._decoder.is_eight_bit:
            kind = (OWN_SILENT if msg.private else SILENT) if msg.silent else SPOKEN
            decoded = self._still.through(clip_key(msg), decoded, kind)
        yield from decoded


def _key_of(msg: Latents) -> PicturesKey:
    """What a silent clip's coded pictures depend on. A coded clip refers to no other one.

    Where still pixels are held, values may differ by a level with the clip of the loop that came before.
    """
    return clip_digest(msg.latents), f"{msg.codec} {msg.fps} {msg.decoder}"


def _frame(msg: Latents, index: int, size: tuple[int, int], coded: CodedPicture, generated: bool) -> Frame:
    # positions are those of whole frames of the stream, so they do not drift where fps does not divide 16000
    first = first_frame_from(msg.pts, msg.fps)
    pts = pts_of_frame(first + index, msg.fps)
    data = coded.data
    if coded.codec == JPEG:
        # a client of version 1 gets bare pictures: the comment tells it where in the stream they belong
        data = with_segments(data, f"echomimic pts={pts}", generated)
    height, width = size
    place = msg.session, msg.epoch, msg.seq, index, len(msg.latents), pts
    return Frame(*place, width, height, data, coded.codec, coded.key, msg.silent)
