"""The engine that serves: EchoMimic-v2's denoiser with its caches, fed by prepared clips."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.model import ReferenceCache, attention
from gpu_worker.denoiser.pipeline import AvatarCache, ClipDenoiser
from gpu_worker.denoiser.sampler import draw_noise
from gpu_worker.engine.device import choose_device, dtype_choices, keep_compiled_code
from gpu_worker.engine_api import ClipError, DeviceLost
from gpu_worker.fast import TIERS, FastDenoiser
from gpu_worker.poses.store import PoseStore
from gpu_worker.poses.track import PoseTrack
from gpu_worker.rate.pace import RATES, frames_at
from gpu_worker.sessions import LatentTable, clip_seed
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.hardware.gpu_memory import device_memory
from protocol.model.hardware.threads import thread_count
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.wire.limits import TOKEN_WIDTH
from protocol.wire.messages import Array16, Clip, InfoValue

logger = logging.getLogger(__name__)

REFERENCE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}
POSE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}
POSE_WARM_SECONDS = 8.0
"""Most that start-up waits for the default pose's features; the rest follows in the first pauses."""

TIMED_CLIPS = 3
LARGE_MODEL = 200e6  # parameters; loading one twice to compare arithmetic would cost more than it tells


@dataclass(slots=True, eq=False)
class Inputs:
    """A clip ready to be denoised: tokens (F, T, 384), pose features (F, c0, h, w) and noise (F, C, h, w).

    All are on the device once `ready` (CUDA only) has happened there.
    """

    clip: Clip
    tokens: Tensor
    pose: Tensor
    noise: Tensor
    ready: torch.cuda.Event | None


