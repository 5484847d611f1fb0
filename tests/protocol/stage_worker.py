"""A stage for the tests of the common loop: turns each clip's latents into frames, as its session says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from protocol.hop.client import Job
from protocol.process.compute import Output
from protocol.process.ledger import JobLedger
from protocol.process.settings import SettingsError, settings_from_command_line
from protocol.process.stage import Stage, Worker
from protocol.wire.messages import ClipKey, Close, Frame, InfoValue, Latents, clip_key


class Painter(Worker):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ledger = JobLedger(stage.jobs.ack)
        self.closed: list[str] = []
        self.resets = 0

    def warm_up(self) -> None:
        if self.stage.settings.seed == 99:
            raise SettingsError("--seed 99: nobody likes it")
        if self.stage.settings.seed == 98:
            raise RuntimeError("it broke")
        time.sleep(0.3)

    def on_job(self, job: Job) -> None:
        if isinstance(job.msg, Close):
            self.closed.append(job.msg.session)
            return
        if job.msg.session == "bad":
            raise KeyError("a bug that this session meets")
        assert isinstance(job.msg, Latents)
        if self.ledger.enter(job, job.msg):
            self.stage.compute.start_task(job.msg, paint, job.msg)

    def on_output(self, output: Output) -> None:
        assert isinstance(output.key, Latents)
        if output.error is not None:
            self.stage.fail(output.key, str(output.error))
            self.ledger.settle(clip_key(output.key))
        elif output.value is not None:
            self.stage.results.send(output.value)

    def on_confirmed(self, key: ClipKey) -> None:
        self.ledger.settle(key)

    def on_reset(self, upstream: int) -> None:
        self.ledger.void(upstream)
        self.resets += 1

    def info(self) -> dict[str, InfoValue]:
        return {"closed": list(self.closed), "resets": self.resets}


def paint(msg: Latents) -> Iterator[Frame]:
    if msg.session == "slow":
        time.sleep(2.2)
    if msg.session == "hang":
        while True:
            pass
    if msg.session == "ill":
        raise ValueError("no such picture")
    count = len(msg.latents)
    for index in range(count):
        yield Frame(msg.session, msg.epoch, msg.seq, index, count, msg.pts, 8, 8, b"jpeg")


if __name__ == "__main__":
    settings = settings_from_command_line()
    with Stage("encoder_worker", settings, takes="latents") as stage:
        stage.run(Painter(stage))
