"""A decoder under test, and its figures."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from scripts.torture.fuzz.mutations import vary

#: Bytes by which a process may grow while it decodes.
MAX_GROWTH = 5_000_000
#: Seconds that one input may take.
MAX_SECONDS = 10.0
#: Inputs that hypothesis draws in one round. It remembers those of a round alone.
ROUND = 200
#: Inputs made of each one that hypothesis draws, by changing a part of it. A draw takes a millisecond.
VARIANTS = 9
#: Part of the inputs after which the memory is first measured: by then every table and cache is filled.
WARM = 0.25
#: Characters of an input, and of an error, that a report quotes.
MAX_QUOTED = 300


@dataclass(frozen=True)
class FuzzedDecoder:
    """One decoder.

    Attributes:
        name: for the table.
        inputs: what hypothesis draws inputs from.
        decode: takes one of them.
        errors: the errors that its documentation names.
        most_growth: bytes by which the process may grow while it decodes 100,000 inputs.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    decode: Callable[[Any], object]
    errors: tuple[type[BaseException], ...] = ()
    most_growth: int = MAX_GROWTH


@dataclass
class FuzzOutcome:
    """What came of a decoder's inputs."""

    name: str
    cases: int = 0
    #: Inputs that it took.
    taken: int = 0
    #: Inputs that it refused with a documented error.
    refused: int = 0
    #: Undocumented errors by kind and place.
    faults: Counter[str] = field(default_factory=Counter)
    #: The first input of each.
    examples: dict[str, str] = field(default_factory=dict)
    #: Resident memory of the process at the end, less that after the first quarter of the inputs, in bytes.
    growth: int = 0
    most_growth: int = MAX_GROWTH
    #: The slowest input, in seconds.
    slowest: float = 0.0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**vars(self), "faults": dict(self.faults)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> FuzzOutcome:
        """The outcome that `as_json` made this of."""
        return cls(**{**told, "faults": Counter(told["faults"])})


class _TooSlow(BaseException):
    """An input took longer than MAX_SECONDS. No `except Exception` of a decoder holds it back."""


def fuzz(decoder: FuzzedDecoder, cases: int, start: int = 0) -> FuzzOutcome:
    """Give a decoder this many inputs.

    Args:
        decoder: the decoder.
        cases: how many inputs.
        start: the first round's seed. The same seed gives the same inputs.
    """
    outcome = FuzzOutcome(decoder.name, most_growth=decoder.most_growth)
    began = time.monotonic()
    warm: int | None = None
    rounds = 0
    draws = max(1, min(ROUND, math.ceil(WARM * cases / (1 + VARIANTS))))
    with _alarm():
        while outcome.cases < cases:
            before = outcome.cases
            _one_round(decoder, min(draws, cases - before), start + rounds, outcome)
            rounds += 1
            if outcome.cases == before:  # a space of inputs that is smaller than a round
                break
            if warm is None and outcome.cases >= WARM * cases:
                warm = resident_bytes()
    outcome.growth = max(0, resident_bytes() - (warm or 0))
    outcome.seconds = time.monotonic() - began
    return outcome


def _one_round(decoder: FuzzedDecoder, draws: int, number: int, outcome: FuzzOutcome) -> None:
    random = Random(number)

    @seed(number)
    @settings(
        max_examples=draws,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(decoder.inputs)
    def one(case: object) -> None:
        _one_case(decoder, case, outcome)
        for _ in range(VARIANTS):
            _one_case(decoder, vary(case, random), outcome)

    one()


def _one_case(decoder: FuzzedDecoder, case: object, outcome: FuzzOutcome) -> None:
    outcome.cases += 1
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        decoder.decode(case)
        outcome.taken += 1
    except decoder.errors:
        outcome.refused += 1
    except (Exception, SystemExit, _TooSlow) as error:
        kind = _kind_of(error)
        outcome.faults[kind] += 1
        outcome.examples.setdefault(kind, f"{error!r:.{MAX_QUOTED}} for {case!r:.{MAX_QUOTED}}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    outcome.slowest = max(outcome.slowest, time.monotonic() - began)


def _kind_of(error: BaseException) -> str:
    """The error's type, and the last place in the project that it came through."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}"


@contextmanager
def _alarm() -> Iterator[None]:
    """End an input that takes too long."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    before, left = signal.signal(signal.SIGALRM, ring), signal.getitimer(signal.ITIMER_REAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)  # somebody else's alarm, such as a test's time limit


def resident_bytes() -> int:
    """The process's memory, without what is only waiting to be used again."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than glibc has no such call
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


class Scratch:
    """A folder with one file that is written anew for each input."""

    def __init__(self) -> None:
        # It goes when this object does, and stays when the process crashes, with the input in it.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would be what is measured
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory)

    def file(self, name: str, content: bytes) -> Path:
        """A file of this name with this content. Only this user can read it."""
        path = Path(self._folder.name) / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path
