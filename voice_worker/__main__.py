"""`python -m voice_worker`: read the settings, connect the sockets, run the worker."""

from protocol.process.settings import settings_from_command_line
from protocol.process.stage import Stage
from voice_worker.worker import SENTENCES_AT_ONCE, STAGE, VoiceWorker


def main() -> None:
    """Run a voice worker until it is told to stop."""
    settings = settings_from_command_line()
    with Stage(STAGE, settings, takes="sentences", credit=SENTENCES_AT_ONCE) as stage:
        stage.run(VoiceWorker(settings, stage))


if __name__ == "__main__":
    main()
