"""A GPU worker as a real process whose model draws two sizes. The larger one comes back soon."""

from __future__ import annotations

from gpu_worker.prefetch import QUEUE_DEPTH
from gpu_worker.rate import governor
from gpu_worker.worker import GpuWorker, credit
from protocol.process.settings import Settings, settings_from_command_line
from protocol.process.stage import Stage
from protocol.wire.messages import InfoValue
from tests.gpu_worker.worker_process import ToyEngine


class SizedEngine(ToyEngine):
    """`ToyEngine` with two heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.heads = (True, False)

    def info(self) -> dict[str, InfoValue]:
        return super().info() | {"width": 64, "height": 48}


def main() -> None:
    governor.FIRST_SIZE_PATIENCE = 0.5
    settings = settings_from_command_line()
    with Stage(
        "gpu_worker", settings, takes="clips", gives="latents", credit=credit(settings),
        max_pending_per_session=QUEUE_DEPTH,
    ) as stage:  # fmt: skip
        worker = GpuWorker(settings, stage, SizedEngine(settings))
        stage.run(worker)
        worker.stop()


if __name__ == "__main__":
    main()
