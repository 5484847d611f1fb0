"""`python -m encoder_worker`: settings → sockets → worker → run. Start as many as you like, at any time."""

from protocol.model.hardware.allocator import keep_freed_memory
from protocol.model.hardware.gpu_allocator import grow_segments
from protocol.model.hardware.threads import sleep_at_barriers
from protocol.process.settings import settings_from_command_line
from protocol.process.stage import Stage


def main() -> None:
    settings = settings_from_command_line()
    sleep_at_barriers()
    grow_segments()
    keep_freed_memory()
    from encoder_worker.worker import STAGE, EncoderWorker

    with Stage(STAGE, settings, takes="latents") as stage:
        stage.run(EncoderWorker(settings, stage))


if __name__ == "__main__":
    main()
