"""One film: the stages under a supervisor in the main thread, and the pouring in another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from protocol.hop.endpoints import EndpointError
from protocol.process.settings import Settings
from protocol.wire.messages import Samples
from scripts.render.errors import RenderError, Stopped
from scripts.render.film import Film
from scripts.render.pour import FilmGateway
from scripts.render.progress import RenderProgress
from scripts.run.launch import stage_list, worker_counts
from scripts.run.logfile import LogLimits
from scripts.run.runlog import RunLog
from scripts.run.supervisor import Supervisor

logger = logging.getLogger(__name__)

#: Seconds that the pouring thread gets to end after the stages have.
END_WITHIN = 10.0


class RenderThread(threading.Thread):
    """Pours the sound in, and writes the pictures.

    Args:
        settings: of the run.
        names: ids of avatar and pose.
        samples: the sound, float32 (n,) at 16 kHz.
        film: takes the pictures.
        progress: counts them.
        workers: tells how many are to be warm, by stage. None: all of the settings'.
        ended: is called when the thread has ended its work, well or not.
    """

    #: The cause when the film was not made. Empty when it was, or when it was told to stop.
    fault: str
    finished: bool

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, str],
        samples: Samples,
        film: Film,
        progress: RenderProgress,
        *,
        workers: Callable[[], Mapping[str, int]] | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="render", daemon=True)
        self.fault = ""
        self.finished = False
        self._settings, self._names, self._samples = settings, names, samples
        self._film, self._progress = film, progress
        self._workers = workers or (lambda: worker_counts(settings))
        self._ended = ended
        self._stop_asked = threading.Event()

    def ask_stop(self) -> None:
        """End soon."""
        self._stop_asked.set()

    def run(self) -> None:
        """Make the film."""
        try:
            self._render()
            self.finished = True
        except Stopped:
            pass
        except (RenderError, EndpointError) as error:
            self.fault = str(error)
        except Exception as error:  # of the disk or the video library, or a mistake: the film ends with it
            logger.debug("rendering ended", exc_info=error)
            self.fault = f"{self._film.target} cannot be written: {type(error).__name__}: {error}"
        finally:
            self._ended()

    def _render(self) -> None:
        stand_in = FilmGateway(self._settings, *self._names, self._workers, self._stop_asked)
        try:
            stand_in.wait_warm(self._progress.tell_waiting)
            self._progress.begin()
            stand_in.pour(self._samples, self._take)
        finally:
            stand_in.close()
        self._film.finish()

    def _take(self, jpeg: bytes) -> None:
        self._film.add_picture(jpeg)
        self._progress.step()


def run_job(
    settings: Settings, names: tuple[str, str], samples: Samples, film: Film, progress: RenderProgress
) -> bool:
    """Start the stages, make the film, stop them.

    Returns:
        True when the film is made, False when a signal ended it.

    Raises:
        RenderError: the film cannot be made.
    """
    try:
        limits = LogLimits(settings.log_max_mb * 10**6, settings.log_keep, settings.log_days)
        log = RunLog(settings.log_dir, limits)
    except OSError as error:
        raise RenderError(f"--log-dir {settings.log_dir}: {error.strerror}; choose another") from error
    try:
        stages = [stage for stage in stage_list(settings) if stage.stage != "gateway" and not stage.optional]
        supervisor = Supervisor(stages, log, silent_after=settings.dead_after + 3)
        thread = RenderThread(
            settings,
            names,
            samples,
            film,
            progress,
            # an encoder may be started by hand
            workers=lambda: {"encoder_worker": 1, **supervisor.workers_left()},
            ended=lambda: supervisor.stop("rendered"),
        )
        log.note(f"starting {', '.join(stage.name for stage in stages)}; log: {log.path}")
        thread.start()
        try:
            supervisor.run()
        finally:
            thread.ask_stop()
            thread.join(END_WITHIN)
            progress.clear()
        if supervisor.failed:
            raise RenderError(f"a stage gave up; the whole log: {log.path}")
        if thread.fault:
            raise RenderError(f"{thread.fault}\nthe whole log: {log.path}")
        return thread.finished
    finally:
        log.close()