class DenoiserEngine:
    """Models, avatars, poses and sessions of one device. `work.Engine` says which thread calls what."""

    _device: torch.device
    _dtype: torch.dtype
    _eager: ClipDenoiser
    _compiled: ClipDenoiser | None = None
    _fast: FastDenoiser | None = None
    _avatars: AvatarStore[AvatarCache]
    _poses: PoseStore
    _stream: torch.cuda.Stream | None = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ends = LatentTable[Tensor](limit=4 * settings.max_sessions)
        self._token_count = tokens_per_frame(settings.audio_margin)
        self._compiled_frames: set[int] = set()
        self._compiling_failed = False
        self._info: dict[str, InfoValue] = {}

    @property
    def device_type(self) -> str:
        return self._device.type

    # ------------------------------------------------------------------ start-up, in the compute thread

    def load(self) -> None:
        settings = self._settings
        self._config = ModelConfig.load(settings.config)
        self._width = settings.width or self._config.width
        self._height = settings.height or self._config.height
        self._device = choose_device(settings)
        torch.set_num_threads(thread_count(settings))
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            self._stream = torch.cuda.Stream(self._device)
        self._eager = self._load_fastest()
        self._dtype = self._eager.models.dtype
        self._check_size()
        self._avatars = AvatarStore(
            avatar_paths(settings),
            self._width,
            self._height,
            self._eager.prepare_reference,
            size_of=lambda made: made.reference.nbytes,
            budget=REFERENCE_BYTES[self._device.type],
        )
        self._poses = PoseStore(
            pose_paths(settings),
            partial(PoseTrack.load, size=(self._height, self._width)),
            self._eager.encode_pose,
            budget=POSE_BYTES[self._device.type],
        )
        self._warm()
        self._write_info()

    def _load_fastest(self) -> ClipDenoiser:
        """The models in the arithmetic that makes a clip soonest, of those that --dtype leaves open."""
        choices = dtype_choices(self._settings.dtype, self._device)
        attention.select(self._device, choices[0])
        denoisers = [self._load_as(choices[0])]
        parameters = sum(p.numel() for p in denoisers[0].models.denoiser.parameters())
        if len(choices) == 1 or parameters > LARGE_MODEL:
            return denoisers[0]
        denoisers += [self._load_as(dtype) for dtype in choices[1:]]
        clips = [self._clip_of_nothing(denoiser) for denoiser in denoisers]
        # In turn and in processor time, so that what else the machine does meanwhile favours neither.
        times = [[_seconds(clip) for clip in clips] for _ in range(TIMED_CLIPS + 1)][1:]
        best = [min(column) for column in zip(*times, strict=True)]
        fastest = best.index(min(best))
        timed = ", ".join(f"{_name(c)} {t:.3f} s" for c, t in zip(choices, best, strict=True))
        logger.info("arithmetic: %s (a clip takes: %s)", _name(choices[fastest]), timed)
        return denoisers[fastest]

    def _load_as(self, dtype: torch.dtype) -> ClipDenoiser:
        models = load_models(self._config, self._device, dtype)
        return ClipDenoiser(models, steps=self._settings.steps, guidance_scale=self._settings.cfg)

    def _clip_of_nothing(self, denoiser: ClipDenoiser) -> Callable[[], object]:
        """What makes a clip of nothing in particular, to time."""
        frames = frames_at(RATES[0], self._settings.clip_frames)
        picture = np.zeros((self._height, self._width, 3), np.uint8)
        reference = denoiser.prepare_reference(picture).reference
        pose = denoiser.encode_pose(torch.zeros(frames, 3, self._height, self._width))
        tokens = torch.zeros(frames, self._token_count, TOKEN_WIDTH)
        return lambda: denoiser.denoise(tokens, pose, reference, None, torch.Generator().manual_seed(0)).cpu()

    def _check_size(self) -> None:
        models = self._eager.models
        multiple = models.vae_encoder.factor * 2 ** (models.denoiser.config.levels - 1)
        for flag, side in (("--width", self._width), ("--height", self._height)):
            if side % multiple:
                raise SettingsError(f"{flag} {side}: this model's pictures have multiples of {multiple}")
        late, steps = self._settings.late_start, len(self._eager.steps)
        if late >= steps:
            raise SettingsError(f"--late-start {late}: there are {steps} steps, so at most {steps - 1}")

    def _warm(self) -> None:
        """What a first clip would wait for: its avatar, its pose, a run of each shape."""
        begin = time.monotonic()
        self._avatars.get(self._avatars.names[0])
        while self._poses.warm_some(self._poses.names[0]):
            if time.monotonic() - begin > POSE_WARM_SECONDS:
                break
        for fps in RATES if self._settings.fps is None else (self._settings.fps,):
            self._run_sample(fps)
        self._settle()
        logger.info("warm-up took %.1f s", time.monotonic() - begin)

    def _run_sample(self, fps: int) -> None:
        self.denoise(self.prepare(self.sample_clip("_warm", 0, fps)))
        self.close("_warm", 0)

    def ready_for(self, fps: int) -> None:
        """Compiles for the clips of this rate. Other shapes run as they are: no clip waits for a compiler."""
        frames = frames_at(fps, self._settings.clip_frames)
        if not self._settings.compile_unet or self._compiling_failed or frames in self._compiled_frames:
            return
        folder = keep_compiled_code(self._settings)
        begin = time.monotonic()
        try:
            if not self._ready_fast(fps):
                self._compile()
            self._compiled_frames.add(frames)
            for _ in range(3):  # compiles, records CUDA graphs, runs
                self._run_sample(fps)
            self._give_back_memory()
            seconds = time.monotonic() - begin
            logger.info("denoiser compiled for %d frames in %.1f s (kept in %s)", frames, seconds, folder)
        except Exception as error:  # compilers fail in any way; the model as it is always works
            self._compiled_frames.discard(frames)
            self._compiling_failed = True
            logger.warning("--compile-unet has no effect, compiling failed: %s", first_line(error))
        self._write_info()

    def _ready_fast(self, fps: int) -> bool:
        """Makes the fast path ready for the clips of this rate; False where torch.compile has to do."""
        if self._device.type != "cuda":
            return False
        settings = self._settings
        try:
            self._fast = self._fast or FastDenoiser(
                self._eager.models,
                steps=settings.steps,
                guidance_scale=settings.cfg,
                tier=TIERS[settings.tier],
            )
            inputs = self.prepare(self.sample_clip("_warm", 0, fps))
            self._settle()
            reference = self._avatars.get(inputs.clip.avatar).reference
            starts = {0, settings.late_start if settings.use_init_latent else 0}
            self._fast.prepare(inputs.noise, inputs.tokens, inputs.pose, reference, starts=starts)
        except Exception as error:  # an old GPU, no Triton, guidance: torch.compile may still serve
            self._fast = None
            logger.warning("the fast path is not used, torch.compile is: %s", first_line(error))
            return False
        return True

    def _compile(self) -> None:
        self._compiled = self._compiled or ClipDenoiser(
            self._eager.models,
            steps=self._settings.steps,
            guidance_scale=self._settings.cfg,
            compile_unet=True,
        )

    def _settle(self) -> None:
        """Waits for the device: what it was given is done, and may be used from the prefetch stream."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _give_back_memory(self) -> None:
        """What torch holds and nothing uses, which the other processes of the device may need."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ clips

    def prepare(self, clip: Clip) -> Inputs:
        self._check(clip)
        avatar, pose = self._avatars.resolve(clip.avatar), self._poses.resolve(clip.pose)
        if (avatar, pose) != (clip.avatar, clip.pose):
            clip = Clip(clip.session, clip.epoch, clip.seq, clip.pts, clip.fps, avatar, pose, clip.tokens)
        stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with self._device_errors(), torch.inference_mode(), stream:
            indices = self._poses.frame_indices(pose, clip.pts, clip.fps, len(clip.tokens))
            features = self._poses.gather(pose, indices)
            shape = (len(clip.tokens), self._eager.latent_channels, *features.shape[2:])
            seed = clip_seed(self._settings.seed, clip.session, clip.epoch, clip.seq)
            # Drawn on the CPU: the same clip gets the same noise on every device.
            noise = draw_noise(shape, torch.Generator().manual_seed(seed))
            tokens = torch.from_numpy(clip.tokens.copy())
            ready = None
            if self._stream is not None:
                noise, tokens = (x.pin_memory().to(self._device, non_blocking=True) for x in (noise, tokens))
                tokens = tokens.to(self._dtype)
                ready = self._stream.record_event()
        return Inputs(clip, tokens, features, noise, ready)

    def _check(self, clip: Clip) -> None:
        """Raises ClipError for tokens that this model can't take."""
        frames, count, _ = clip.tokens.shape
        motion = self._eager.models.denoiser.config.motion
        if motion is not None and frames > motion.max_frames:
            raise ClipError(f"a clip of {frames} frames: this model takes {motion.max_frames}", fatal=True)
        if count != self._token_count:
            wanted = f"{self._token_count} by this worker's --audio-margin"
            raise ClipError(f"{count} audio tokens a frame, it must be {wanted}", fatal=True)
        if not np.isfinite(clip.tokens).all():
            raise ClipError("its audio tokens are not all finite")

    def denoise(self, inputs: Inputs) -> Array16:
        clip = inputs.clip
        with self._device_errors(), torch.inference_mode():
            reference = self._avatars.get(clip.avatar).reference
            if inputs.ready is not None:
                torch.cuda.current_stream().wait_event(inputs.ready)
            latents = self._sample(inputs, reference)
            made: Array16 = latents.to(torch.float16).cpu().numpy()
        if not np.isfinite(made).all():
            raise ClipError("the denoiser's latents are not all finite")
        self._ends.store(clip.session, clip.epoch, clip.seq, latents[-1].clone())
        return made

    def _sample(self, inputs: Inputs, reference: ReferenceCache) -> Tensor:
        """The clip's latents by the fastest way that is ready for its shape."""
        frames, _, height, width = inputs.noise.shape
        if self._fast is not None and self._fast.prepared(frames, height, width, inputs.tokens.shape[1]):
            latents, start = self._start(self._fast, inputs)
            return self._fast.sample(latents, inputs.tokens, inputs.pose, reference, start)
        denoiser = self._eager
        if self._compiled is not None and frames in self._compiled_frames:
            denoiser = self._compiled
        latents, start = self._start(denoiser, inputs)
        return denoiser.sample(latents, denoiser.project_audio(inputs.tokens), inputs.pose, reference, start)

    def _start(self, denoiser: ClipDenoiser | FastDenoiser, inputs: Inputs) -> tuple[Tensor, int]:
        """What sampling starts from, and at which step: the noise, its first frame near the end of the clip
        before; with --late-start all of them at that end, with as much noise as the step has."""
        clip, noise, late = inputs.clip, inputs.noise, self._settings.late_start
        if not self._settings.use_init_latent:
            return noise, 0
        before = self._ends.before(clip.session, clip.epoch, clip.seq)
        if before is None or before.shape != noise.shape[1:]:
            return noise, 0
        if late:
            return denoiser.steps[late].noised(before, noise), late
        noise[0].mul_(1 - denoiser.preserved).add_(before, alpha=denoiser.preserved)
        return noise, 0

    @contextmanager
    def _device_errors(self) -> Iterator[None]:
        """Memory that ran out costs the clip; a device that is lost costs the process."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self._settle()  # what was started still reads and writes its memory
            self._give_back_memory()
            raise ClipError(f"not enough memory on {self._device} for a clip of this size") from error
        except RuntimeError as error:
            if self._device.type == "cuda" and "CUDA error" in str(error):
                raise DeviceLost(str(error)) from error
            raise

    # ------------------------------------------------------------------ around them

    def background(self) -> bool:
        with self._device_errors():
            more = self._avatars.warm_one() or any(map(self._poses.warm_some, self._poses.names))
            self._settle()
            if not more:
                self._give_back_memory()
        return more

    def close(self, session: str, epoch: int) -> None:
        self._ends.close(session, epoch)

    def sample_clip(self, session: str, seq: int, fps: int) -> Clip:
        frames = frames_at(fps, self._settings.clip_frames)
        pts = seq * frames * 16000 // fps
        tokens = np.random.default_rng(seq).standard_normal((frames, self._token_count, TOKEN_WIDTH))
        avatar, pose = self._avatars.names[0], self._poses.names[0]
        return Clip(session, 0, seq, pts, fps, avatar, pose, tokens.astype(np.float16))

    def _write_info(self) -> None:
        self._info = {
            "model": self._config.name,
            "width": self._width,
            "height": self._height,
            "steps": len(self._eager.steps),
            "cfg": float(self._eager.guidance_scale),
            "device": _device_name(self._device),
            "dtype": _name(self._dtype),
            "attention": attention.describe(),
            "compiled": bool(self._compiled_frames),
            "tier": self._settings.tier if self._fast is not None else "exact",
            "avatars": self._avatars.names,
            "poses": self._poses.names,
        }

    def info(self) -> dict[str, InfoValue]:
        return self._info

    def metrics(self) -> dict[str, float]:
        figures = {"sessions_held": float(len(self._ends))}
        if self._info:
            figures |= {
                "reference_cache_hits_total": float(self._avatars.hits),
                "reference_cache_misses_total": float(self._avatars.misses),
                "reference_cache_entries": float(len(self._avatars)),
                "reference_cache_bytes": float(self._avatars.bytes),
                "pose_cache_hits_total": float(self._poses.hits),
                "pose_cache_misses_total": float(self._poses.misses),
                "pose_cache_bytes": float(self._poses.bytes),
            }
            figures |= device_memory(self._device)
        return figures


def _seconds(task: Callable[[], object]) -> float:
    """Of processor time, all threads together."""
    begin = time.process_time()
    task()
    return time.process_time() - begin


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
