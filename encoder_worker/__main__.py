"""`python -m encoder_worker`: settings → sockets → worker → run. Start as many as you like, at any time."""

from protocol.model.hardware.gpu_allocator import use_expandable_segments
from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.model.kernels.ahead import start_helper
from protocol.process.c_allocator import keep_freed_memory
from protocol.process.settings import settings_from_command_line
from protocol.process.stage import Stage


def main() -> None:
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    use_expandable_segments()
    keep_freed_memory()
    if not settings.passthrough:
        start_helper("encoder_worker.fast.ahead", settings, settings.encoder_devices)
    from encoder_worker.worker import STAGE, EncoderWorker

    with Stage(STAGE, settings, takes="latents") as stage:
        stage.run(EncoderWorker(settings, stage))


if __name__ == "__main__":
    main()
