"""Runs the search for a quality: has the engine and the encoders make the clips that it asks for."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from gpu_worker.engine_api import Engine
from gpu_worker.quality.kept import KeptQuality, KnownQuality
from gpu_worker.quality.options import Quality
from gpu_worker.quality.search import QualitySearch, Timing, describe
from gpu_worker.rate.runner import TrialRunner
from gpu_worker.rate.trial import RateChoice
from protocol.process.settings import Settings

#: Most of a clip's duration that a clip of a kept quality may take, while others follow it.
MOST_SHARE_AGAIN = 0.9

#: Times the kept seconds of a clip that follows no other, up to which a card is as quick as it was. Then no
#: clips in a row are timed.
AS_QUICK = 1.1

logger = logging.getLogger(__name__)


class QualityRunner:
    """Picks a quality and has the engine serve it. Belongs to the compute thread.

    Args:
        engine: denoises the clips.
        settings: of this worker.
        trials: has clips made and decoded.
    """

    #: The decoder to ask the encoders for, "" for their own choice.
    decoder: str

    def __init__(self, engine: Engine, settings: Settings, trials: TrialRunner) -> None:
        self._engine = engine
        self._settings = settings
        self._trials = trials
        self.decoder = ""
        self._adopted: Quality | None = None
        #: The times of clips in a row.
        self._in_flow: dict[Quality, RateChoice] = {}
        #: Decoders that an encoder makes, or has made.
        self._asked_for: set[str] = set()

    def run(self) -> tuple[Settings, RateChoice | None]:
        """The settings to serve by, and the rate that was timed with them.

        Where nothing is to be picked, they are the given ones and None.
        """
        choices = list(self._engine.open_qualities())
        if not choices:
            return self._settings, None
        kept = KeptQuality(self._settings, str(self._engine.info()["device"]), choices)
        known = kept.load()
        timed = None if known is None else self._check(known)
        if known is not None and timed is not None:
            quality = known.quality
            if timed.clip_seconds <= MOST_SHARE_AGAIN * quality.lasts:
                takes = f"a clip takes {timed.clip_seconds / quality.lasts:.0%} of its duration"
                logger.info("quality, as an earlier start found: %s: %s", quality, takes)
                return self._adopt(quality), timed
        kept.forget()
        picked, seconds, alone, notice = self._search(choices)
        if picked is None:
            self._engine.adopt(self._settings)
            return self._settings, None
        is_ready = self._adopted == picked and picked in self._in_flow
        timed = self._in_flow[picked] if is_ready else self._serve(picked)
        seconds = seconds if timed is None else timed.clip_seconds
        if not notice:
            kept.store(KnownQuality(picked, seconds, alone))
        return self._adopt(picked), RateChoice(picked.fps, seconds, notice, picked.clip_frames)

    def _check(self, known: KnownQuality) -> RateChoice | None:
        """Makes a kept quality ready, and times it anew where the card may be slower than it was."""
        quality, decoding = known.quality, known.quality.decoding
        self._prepare(quality)
        # Where there are several encoders, only clips in a row reach all of them.
        if self._settings.encoders != 1 or not self._trials.has_decoder(decoding):
            return self._serve(quality)
        self.decoder = self._trials.decoder = decoding
        if self._trials.time_denoising(quality.fps) > AS_QUICK * known.alone_seconds:
            return self._serve(quality)
        return RateChoice(quality.fps, known.clip_seconds, "", quality.clip_frames)

    def _search(self, choices: list[Quality]) -> tuple[Quality | None, float, float, str]:
        """The quality to serve, the seconds of its clip, and a notice where even that is not held.

        The second number is the seconds of denoising such a clip that follows no other.
        """
        begin = time.monotonic()
        search = QualitySearch(choices, self._engine.steps, apart=self._decodes_apart())
        while (timing := search.next()) is not None:
            search.timed(timing, self._time(timing))
        size = "{width}×{height}".format_map(self._engine.info())
        line, notice = describe(search, size)
        level = logging.WARNING if notice else logging.INFO
        logger.log(level, "quality, found in %.1f s: %s", time.monotonic() - begin, line)
        picked = search.result or search.least
        if picked is None:
            return None, 0.0, 0.0, notice
        return picked, search.share(picked) * picked.lasts, search.alone(picked), notice

    def _serve(self, quality: Quality) -> RateChoice | None:
        """Makes the quality ready, and times its clips as a session's come."""
        self._prepare(quality)
        self.decoder = self._trials.decoder = quality.decoding
        return self._trials.time_rate(quality.fps)

    def _prepare(self, quality: Quality) -> None:
        """Makes the engine ready for clips of the quality, and an encoder at the same time."""
        self._adopt(quality)
        if quality.decoding not in self._asked_for:
            self._asked_for.add(quality.decoding)
            self._trials.ask_for(quality.fps, quality.decoding)
        self._engine.make_ready_for(quality.fps)

    def _decodes_apart(self) -> bool:
        """Whether the encoders surely have another device."""
        own = set(self._settings.gpu_devices[self._settings.worker_index].split("+"))
        return own.isdisjoint(others := self._settings.encoder_devices) and "auto" not in {*own, *others}

    def _time(self, timing: Timing) -> float | None:
        begin = time.monotonic()
        quality = timing.quality
        if timing.kind == "flow":
            timed = self._serve(quality)
            if timed is not None:
                self._in_flow[quality] = timed
            seconds = None if timed is None else timed.clip_seconds
        elif timing.kind == "decode":
            # by the tier that is ready, since any latents do
            now = self._adopted or quality
            self._adopt(replace(quality, tier=now.tier, late_start=now.late_start))
            seconds = self._trials.time_decoding(quality.fps, timing.name)
        else:
            self._prepare(quality)
            compiled = self._engine.info().get("compiled")
            seconds = self._trials.time_denoising(quality.fps) if compiled else None
        shown = "fails" if seconds is None else f"{seconds * 1e3:.0f} ms"
        logger.info(
            "%s by %s, %d frames: %s, timed in %.1f s",
            timing.kind, timing.name, quality.frames, shown, time.monotonic() - begin,
        )  # fmt: skip
        return seconds

    def _adopt(self, quality: Quality) -> Settings:
        """Has the engine serve it, and returns the settings that say so."""
        settings = replace(
            self._settings,
            compile_unet=True,
            tier=quality.tier,
            late_start=quality.late_start,
            decoder=quality.decoder,
            clip_frames=quality.clip_frames,
        )
        self._trials.adopt(settings)
        if self._adopted != quality:
            self._engine.adopt(settings)
            self._adopted = quality
        return settings
