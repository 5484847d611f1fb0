"""`python -m gpu_worker`: settings → sockets → worker → run."""

from __future__ import annotations

from gpu_worker.engine import DenoiserEngine
from gpu_worker.passthrough import PassthroughEngine
from gpu_worker.prefetch import QUEUE_DEPTH
from gpu_worker.worker import GpuWorker, credit
from protocol.settings import settings_from_command_line
from protocol.stage import Stage


def main() -> None:
    settings = settings_from_command_line()
    with Stage(
        "gpu_worker",
        settings,
        takes="clips",
        gives="latents",
        credit=credit(settings),
        max_pending_per_session=QUEUE_DEPTH,
    ) as stage:
        engine = PassthroughEngine(settings) if settings.passthrough else DenoiserEngine(settings)
        worker = GpuWorker(settings, stage, engine)
        stage.run(worker)
        worker.stop()


if __name__ == "__main__":
    main()
