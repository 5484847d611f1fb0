"""Every decoder refuses broken input with documented errors alone. `scripts/torture.sh fuzz` takes longer."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

import pytest
from hypothesis import strategies as st

from scripts.torture.__main__ import main as torture
from scripts.torture.fuzz import command, decoder
from scripts.torture.fuzz.command import all_decoders, is_good
from scripts.torture.fuzz.decoder import MAX_GROWTH, FuzzedDecoder, FuzzOutcome, fuzz

pytestmark = pytest.mark.long

DECODERS = {one.name: one for one in all_decoders()}
CASES = 400


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_raises_documented_errors_alone(name: str) -> None:
    outcome = fuzz(DECODERS[name], CASES, start=1)
    assert not outcome.faults, outcome.examples
    assert outcome.cases >= CASES
    assert outcome.taken + outcome.refused == outcome.cases
    # Otherwise the input would be refused at its first byte, and nothing behind it would be tried.
    assert outcome.taken or any(fuzz(DECODERS[name], CASES, start=seed).taken for seed in range(2, 6))


@pytest.mark.parametrize(
    "part",
    [
        *("sound", "control", "down", "query", "hop", "addresses", "requests", "names", "browsers", "flags"),
        *("pictures", "sounds", "poses", "official", "certificates", "weights", "configurations"),
    ],
)
def test_every_kind_of_input_has_a_decoder(part: str) -> None:
    assert [name for name in DECODERS if part in name]


# ------------------------------------------------------------------ the tool itself


def test_an_undocumented_error_is_counted_with_an_example() -> None:
    def decode(value: int) -> None:
        if value % 3 == 0:
            raise ValueError("documented")
        if value % 3 == 1:
            raise KeyError("not documented")

    outcome = fuzz(FuzzedDecoder("planted", st.integers(0, 10**6), decode, (ValueError,)), 300)
    assert outcome.refused and outcome.taken
    assert [kind.split(" at ")[0] for kind in outcome.faults] == ["KeyError"]
    assert outcome.faults.total() == outcome.cases - outcome.refused - outcome.taken
    assert "KeyError('not documented') for " in next(iter(outcome.examples.values()))
    assert not is_good(outcome)


def test_the_same_seed_gives_the_same_inputs() -> None:
    seen: list[list[bytes]] = []
    for _ in range(2):
        inputs: list[bytes] = []
        fuzz(FuzzedDecoder("planted", st.binary(), inputs.append), 200, start=5)
        seen.append(inputs)
    assert seen[0] == seen[1]


def test_kept_memory_is_seen() -> None:
    kept: list[bytes] = []
    outcome = fuzz(FuzzedDecoder("planted", st.integers(), lambda _: kept.append(os.urandom(50_000))), 400)
    assert outcome.growth > MAX_GROWTH
    assert not is_good(outcome)


def test_an_input_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_SECONDS", 0.05)

    def decode(value: int) -> None:
        try:
            time.sleep(60 * (value == 255))
        except Exception:  # must not hold the alarm back
            time.sleep(60)

    outcome = fuzz(FuzzedDecoder("planted", st.sampled_from([1, 255]), decode), 60)
    assert any(kind.startswith("_TooSlow") for kind in outcome.faults)


@pytest.mark.process
def test_the_command_prints_a_row_for_each_and_says_whether_all_is_well(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert torture(["fuzz", "--cases", "100", "--only", "query options,wishes"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == [
        "decoder",
        "browser: query options",
        "tokens: wishes",
    ]
    assert torture(["fuzz", "--only", "nothing"]) == 2
    assert torture(["nothing"]) == 2
    assert torture([]) == 0


def test_a_crash_and_a_fault_end_with_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = iter(
        [FuzzOutcome("a", cases=5), FuzzOutcome("b", faults=Counter(["crashed"]), examples={"crashed": "x"})]
    )
    monkeypatch.setattr(command, "_in_process", lambda *_: next(outcomes))
    assert command.main(["--only", "query options,wishes"]) == 1
    assert "crashed: x" in capsys.readouterr().err


@pytest.mark.process
def test_a_crashed_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    outcome = command._in_process("a", 1, 0)
    assert list(outcome.faults) == ["crashed: exit status 1"]
    assert not is_good(outcome)
