"""Turns an epoch's pieces of speech into messages for the audio worker, and remembers their clips."""

from __future__ import annotations

import numpy as np

from gateway.core.audio_log import Piece
from gateway.core.options import SessionOptions
from protocol.wire.messages import Pcm, Samples

#: Pcm messages whose clip is remembered. Fewer can wait for an audio worker.
REMEMBERED_PCM = 256


class PcmMaker:
    """The messages of one epoch, numbered from 0."""

    def __init__(self, session: str, epoch: int, options: SessionOptions, history: Samples | None) -> None:
        """`history`: the sound before the epoch, which the first message carries."""
        self._session = session
        self._epoch = epoch
        self._options = options
        self._history = np.empty(0, np.float32) if history is None else history
        self._next = 0
        #: seq of a recent message → the clip it belongs to.
        self._clips: dict[int, int] = {}

    def clip_of(self, seq: int) -> int | None:
        """The clip that a recent message belongs to."""
        return self._clips.get(seq)

    def make(self, piece: Piece) -> Pcm:
        """The next message."""
        seq, self._next = self._next, self._next + 1
        self._clips[seq] = piece.clip
        self._clips.pop(seq - REMEMBERED_PCM, None)
        history, self._history = self._history, self._history[:0]
        return Pcm(
            session=self._session,
            epoch=self._epoch,
            seq=seq,
            pts=piece.pts,
            sample_rate=self._options.sample_rate,
            fps=self._options.shape.fps,
            clip_frames=self._options.shape.frames,
            avatar=self._options.avatar,
            pose=self._options.pose,
            flush=piece.flush,
            samples=np.concatenate([history, piece.samples]) if len(history) else piece.samples,
            history=len(history),
            codec=self._options.codec,
        )
