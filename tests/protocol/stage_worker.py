"""A stage for the tests of the common loop: turns each clip's latents into frames, as its session says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from protocol.hop.client import Job
from protocol.process.compute import Output
from protocol.process.settings import SettingsError, settings_from_command_line
from protocol.process.stage import Stage, Worker
from protocol.wire.messages import ClipKey, Close, Frame, InfoValue, Latents


class Painter(Worker):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.jobs: dict[ClipKey, Job] = {}
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
        key = (job.msg.session, job.msg.epoch, job.msg.seq)
        self.jobs[key] = job
        self.stage.compute.start_task(key, paint, job.msg)

    def on_output(self, output: Output) -> None:
        if output.error is not None:
            job = self.jobs.pop(output.key)  # type: ignore[arg-type]
            self.stage.fail(job.msg, str(output.error))  # type: ignore[arg-type]
            self.stage.jobs.ack(job)
        elif output.value is not None:
            self.stage.results.send(output.value)

    def on_confirmed(self, key: ClipKey) -> None:
        self.stage.jobs.ack(self.jobs.pop(key))

    def on_reset(self, upstream: int) -> None:
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
