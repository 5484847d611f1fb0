"""The ledger of jobs in hand, and that every worker which holds jobs keeps one."""

from __future__ import annotations

import ast
from pathlib import Path

from protocol.hop.client import Job, JobOrigin
from protocol.process.ledger import JobLedger
from protocol.process.settings import ROOT
from protocol.wire.messages import clip_key
from tests.protocol.samples import one_latents


class Upstreams:
    """Makes jobs and remembers which ones were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.ledger = JobLedger(lambda job: self.acknowledged.append(job.origin.number))

    def enter(self, number: int, seq: int, upstream: int = 0, session: str = "s", epoch: int = 0) -> bool:
        work = one_latents(session=session, epoch=epoch, seq=seq)
        return self.ledger.enter(Job(work, JobOrigin(upstream, 0, number), float(number)), work)


def test_a_clip_sent_twice_is_worked_on_once_and_acknowledged_twice() -> None:
    upstreams = Upstreams()
    assert upstreams.enter(1, seq=0)
    assert not upstreams.enter(2, seq=0, upstream=1)
    assert upstreams.enter(3, seq=1)
    assert upstreams.ledger.received_at(("s", 0, 0)) == 1.0
    assert upstreams.ledger.settle(("s", 0, 0)) == 2 and upstreams.acknowledged == [1, 2]
    assert ("s", 0, 0) not in upstreams.ledger and ("s", 0, 1) in upstreams.ledger
    assert upstreams.ledger.settle(("s", 0, 0)) == 0 and upstreams.acknowledged == [1, 2]


def test_a_session_is_settled_up_to_its_epoch() -> None:
    upstreams = Upstreams()
    for number, (session, epoch) in enumerate([("s", 0), ("s", 1), ("s", 2), ("t", 0)]):
        upstreams.enter(number, 0, session=session, epoch=epoch)
    upstreams.ledger.settle_session("s", 1)
    assert upstreams.acknowledged == [0, 1]
    assert ("s", 2, 0) in upstreams.ledger and ("t", 0, 0) in upstreams.ledger


def test_an_upstream_takes_its_jobs_back() -> None:
    upstreams = Upstreams()
    upstreams.enter(1, seq=0, upstream=0)
    upstreams.enter(2, seq=1, upstream=0)
    upstreams.enter(3, seq=1, upstream=1)
    assert upstreams.ledger.void(0) == [("s", 0, 0)]
    assert upstreams.acknowledged == []
    assert upstreams.ledger.settle(("s", 0, 1)) == 1 and upstreams.acknowledged == [3]
    assert upstreams.enter(4, seq=0, upstream=0), "what comes back is new work"


def test_the_key_of_a_clip() -> None:
    assert clip_key(one_latents(session="a", epoch=2, seq=3)) == ("a", 2, 3)


def _names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_the_workers_that_hold_jobs_keep_them_in_a_ledger() -> None:
    for path in ("gpu_worker/worker.py", "encoder_worker/worker.py"):
        assert "JobLedger" in _names(ROOT / path), path
    for package in ("audio_worker", "gpu_worker", "encoder_worker"):
        for file in sorted((ROOT / package).rglob("*.py")):
            assert "list[Job]" not in file.read_text(encoding="utf-8"), f"{file} keeps jobs by itself"
