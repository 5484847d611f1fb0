"""`python -m audio_worker`: settings → sockets → worker → run."""

from protocol.model.hardware.gpu_allocator import use_expandable_segments
from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.process.settings import settings_from_command_line
from protocol.process.stage import Stage

PCM_CREDIT = 16
"""Chunks are small and acknowledged as soon as they are in the ring."""
MAX_PENDING = 2
"""Clips of one session that wait for a GPU worker; what exceeds it is given up, oldest first."""


def main() -> None:
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    use_expandable_segments()
    from audio_worker.sessions import STAGE
    from audio_worker.worker import AudioWorker

    with Stage(
        STAGE, settings, takes="pcm", gives="clips", credit=PCM_CREDIT, max_pending_per_session=MAX_PENDING
    ) as stage:
        stage.run(AudioWorker(settings, stage))


if __name__ == "__main__":
    main()
