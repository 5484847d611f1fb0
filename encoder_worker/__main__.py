"""`python -m encoder_worker`: settings → sockets → worker → run. Start as many as you like, at any time."""

from protocol.cuda_memory import grow_segments
from protocol.openmp import sleep_at_barriers
from protocol.settings import settings_from_command_line
from protocol.stage import Stage

from .allocator import keep_freed_memory


def main() -> None:
    settings = settings_from_command_line()
    sleep_at_barriers()
    grow_segments()
    keep_freed_memory()
    from .worker import STAGE, EncoderWorker

    with Stage(STAGE, settings, takes="latents") as stage:
        stage.run(EncoderWorker(settings, stage))


if __name__ == "__main__":
    main()
