"""The engine that serves: EchoMimic-v2's denoiser, clip by clip.

prepare (prefetch thread): check the tokens, gather pose features, draw noise, copy to the device
denoise (compute thread):  take the reference, sample, check the latents, keep the last one
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpu_worker.engine.beginnings import Beginnings
from gpu_worker.engine.cpu_sampler import CpuSampler
from gpu_worker.engine.parts import Device, Floats, LoadedModel, PreparedClip, Sampler
from gpu_worker.engine.silent_clips import SilentClips
from gpu_worker.engine.start import load_parts
from gpu_worker.engine.still_parts import stilled
from gpu_worker.engine_api import ClipError, LatentsNotFiniteError
from gpu_worker.quality.options import Quality, qualities
from gpu_worker.rate.clip_length import lengths_to_try, spare_length
from gpu_worker.sessions import LatentTable
from protocol.model.vae_folder import has_small_decoder
from protocol.process.c_allocator import return_freed_memory
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FRAME_RATES, SAMPLE_RATE, frames_of_clip, pts_of_clip
from protocol.wire.limits import TOKEN_WIDTH
from protocol.wire.messages import Array16, Clip, InfoValue

logger = logging.getLogger(__name__)

#: Most seconds that start-up spends on the default pose's features, by type of device. The rest is made ahead
#: of the clips that need it, and in the first pauses.
POSE_WARM_SECONDS = {"cpu": 8.0, "cuda": 0.5}

#: The session of clips that warm the device.
WARM_UP_SESSION = "_warm"


class DenoiserEngine:
    """The denoiser of one device. `engine_api.Engine` says which thread calls which method.

    Args:
        settings: of this worker.
    """

    #: Frames of a clip at 24 fps: those to choose from, and those of clips for trials.
    clip_lengths: Sequence[int]
    clip_frames: int
    #: The length for a machine with time to spare.
    spare_length: int | None
    #: Heads of the VAE that may draw, the preferred one first.
    heads: Sequence[bool]
    #: The model, its avatars and its poses, from `load` on.
    model: LoadedModel[Any]
    #: Samples the clips, from `load` on.
    sampler: Sampler
    #: Computes, from `load` on.
    device: Device

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._last_latents = LatentTable[Floats](limit=4 * settings.most_sessions)
        self._beginnings = Beginnings()
        #: Clips without a voice, from `load` on.
        self._silent: SilentClips | None = None
        #: Whether memory was given back after the first pause's work.
        self._tidied = False
        self._info: dict[str, InfoValue] = {}
        self.clip_frames = settings.frames_a_clip
        self.clip_lengths = (self.clip_frames,)
        self.spare_length = None
        #: Frames of the clips that have OpenVINO's own network.
        self._favoured = 0
        self.heads = (False,)

    @property
    def device_type(self) -> str:
        """The kind of device that denoises: "cpu" or "cuda"."""
        return self.device.type

    # ------------------------------------------------------------------ start-up, in the compute thread

    def load(self) -> None:
        """Loads the model, then makes a first clip of each shape that sessions may get."""
        parts = load_parts(self.settings)
        self.model, self.sampler, self.device = parts.model, parts.sampler, parts.device
        self._silent = SilentClips(self.model, self._made_by)
        short = self.model.config.whisper_window == "short"
        self.clip_lengths = lengths_to_try(self.settings, self.device_type, short_window=short)
        self.spare_length = spare_length(self.clip_lengths)
        self.clip_frames = self.clip_lengths[0]
        self.heads = self.model.config.heads(self.settings)
        self._warm()
        return_freed_memory()
        self._info = self._describe()

    def _warm(self) -> None:
        """Prepares what a first clip would wait for: its avatar, its pose, one run of each shape."""
        begin = time.monotonic()
        avatars, poses = self.model.avatars, self.model.poses
        avatars.get(avatars.names[0])
        self.device.wait()
        avatar_ready = time.monotonic()
        while poses.warm_some(poses.names[0]):
            if time.monotonic() - avatar_ready > POSE_WARM_SECONDS[self.device_type]:
                break
        self.device.wait()
        pose_ready = time.monotonic()
        for fps in self._rates_to_warm():
            self._make_warm_up_clip(fps)
        self.device.wait()
        end = time.monotonic()
        logger.info(
            "warm-up took %.1f s (avatar %.1f, pose %.1f, clips %.1f)",
            end - begin, avatar_ready - begin, pose_ready - avatar_ready, end - pose_ready,
        )  # fmt: skip

    def _rates_to_warm(self) -> Sequence[int]:
        """The rates whose clips torch makes, and OpenVINO's first. `make_ready_for` warms its others."""
        if self._fast_serves:  # whose first clip is checked in the same way, and plain torch makes none
            return ()
        if self.settings.fps is not None:
            return (self.settings.fps,)
        if self.settings.compile_unet or self.open_qualities():
            return FRAME_RATES[:1]  # the others are compiled for, or hardly ever asked for
        return FRAME_RATES[:1] if self.sampler.cpu_engine == "openvino" else FRAME_RATES

    @property
    def _fast_serves(self) -> bool:
        """Whether the fast path is to be made ready after the warm-up, and serves where nothing fails."""
        if self.device_type != "cuda" or self.model.denoiser.guidance_scale > 1:
            return False
        return bool(self.settings.compile_unet or self.open_qualities())

    def _make_warm_up_clip(self, fps: int) -> None:
        try:
            self.denoise(self.prepare(self.trial_clip(WARM_UP_SESSION, 0, fps)))
        except LatentsNotFiniteError as error:
            if self.model.dtype != "float16":
                raise
            raise SettingsError(
                f"half precision gives values that are not finite on {self.device.name}; give --dtype float32"
            ) from error
        self.close(WARM_UP_SESSION, 0)

    def make_ready_for(self, fps: int) -> None:
        """Compiles for clips of this rate. Other shapes run in plain torch: no clip waits for a compiler."""
        frames, sampler = frames_of_clip(fps, self.clip_frames), self.sampler
        if isinstance(sampler, CpuSampler):
            if not sampler.ready_for(frames):
                sampler.make_ready(self._warm_up_inputs(fps)[0])
                return_freed_memory()
        elif sampler.can_compile_for(frames):
            sampler.compile_for(
                frames, lambda: self._warm_up_inputs(fps), lambda: self._make_warm_up_clip(fps)
            )
            if not sampler.compiled:  # plain torch serves, which the warm-up has left out
                self._make_warm_up_clip(fps)
            self._info = self._describe()

    def adopt(self, settings: Settings) -> None:
        """Serves by these settings from now on. Tier, late start and the length of clips may differ."""
        self.settings, self.clip_frames = settings, settings.frames_a_clip
        self._beginnings.forget()
        self.sampler.adopt(settings)
        self._info = self._describe()

    def open_qualities(self) -> Sequence[Quality]:
        """What --quality auto may pick. A team keeps its tier, and has lengths that its members can share."""
        settings, model, team = self.settings, self.model, self.device.team
        if (
            settings.quality != "auto"
            or settings.compile_unet is False
            or self.device_type != "cuda"
            or model.denoiser.guidance_scale > 1
            or not model.large
        ):
            return ()
        if team > 1:
            settings = replace(settings, tier=settings.tier or "exact")
        alone = len(settings.gpu_devices) == 1  # others would pick by themselves
        made = qualities(settings, self.steps, tiny=has_small_decoder(model.config), lengths=alone)
        return [one for one in made if one.frames % team == 0]

    @property
    def steps(self) -> int:
        """Steps of the sampler."""
        return len(self.model.denoiser.steps)

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of latents."""
        return self.model.latent_size

    def favour(self, fps: int) -> None:
        """Compiles OpenVINO's own network for the shape of these clips, and `make_ready_for` elsewhere."""
        if isinstance(self.sampler, CpuSampler):
            self.sampler.make_ready(self._warm_up_inputs(fps)[0], favoured=True)
            if (frames := frames_of_clip(fps, self.clip_frames)) != self._favoured:
                self._favoured = frames
                self._make_warm_up_clip(fps)  # a network's first clip takes several times as long
            return_freed_memory()
        else:
            self.make_ready_for(fps)

    def ready_for(self, fps: int) -> bool:
        """Whether clips of this rate are made by a way that is fast here."""
        return self.sampler.ready_for(frames_of_clip(fps, self.clip_frames))

    def _warm_up_inputs(self, fps: int, most: int | None = None) -> tuple[PreparedClip, Any]:
        """Of a clip of this rate, with its first `most` frames."""
        clip = self.trial_clip(WARM_UP_SESSION, 0, fps)
        prepared = self.prepare(replace(clip, tokens=clip.tokens[:most]))
        self.device.wait()
        return prepared, self.model.avatars.get(prepared.clip.avatar).reference

    # ------------------------------------------------------------------ each clip

    def prepare(self, clip: Clip) -> PreparedClip:
        """The clip's tokens, pose features and noise on the device. Runs in the prefetch thread."""
        self._check_tokens(clip)
        avatars, poses = self.model.avatars, self.model.poses
        clip = replace(clip, avatar=avatars.resolve(clip.avatar), pose=poses.resolve(clip.pose))
        with self.device.sending():
            indices = poses.frame_indices(clip.pose, clip.pts, clip.fps, len(clip.tokens))
            pose = poses.gather(clip.pose, indices)
            height, width = pose.shape[2:]
            shape = (self.model.denoiser.latent_channels, height, width)
            noise = self.device.noise(self.sampler.state, clip, shape)
            tokens = self.device.tokens(clip.tokens)
            return PreparedClip(clip, tokens, pose, noise, self.device.sent())

    def prepare_ahead(self, clip: Clip) -> bool:
        """Encodes a few pose frames of the clip after this one. Runs in the prefetch thread."""
        poses, frames = self.model.poses, len(clip.tokens)
        with self.device.sending():
            follows = clip.pts + frames * SAMPLE_RATE // clip.fps
            return poses.warm_frames(clip.pose, poses.frame_indices(clip.pose, follows, clip.fps, frames))

    def _check_tokens(self, clip: Clip) -> None:
        """Raises ClipError for tokens that this model cannot take."""
        frames, count, _ = clip.tokens.shape
        most = self.model.denoiser.max_frames
        if most is not None and frames > most:
            raise ClipError(f"a clip of {frames} frames: this model takes {most}", fatal=True)
        if count != self.model.token_count:
            wanted = f"{self.model.token_count} by this worker's --audio-margin"
            raise ClipError(f"{count} audio tokens a frame, it must be {wanted}", fatal=True)
        if not np.isfinite(clip.tokens).all():
            raise ClipError("its audio tokens are not all finite")

    def denoise(self, inputs: PreparedClip) -> Array16:
        """The clip's scaled latents, float16 (F, C, h, w). Its last one is kept for the clip that follows."""
        clip = inputs.clip
        with self.device.computing():
            reference = self.model.avatars.get(clip.avatar).reference
            if clip.silent and self._silent is not None and (kept := self._silent.read(clip)) is not None:
                return self._follow(clip, kept)
            before = self._last_latents.before(clip.session, clip.epoch, clip.seq)
            if before is None and self.sampler.state.late_start:
                before = self._beginnings.before(clip)
            there = self.device.to_device(inputs, before)
            made, last = self.device.to_host(self.sampler.sample(inputs, reference, there))
        if not np.isfinite(made).all():
            raise LatentsNotFiniteError("the denoiser's latents are not all finite")
        # Only now: latents that are not finite would spoil every clip that follows.
        self._beginnings.keep(clip, made)
        if clip.silent and self._silent is not None:
            self._silent.store(clip, made)
        return self._follow(clip, made, last)

    def reached(self, clip: Clip, seq: int) -> None:
        """The clip that was denoised last goes as far as clip `seq` of its session."""
        last = self._last_latents.before(clip.session, clip.epoch, clip.seq + 1)
        if last is not None:
            self._last_latents.store(clip.session, clip.epoch, seq, last)

    def rest(self, clip: Clip) -> Array16 | None:
        """The latents of a silent clip that was made before. The clip after it follows them."""
        found = None if self._silent is None else self._silent.get(clip)
        return None if found is None else self._follow(*found)

    def _follow(self, clip: Clip, latents: Array16, last: Floats | None = None) -> Array16:
        """Lets this clip follow the one before, and the next clip follow this one.

        Args:
            clip: the clip.
            latents: as the device made them, now or for another session.
            last: the last of them in full precision, or None where that is gone.

        Returns:
            The latents to show.
        """
        if self.sampler.state.holds_still_parts:
            latents = stilled(latents, self._last_latents.before(clip.session, clip.epoch, clip.seq))
            last = None
        kept = latents[-1].astype(np.float32) if last is None else last
        self._last_latents.store(clip.session, clip.epoch, clip.seq, kept)
        return latents

    def _made_by(self) -> object:
        """What decides on a clip's latents beside the model, the avatar, the pose and the tokens."""
        settings, sampler = self.settings, self.sampler
        return sampler.state, settings.steps, settings.cfg, sampler.cpu_engine, settings.cpu_engine

    # ------------------------------------------------------------------ between clips

    def check(self) -> None:
        """Forgets the loops of removed avatars, and those that nobody asks for.

        Raises:
            DeviceLost: a member of the team is lost, which a clip would wait for.
        """
        if self._silent is not None:  # the parts are there
            self.device.check()
            self._silent.forget_old()

    def work_in_pause(self) -> bool:
        """Makes an avatar's reference, some pose features, or one length ready, keeps a loop, or tidies.

        Each call does a little, since a clip may come. Returns False if nothing is left to do.
        """
        avatars, poses = self.model.avatars, self.model.poses
        with self.device.computing():
            more = avatars.warm_one() or any(map(poses.warm_some, poses.names))
            more = more or (self._silent is not None and self._silent.keep_one())
            if not more and isinstance(self.sampler, CpuSampler):
                more = self.sampler.warm_a_length(self.clip_frames, self._warm_up_inputs)
            self.device.wait()
            if not more and not self._tidied and not (more := self.sampler.put_some_aside()):
                self._tidied = True
                self.device.release()
                return_freed_memory()
        return more

    def close(self, session: str, epoch: int) -> None:
        """Forgets the session's last latents up to and including this epoch."""
        self._last_latents.close(session, epoch)

    def trial_clip(self, session: str, seq: int, fps: int) -> Clip:
        """A clip of random tokens, for the first avatar and pose."""
        frames = frames_of_clip(fps, self.clip_frames)
        pts = pts_of_clip(seq, fps, frames)
        shape = (frames, self.model.token_count, TOKEN_WIDTH)
        tokens = np.random.default_rng(seq).standard_normal(shape).astype(np.float16)
        avatar, pose = self.model.avatars.names[0], self.model.poses.names[0]
        return Clip(session, 0, seq, pts, fps, avatar, pose, tokens)

    # ------------------------------------------------------------------ facts and figures

    def _describe(self) -> dict[str, InfoValue]:
        model = self.model
        return {
            "model": model.config.name,
            "width": model.width,
            "height": model.height,
            "steps": len(model.denoiser.steps),
            "cfg": float(model.denoiser.guidance_scale),
            **self.device.facts(),
            "cpu_engine": self.sampler.cpu_engine,
            "compiled": self.sampler.compiled,
            "tier": self.sampler.tier,
            "late_start": self.sampler.state.late_start,
            "clip_frames": self.clip_frames,
            "session_state": self.sampler.state.way,
            "avatars": model.avatars.names,
            "poses": model.poses.names,
        }

    def info(self) -> dict[str, InfoValue]:
        """Facts about model and device, from `load` on."""
        return self._info

    def metrics(self) -> dict[str, float]:
        """Figures of sessions, caches and the device's memory."""
        figures = {"sessions_held": float(len(self._last_latents))}
        if self._info:  # `load` is through
            avatars, poses = self.model.avatars, self.model.poses
            figures |= {
                "reference_cache_hits_total": float(avatars.hits),
                "reference_cache_misses_total": float(avatars.misses),
                "reference_cache_entries": float(len(avatars)),
                "reference_cache_bytes": float(avatars.bytes),
                "pose_cache_hits_total": float(poses.hits),
                "pose_cache_misses_total": float(poses.misses),
                "pose_cache_bytes": float(poses.bytes),
            }
            figures |= {} if self._silent is None else self._silent.figures()
            figures |= self.device.memory()
        return figures
