"""`python -m audio_worker`: read the settings, connect the sockets, run the worker."""

from protocol.model.hardware.gpu_allocator import use_expandable_segments
from protocol.model.hardware.threads import let_waiting_threads_sleep
from protocol.process.settings import settings_from_command_line
from protocol.process.stage import Stage

#: Chunks of speech that may be under way. They are small, and acknowledged as soon as the ring has them.
PCM_CREDIT = 16
#: Clips of one session that may wait for a GPU worker. The oldest one more than that is given up.
MAX_PENDING = 2


def main() -> None:
    """Run an audio worker until it is told to stop."""
    settings = settings_from_command_line()
    let_waiting_threads_sleep()
    use_expandable_segments()
    from audio_worker.sessions import STAGE
    from audio_worker.worker import AudioWorker

    with Stage(
        STAGE,
        settings,
        takes="pcm",
        gives="clips",
        credit=PCM_CREDIT,
        max_pending_per_session=MAX_PENDING,
        acks_may_wait=True,
    ) as stage:
        stage.run(AudioWorker(settings, stage))


if __name__ == "__main__":
    main()
