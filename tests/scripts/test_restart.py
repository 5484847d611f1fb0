"""The restart policy, by property: which ends are retried, how long it waits, when it gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scripts.run.restart import EXIT_CONFIGURATION, GiveUp, Restart, RestartPolicy, describe_status

crash = st.integers(-64, 255).filter(lambda status: status != EXIT_CONFIGURATION)
quick = st.floats(0, 29.9)
slow = st.floats(30, 1e6)


@given(st.lists(quick, min_size=3, max_size=3), st.lists(crash, min_size=3, max_size=3))
def test_three_quick_failures_in_a_row_end_it_whatever_the_status(
    runs: list[float], statuses: list[int]
) -> None:
    policy = RestartPolicy()
    answers = [policy.ended(ran, status) for ran, status in zip(runs, statuses, strict=True)]
    assert answers[:2] == [Restart(0.5), Restart(1.0)]
    assert isinstance(answers[2], GiveUp)
    assert "3 times" in answers[2].reason


@given(st.lists(st.tuples(quick, quick, slow), max_size=20), crash)
def test_a_long_run_starts_the_count_anew(runs: list[tuple[float, float, float]], status: int) -> None:
    policy = RestartPolicy()
    for triple in runs:
        for ran in triple:
            assert isinstance(policy.ended(ran, status), Restart)


@given(st.floats(0, 1e6))
def test_a_configuration_that_cannot_work_is_final(ran: float) -> None:
    assert isinstance(RestartPolicy().ended(ran, EXIT_CONFIGURATION), GiveUp)


def test_statuses_read_well() -> None:
    assert describe_status(3) == "status 3"
    assert describe_status(-15) == "signal 15 (SIGTERM)"
    assert describe_status(-64) == "signal 64 (SIGRTMAX)"
    assert describe_status(-200) == "signal 200"
