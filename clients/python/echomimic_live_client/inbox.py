"""Pictures and sound that came: each once, with its place in time, kept until the program takes it.

No I/O. One timeline goes over all epochs and connections: an epoch begins where the one before it ended.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from echomimic_live_client.wire import CODECS, PTS_RATE, FrameMessage, Ready, Samples, SoundMessage

#: Clips whose places are remembered. Pictures come at most a few seconds after their sound.
REMEMBERED_CLIPS = 64
#: Seconds of sound that wait for a program that takes none, before the oldest is dropped.
MOST_SOUND = 60.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture.

    Attributes:
        data: its bytes, a JPEG unless the options name other codecs.
        epoch: the life of the session's state, from 0. A new one begins with other options or after a fault.
        seq: its clip, in its epoch.
        index: its number in its clip.
        count: pictures of its clip.
        pts: its place in its epoch, in samples at 16 kHz.
        time: its place in the session, in seconds of play-out. Padded pauses count.
        position: number of the pushed sample that is heard when the picture is shown.
        codec: `jpeg`, `h264` (Annex B) or `vp8`.
        key: whether it can be decoded without the earlier pictures of its clip.
        idle: whether nobody speaks in it. It has no sound, and is shown when it comes.
    """

    data: bytes = field(repr=False)
    epoch: int
    seq: int
    index: int
    count: int
    pts: int
    time: float
    position: int
    codec: str = CODECS[0]
    key: bool = True
    idle: bool = False

    @property
    def jpeg(self) -> bytes:
        """The JPEG. Raises ValueError where the picture is coded otherwise."""
        if self.codec != CODECS[0]:
            raise ValueError(f"the picture is no JPEG: it is coded as {self.codec}, see `VideoDecoder`")
        return self.data


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of one clip, as it was pushed.

    Attributes:
        samples: float32, shape (n,), at `rate`.
        rate: in Hz.
        epoch: see `Frame`.
        seq: the clip.
        pts: place of its first sample, see `Frame`.
        time: see `Frame`.
        position: number of its first sample among all samples that were pushed.
        has_frames: False where the clip's pictures do not come. The last picture stays then.
        said: whether the server made it of a text. `position` then counts the samples pushed before it.
    """

    samples: Samples = field(repr=False)
    rate: int
    epoch: int
    seq: int
    pts: int
    time: float
    position: int
    has_frames: bool
    said: bool = False


class Inbox:
    """The messages of a session that the program has not taken yet.

    Args:
        keep_frames: whether pictures are kept. Without them they count as passed over.
        keep_sounds: whether sound is kept.

    Attributes:
        epoch: the epoch that runs.
        heard: the clip whose sound came last in this epoch, -1 before the first.
        seen: clip and index of the picture that came last in this epoch, -1 before the first.
        sounds_dropped: sounds that the program did not take within `MOST_SOUND`.
        frames_passed: pictures that came too late for `next_in_order`.
    """

    def __init__(self, keep_frames: bool = True, keep_sounds: bool = True) -> None:
        self.frames: deque[Frame] = deque()
        self.sounds: deque[Sound] = deque()
        self.epoch = 0
        self.heard = -1
        self.seen = (-1, -1)
        self.sounds_dropped = 0
        self.frames_passed = 0
        self._keep_frames, self._keep_sounds = keep_frames, keep_sounds
        self._session: tuple[str, int, int] | None = None
        self._rate = PTS_RATE
        self._clip_seconds = 0.5
        #: Number, of all samples that were pushed, of the session's first one.
        self._offset = 0
        #: Time of the epoch's beginning, and of the end of the last sound.
        self._base = self._end = 0.0
        #: seq → first sample, samples and pts of a clip's sound in this epoch.
        self._clips: dict[int, tuple[int, int, int]] = {}
        #: Frames of the clip of `seen`.
        self._seen_count = 0
        #: Whether the pictures of the last sound come.
        self._awaits_frames = False
        #: Whether nothing is taken until an epoch begins, after an interruption.
        self._deaf = False
        #: The end of everything that was handed out, in seconds.
        self._given_end = 0.0
        #: The time up to which `next_in_order` gave everything, and the clip whose pictures it gives.
        self._told = -1.0
        self._open: Sound | None = None

    def begin(self, ready: Ready, offset: int) -> None:
        """A `ready` came. `offset` is the number, of all samples pushed, of the session's first one."""
        self._rate, self._offset = ready.sample_rate, offset
        self._clip_seconds = ready.clip_frames / ready.fps
        session = ready.session, offset, ready.epoch
        if session != self._session:
            self._session = session
            self._begin_epoch(ready.epoch)

    def interrupted(self, epoch: int) -> None:
        """The server has dropped everything, and begins an epoch."""
        if self._session is not None:
            self._session = (*self._session[:2], epoch)
        self._deaf = False
        self._begin_epoch(epoch)

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._base = self._end
        self.heard, self.seen = -1, (-1, -1)
        self._clips.clear()
        self._awaits_frames = False

    def add_sound(self, message: SoundMessage) -> int | None:
        """Sound came. Returns the position after it, or None for sound of before or that is here already."""
        if self._deaf or message.epoch != self.epoch or message.seq <= self.heard:
            return None
        self.heard = message.seq
        self._awaits_frames = message.has_frames
        position, length = self._offset + message.position, len(message.samples)
        time = self._base + message.pts / PTS_RATE
        self._end = max(self._end, time + self._length_of(length))
        own = 0 if message.said else length
        self._clips[message.seq] = position, own, message.pts
        if len(self._clips) > REMEMBERED_CLIPS:
            del self._clips[next(iter(self._clips))]
        if self._keep_sounds:
            self._keep_sound(message, time, position)
        return position + own

    def _length_of(self, samples: int) -> float:
        """Seconds of play-out of a clip with so many samples: a short one is padded."""
        return max(self._clip_seconds, samples / self._rate)

    def _keep_sound(self, message: SoundMessage, time: float, position: int) -> None:
        self.sounds.append(
            Sound(
                samples=message.samples,
                rate=self._rate,
                epoch=message.epoch,
                seq=message.seq,
                pts=message.pts,
                time=time,
                position=position,
                has_frames=message.has_frames,
                said=message.said,
            )
        )
        while self.sounds[-1].time - self.sounds[0].time > MOST_SOUND:
            self.sounds.popleft()
            self.sounds_dropped += 1

    def add_frame(self, message: FrameMessage) -> bool:
        """A picture came. False for one of before or that is here already."""
        if self._deaf or message.epoch != self.epoch or (message.seq, message.index) <= self.seen:
            return False
        self.seen, self._seen_count = (message.seq, message.index), message.count
        if self._keep_frames:
            self.frames.append(
                Frame(
                    data=message.data,
                    codec=message.codec,
                    key=message.key,
                    idle=message.idle,
                    epoch=message.epoch,
                    seq=message.seq,
                    index=message.index,
                    count=message.count,
                    pts=message.pts,
                    time=self._base + message.pts / PTS_RATE,
                    position=self._spoken_in(message),
                )
            )
        return True

    def _spoken_in(self, message: FrameMessage) -> int:
        """The sample that is spoken in a picture: in a padded pause, the one after the clip's last."""
        first, length, pts = self._clips.get(message.seq, (self._offset, 0, message.pts))
        return first + min(length, max(0, message.pts - pts) * self._rate // PTS_RATE)

    @property
    def last_clip_whole(self) -> bool:
        """Whether every picture of the last sound is here, or none comes."""
        clip, index = self.seen
        at_end = clip == self.heard and index == self._seen_count - 1
        return not self._awaits_frames or clip > self.heard or at_end

    def next_frame(self) -> Frame | None:
        """The next picture, taken out."""
        if not self.frames:
            return None
        frame = self.frames.popleft()
        self._given_end = max(self._given_end, frame.time)
        return frame

    def next_sound(self) -> Sound | None:
        """The next sound, taken out."""
        if not self.sounds:
            return None
        sound = self.sounds.popleft()
        self._given_end = max(self._given_end, sound.time + self._length_of(len(sound.samples)))
        return sound

    def next_in_order(self, *, waited: bool = False) -> Frame | Sound | None:
        """The next of pictures and sounds by time, taken out. None while the next one may still come.

        Args:
            waited: whether the pictures before the next sound were waited for long enough.
        """
        while self.frames and self.frames[0].time < self._told:
            self.frames.popleft()
            self.frames_passed += 1
        if self.frames and (not self.sounds or self.frames[0].time < self.sounds[0].time):
            frame = self.next_frame()
            assert frame is not None
            self._told = frame.time
            if frame.index == frame.count - 1:
                self._open = None
            return frame
        # A picture of a later time is the sign that no more of the open clip come.
        if self._open is not None and not self.frames and not waited:
            return None
        sound = self.next_sound()
        if sound is None:
            return None
        self._told = sound.time
        self._open = sound if sound.has_frames and self._keep_frames else None
        return sound

    def interrupt(self) -> None:
        """Drop everything that waits, and everything that comes until the server has dropped it too."""
        self.frames.clear()
        self.sounds.clear()
        self._open = None
        self._deaf = True
        # Time goes on from the end of what the program has.
        self._end = self._given_end
