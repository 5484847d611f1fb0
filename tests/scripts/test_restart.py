"""The restart policy, by property: what is retried, how long it waits, when it gives up, and the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.process.cause import MAX_WORDS, count_oom_kills, describe_end, describe_status
from scripts.run.restart import EXIT_CONFIGURATION, GiveUp, Restart, RestartPolicy

crash = st.integers(-64, 255).filter(lambda status: status != EXIT_CONFIGURATION)
#: Seconds of work: none at all, because it never became ready, or too few.
too_short = st.none() | st.floats(0, 29.9)
long_enough = st.floats(30, 1e6)


@given(st.lists(too_short, min_size=3, max_size=3), st.lists(crash, min_size=3, max_size=3))
def test_three_failed_starts_in_a_row_end_it_whatever_the_status(
    worked: list[float | None], statuses: list[int]
) -> None:
    policy = RestartPolicy()
    answers = [policy.ended(seconds, status, "x") for seconds, status in zip(worked, statuses, strict=True)]
    assert answers[:2] == [Restart(0.5), Restart(1.0)]
    assert isinstance(answers[2], GiveUp)
    assert "3 times" in answers[2].reason and not answers[2].misconfigured
    assert ("before it was ready" in answers[2].reason) == (worked == [None] * 3)


@given(st.lists(st.tuples(too_short, too_short, long_enough), max_size=20), crash)
def test_a_start_that_worked_begins_the_count_anew(
    runs: list[tuple[float | None, float | None, float]], status: int
) -> None:
    policy = RestartPolicy()
    for triple in runs:
        for worked in triple:
            assert isinstance(policy.ended(worked, status, "x"), Restart)


@given(too_short | long_enough)
def test_a_configuration_that_cannot_work_is_final(worked: float | None) -> None:
    answer = RestartPolicy().ended(worked, EXIT_CONFIGURATION, "status 2: no key vae")
    assert answer == GiveUp("cannot work with this configuration (status 2: no key vae)", misconfigured=True)


def test_statuses_read_well() -> None:
    assert describe_status(3) == "status 3"
    assert describe_status(-15) == "signal 15 (SIGTERM)"
    assert describe_status(-64) == "signal 64 (SIGRTMAX)"
    assert describe_status(-200) == "signal 200"


LOGGED = "12:00:00.001 CRITICAL gpu_worker.0 protocol.process.stage: gpu_worker ends by an error"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["INFO fine", "MemoryError"], "status 1, out of memory: MemoryError"),
        (["terminate called after throwing an instance of 'std::bad_alloc'"], "status 1"),
        (
            ["RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory"],
            "status 1, out of memory: RuntimeError: [enforce fail] . DefaultCPUAllocator:"
            " can't allocate memory",
        ),
        (
            [f"{LOGGED} | Traceback: | x | torch.OutOfMemoryError: CUDA out of memory."],
            "status 1, out of GPU memory: torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            ["RuntimeError: CUDA error: out of memory", "RuntimeError: the loop ended"],
            "status 1, out of GPU memory: RuntimeError: CUDA error: out of memory",
        ),
        (
            ["OSError: [Errno 28] No space left on device: '/tmp/x'"],
            "status 1, the disk is full: OSError: [Errno 28] No space left on device: '/tmp/x'",
        ),
        (["ValueError: first", f"{LOGGED}", "INFO last words"], "status 1: gpu_worker ends by an error"),
        (["it said nothing that sounds like a failure"], "status 1"),
        ([], "status 1"),
    ],
)
def test_the_reason_is_in_the_last_lines(lines: list[str], told: str) -> None:
    assert describe_end(1, lines) == told


@pytest.mark.parametrize(
    ("kills", "told"),
    [
        (1, "killed, probably for lack of memory (the kernel"),
        (None, "killed, probably for lack of memory"),
        (0, "killed from outside"),
    ],
)
def test_a_kill_is_told_by_the_kernels_count(kills: int | None, told: str) -> None:
    assert describe_end(-9, ["ValueError: an hour ago"], kills).startswith(f"signal 9 (SIGKILL): {told}")
    assert describe_end(-11, [], kills) == "signal 11 (SIGSEGV)"


def test_a_long_reason_is_cut() -> None:
    assert len(describe_end(1, ["ValueError: " + "x" * 10_000])) < MAX_WORDS + 20


def test_the_kernels_count_is_a_number_where_there_is_one() -> None:
    count = count_oom_kills()
    assert count is None or count >= 0
