"""`python -m gpu_worker`: settings → sockets → worker → run."""

from __future__ import annotations

from gpu_worker.engine_api import Engine
from gpu_worker.prefetch import QUEUE_DEPTH
from gpu_worker.worker import GpuWorker, credit
from protocol.model.hardware.early_gpu import open_early
from protocol.model.hardware.gpu_allocator import use_expandable_segments
from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.model.kernels.ahead import start_helper
from protocol.process.settings import Settings, settings_from_command_line
from protocol.process.stage import Stage


def main() -> None:
    """Runs one GPU worker until a signal stops it."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    use_expandable_segments()
    if not settings.passthrough and settings.worker_index < len(settings.gpu_devices):
        device = settings.gpu_devices[settings.worker_index]
        open_early(device)
        start_helper("gpu_worker.fast.ahead", settings, [device])
    with Stage(
        "gpu_worker",
        settings,
        takes="clips",
        gives="latents",
        credit=credit(settings),
        max_pending_per_session=QUEUE_DEPTH,
        acks_may_wait=True,
    ) as stage:
        worker = GpuWorker(settings, stage, engine_for(settings))
        stage.run(worker)
        worker.stop()


def engine_for(settings: Settings) -> Engine:
    """The engine that --passthrough or its absence asks for."""
    # Only one of them is imported, because the models' libraries take seconds.
    if settings.passthrough:
        from gpu_worker.engine.passthrough import PassthroughEngine

        return PassthroughEngine(settings)
    from gpu_worker.engine.serve import DenoiserEngine

    return DenoiserEngine(settings)


if __name__ == "__main__":
    main()
