"""Checks one session's stream frame by frame and sample by sample.

No I/O: bytes and times come in. Frame i sits at sample `i * 16000 // fps` of the 16 kHz stream. A busy
machine makes only every second, third, … frame of a clip. These keep the numbers that they had among all.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from protocol.wire.browser import VideoMessage, decode_down
from protocol.wire.clock import SAMPLE_RATE, first_frame_from, pts_of_clip, pts_of_frame, samples_until
from protocol.wire.messages import Samples

#: Jitter buffer of the play-out that decides which frames are late, in seconds.
JITTER = 0.15
_PTS_COMMENT = re.compile(rb"\xff\xfe..echomimic pts=(\d+)", re.DOTALL)


@dataclass(slots=True)
class Report:
    """One session's figures, with latencies in seconds. `problems` is empty when every check passed.

    `fps` and `clip_frames` are those of most clips. The latency counts from a clip's last sample.
    `sound_mean` is the mean time from a frame's sample sent to the frame received. `behind_most` is the most
    seconds that a frame was behind its sound, in the play-out that decides which frames are late.
    """

    version: int
    fps: int
    clip_frames: int
    seconds: float
    frames_expected: int
    frames_received: int
    order_by: str
    frames_late: int
    received_fps: float
    latency_median: float
    latency_p95: float
    echoed: int
    sent: int
    avatar: str = ""
    behind_most: float = 0.0
    sound_mean: float = float("nan")
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        echo = "equal to the sound sent" if self.echoed >= self.sent and not self.problems else "see below"
        return [
            f"speech       {self.seconds:.2f} s, version {self.version} of the wire"
            + (f", avatar {self.avatar}" if self.avatar else ""),
            f"frames       {self.frames_received} of {self.frames_expected} ({self.fps} fps, clips of"
            f" {self.clip_frames}), order checked by {self.order_by}; late {self.frames_late}",
            f"sound        {self.echoed} samples echoed of {self.sent}, {echo}",
            f"received     {self.received_fps:.2f} fps",
            f"latency      median {self.latency_median * 1000:.0f} ms, p95 {self.latency_p95 * 1000:.0f} ms"
            " (clip's last sample sent to its first frame received);"
            f" mean {self.sound_mean * 1000:.0f} ms (a frame's sample sent to the frame received)",
            *(f"FAILED       {problem}" for problem in self.problems),
        ]


class StreamCheck:
    """Records a client's messages with their times (`sent`, `received`), and judges them (`report`).

    Args:
        version: of the wire.
        fps: the session's highest frame rate.
        clip_frames: frames of a clip at that rate.
        rate: rate of the client's samples.
    """

    def __init__(self, version: int, fps: int, clip_frames: int, rate: int = SAMPLE_RATE) -> None:
        self.version, self.fps, self.clip_frames, self.rate = version, fps, clip_frames, rate
        self.numbers: list[int] = []  # of the frames, in the order received
        self.times: list[float] = []  # when
        #: Clip → the difference between the numbers of its frames.
        self._steps: dict[int, int] = {}
        self._marked = version == 2
        #: Number of the session's first frame. Its first clip may begin later, for the sake of others' clips.
        self._first = 0
        self._sent = 0
        #: (samples sent until then, when), in order.
        self._sendings: list[tuple[int, float]] = []
        self._echo: list[Samples] = []
        self._problems: list[str] = []

    def clip_start(self, clip: int) -> int:
        """Position of a clip's first sample, in the client's samples."""
        silence = samples_until(pts_of_frame(self._first, self.fps), self.rate)
        return max(0, samples_until(pts_of_clip(clip, self.fps, self.clip_frames), self.rate) - silence)

    def sent(self, samples: int, now: float) -> None:
        """Record that `samples` more were handed to the socket at `now`."""
        self._sent += samples
        self._sendings.append((self._sent, now))

    def received(self, data: bytes, now: float) -> VideoMessage | None:
        """Record a binary message. Returns the frame if it is one.

        Raises:
            BrowserError: it is no message at all.
        """
        message = decode_down(data, self.version)
        if not isinstance(message, VideoMessage):
            if not self._echo and self.version == 2:
                self._first = first_frame_from(message.pts, self.fps)
            self._take_sound(message.samples, message.position, message.frames_follow)
            return None
        self.numbers.append(self._number(message))
        self.times.append(now)
        if not message.data.startswith(b"\xff\xd8") or not message.data.endswith(b"\xff\xd9"):
            self._problem(f"frame {self.numbers[-1]} is not a whole JPEG")
        return message

    @property
    def complete(self) -> bool:
        """Whether every frame of the speech sent so far is here."""
        return len(self.numbers) >= self.frames_expected

    @property
    def frames_expected(self) -> int:
        """Frames of the speech sent, the last clip filled with silence."""
        return len(self._wanted())

    def report(self, samples: Samples, avatar: str = "") -> Report:
        """Check everything against `samples`, the speech that the client meant to send, shape (n,)."""
        if self._sent != len(samples):
            self._problem(f"only {self._sent} of {len(samples)} samples could be sent")
        self._check_frames()
        echoed = self._check_echo(samples)
        delays = self.latencies()
        return Report(
            version=self.version,
            fps=self.fps // self._usual_step(),
            clip_frames=self.clip_frames // self._usual_step(),
            seconds=len(samples) / self.rate,
            frames_expected=self.frames_expected,
            frames_received=len(self.numbers),
            order_by=self._order_by(),
            frames_late=self.frames_late(),
            received_fps=self.received_fps(),
            latency_median=float(np.median(delays)) if delays else float("nan"),
            latency_p95=float(np.percentile(delays, 95)) if delays else float("nan"),
            echoed=echoed,
            sent=len(samples),
            avatar=avatar,
            behind_most=max(0.0, *self.behind()) if self.times else 0.0,
            sound_mean=float(np.mean(heard)) if (heard := self.sound_latencies()) else float("nan"),
            problems=list(self._problems),
        )

    def latencies(self) -> list[float]:
        """For each clip wholly spoken: seconds from its last sample sent to its first frame received."""
        return [came - sent for sent, came in self.clip_times()]

    def clip_times(self) -> list[tuple[float, float]]:
        """For each clip wholly spoken: when its last sample was sent and its first frame received.

        A first clip that begins later is left out: its frames are held back for as long.
        """
        firsts: dict[int, float] = {}
        for number, when in zip(self.numbers, self.times, strict=True):
            if number % self.clip_frames == 0:
                firsts.setdefault(number // self.clip_frames, when)
        return [(sent, firsts[k]) for k, sent in enumerate(self._clips_sent()) if k in firsts]

    def sound_latencies(self) -> list[float]:
        """For each frame: seconds from the sample at its pts sent to the frame received.

        A frame's place in its clip counts, since the first one's sample waits for the rest of the clip.
        """
        silence = samples_until(pts_of_frame(self._first, self.fps), self.rate)
        sent = [samples for samples, _ in self._sendings]
        delays = []
        for number, when in zip(self.numbers, self.times, strict=True):
            position = samples_until(pts_of_frame(number, self.fps), self.rate) - silence
            place = bisect_right(sent, position)  # the message with that sample
            if position >= 0 and place < len(sent):
                delays.append(when - self._sendings[place][1])
        return delays

    def _clips_sent(self) -> list[float]:
        """When the last sample of each clip was sent."""
        times: list[float] = []
        for samples, when in self._sendings:
            while self.clip_start(len(times) + 1) <= samples:
                times.append(when)
        return times

    def received_fps(self) -> float:
        """Frames a second between the first frames of the first and the last clip (0 with less than two).

        A clip's frames may come all at once, so anything but whole clips would count too many.
        """
        firsts = [place for place, number in enumerate(self.numbers) if number % self.clip_frames == 0]
        if len(firsts) < 2 or self.times[firsts[-1]] <= self.times[firsts[0]]:
            return 0.0
        return (firsts[-1] - firsts[0]) / (self.times[firsts[-1]] - self.times[firsts[0]])

    def frames_late(self) -> int:
        """Frames after their slot in a play-out that begins `JITTER` after the first frame came."""
        return sum(behind > 0 for behind in self.behind())

    def behind(self) -> list[float]:
        """For each frame: seconds past that slot, negative for one in time."""
        if not self.times:
            return []
        start = self.times[0] + JITTER - self.numbers[0] / self.fps
        return [
            when - (start + number / self.fps) for number, when in zip(self.numbers, self.times, strict=True)
        ]

    def _number(self, message: VideoMessage) -> int:
        if self.version == 2:
            step = self._steps[message.seq] = max(1, self.clip_frames // message.count)
            number = message.seq * self.clip_frames + message.index * step
            if message.epoch != 0 or message.count * step != self.clip_frames:
                self._problem(f"frame {number}: epoch {message.epoch}, {message.count} frames in its clip")
            expected = pts_of_frame(number, self.fps)
            if message.pts != expected:
                self._problem(f"frame {number} carries pts {message.pts}, not {expected}")
            return number
        mark = _PTS_COMMENT.search(message.data, 0, 128)
        if mark is None:
            return len(self.numbers)
        self._marked = True
        number = first_frame_from(int(mark.group(1)), self.fps)
        clip, place = divmod(number, self.clip_frames)
        if place and self.numbers[-1:] == [clip * self.clip_frames]:
            self._steps[clip] = place
        return number

    def _wanted(self) -> list[int]:
        """Numbers of the frames of the speech sent."""
        clip = 0
        wanted: list[int] = []
        while self.clip_start(clip) < self._sent:
            wanted += self._frames_of(clip)
            clip += 1
        return wanted

    def _frames_of(self, clip: int) -> range:
        first, step = clip * self.clip_frames, self._steps.get(clip, 1)
        later = -(-max(0, self._first - first) // step) * step
        return range(first + later, first + self.clip_frames, step)

    def _usual_step(self) -> int:
        return statistics.mode(self._steps.values()) if self._steps else 1

    def _order_by(self) -> str:
        if self.version == 2:
            return "pts"
        if self._marked:
            return "the pts in each picture's comment"
        return "count and each clip's sound (version 1 has no pts)"

    def _take_sound(self, samples: Samples, position: int, pictures: bool) -> None:
        here = sum(map(len, self._echo))
        if self.version == 2 and position != here:
            self._problem(f"sound of position {position} came where {here} was due")
        # version 1: a clip's sound leads its pictures
        due = sum(len(self._frames_of(clip)) for clip in range(len(self._echo)))
        if self.version == 1 and len(self.numbers) != due:
            self._problem(f"the sound of sample {here} came after {len(self.numbers)} frames, not {due}")
        if not pictures:
            self._problem(f"the pictures of the clip at sample {here} were dropped")
        self._echo.append(samples)

    def _check_frames(self) -> None:
        wanted = self._wanted()
        if len(self.numbers) != len(wanted):
            self._problem(f"{len(self.numbers)} frames received, {len(wanted)} expected")
        for place, number in enumerate(self.numbers):
            if place >= len(wanted) or number != wanted[place]:
                what = "twice" if number in self.numbers[:place] else "out of order or after a gap"
                self._problem(f"frame {number} came {what}, as number {place}")
                break

    def _check_echo(self, samples: Samples) -> int:
        """Samples echoed. The last clip's padding with silence may follow, nothing else."""
        echo = np.concatenate(self._echo) if self._echo else np.empty(0, np.float32)
        shared = min(len(echo), len(samples))
        wrong = np.flatnonzero(echo[:shared].view(np.uint32) != samples[:shared].view(np.uint32))
        if len(wrong):
            self._problem(f"echoed sound differs from the sound sent at sample {wrong[0]}")
        if len(echo) < len(samples):
            self._problem(f"{len(samples) - len(echo)} samples were not echoed")
        rest = echo[len(samples) :]
        if len(rest) >= self.clip_start(2) - self.clip_start(1) or np.any(rest):
            self._problem(f"{len(rest)} samples were echoed that were never sent")
        return len(echo)

    def _problem(self, text: str) -> None:
        if len(self._problems) < 20:
            self._problems.append(text)
