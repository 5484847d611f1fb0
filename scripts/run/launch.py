"""Start every stage of a run, keep it running, stop it: the program behind `scripts/run_all.sh`.

    python -m scripts.run --port 8080 --encoders 2

Exit status: 0 when told to stop, 1 when a stage gave up or the run could not start, 2 for bad settings.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from protocol.process.settings import (
    NO_AUTH_WARNING,
    Settings,
    SettingsError,
    flags_of,
    is_open_to_all,
    load_settings,
)
from protocol.process.user import complete_user
from protocol.process.voices import VOICE_WANTED_FILE, choose_voice
from scripts.official.errors import OfficialError
from scripts.run.address import base_url, connect_gateway
from scripts.run.guard import guarded
from scripts.run.logfile import LogLimits
from scripts.run.poses import PoseError, convert_pose_folders
from scripts.run.rundir import RunDir, RunDirError, check_port_free
from scripts.run.runlog import RunLog
from scripts.run.start import command_of
from scripts.run.supervisor import Readiness, StageProcess, Supervisor
from scripts.run.welcome import link_command, network_lines, phone_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Check the settings, claim the run folder, and run the stages. Returns the exit status."""
    complete_user()  # the stages inherit it
    try:
        settings = load_settings(argv)
    except SettingsError as error:
        print(f"echomimic-live: {error}", file=sys.stderr)
        return 2
    try:
        check_token_file(settings)
        check_voice(settings)
        check_certificate(settings)
        check_port_free(settings.host, settings.port)
        settings = with_model(settings)
        with (
            RunDir(settings.run_dir, settings.port) as run_dir,
            guarded(run_dir.path.absolute(), settings.port),
        ):
            left_out: list[str] = []
            poses = convert_pose_folders(settings.pose_dir, run_dir.path, left_out)
            settings = dataclasses.replace(settings, pose_dir=poses)
            require_assets(settings)
            return run_stages(settings, left_out)
    except (PoseError, SettingsError) as error:
        print(f"echomimic-live: {error}", file=sys.stderr)
        return 2
    except (RunDirError, OfficialError) as error:
        print(f"echomimic-live: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of a file or folder that none of the steps expected to fail
        print(f"echomimic-live: {error.filename or 'a system call'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the stages were started
        return 0


def check_token_file(settings: Settings) -> None:
    """Read the token file once, so that a wrong one is told before anything starts.

    Raises:
        SettingsError: it cannot be used.
    """
    if settings.token_file is None:
        return
    from gateway.door.token_file import TokenFileError, read_book

    try:
        read_book(settings.token_file)
    except TokenFileError as error:
        raise SettingsError(str(error)) from None


def check_voice(settings: Settings) -> None:
    """Make sure that a speech engine that was named can be had.

    Raises:
        SettingsError: it cannot. The text says why, and what to install.
    """
    choice = choose_voice(settings)
    if settings.voice_engine not in ("auto", "none") and not choice.engine:
        raise SettingsError(choice.why)


def require_assets(settings: Settings) -> None:
    """Make sure that there is a picture and a pose. Otherwise the stages would only fail later.

    Raises:
        AssetError: there is none. The message says why.
    """
    # Not at the top: the flags' help must work before any package is installed.
    from protocol.model.assets import avatar_paths, pose_files, pose_paths
    from protocol.model.pictures import require_picture

    require_picture(avatar_paths(settings))
    pose_files(pose_paths(settings))


def with_model(settings: Settings) -> Settings:
    """The settings with the files of `--model official`, fetched where they were missing.

    Raises:
        OfficialError: they cannot be had.
    """
    if settings.model != "official":
        return settings
    from protocol.model.hardware.torch_missing import require_torch
    from scripts.official.prepare import Preparation  # not needed for the bundled model

    require_torch("--model official")
    return Preparation(settings).run()


def run_stages(settings: Settings, notes: Sequence[str] = ()) -> int:
    """Run the stages until a signal or a failure. Returns the exit status.

    Args:
        settings: of the run.
        notes: lines for the log and the console, before the first stage starts.
    """
    try:
        limits = LogLimits(settings.log_max_mb * 10**6, settings.log_keep, settings.log_days)
        log = RunLog(settings.log_dir, limits)
    except OSError as error:
        print(
            f"echomimic-live: --log-dir {settings.log_dir}: {error.strerror}; choose another", file=sys.stderr
        )
        return 1
    stages = stage_list(settings)

    try:
        for note in notes:
            log.note(note)
        now = [stage.name for stage in stages if stage.wanted is None]
        log.note(f"starting {', '.join(now)}; log: {log.path}")
        supervisor = Supervisor(
            stages,
            log,
            probe=lambda: ask_ready(settings, supervisor.workers_left()),
            on_ready=lambda: say_ready(settings, log),
            # The gateway gives a silent worker up before that, and the others have its jobs.
            silent_after=settings.dead_after + 3,
        )
        return supervisor.run()
    finally:
        log.close()


def say_ready(settings: Settings, log: RunLog) -> None:
    """Say that every worker is warm, where the page is, and who may open it."""
    log.note("every worker is warm; stop with Ctrl-C")
    log.announce(f"ready: {base_url(settings)}")
    for line in network_lines(settings):
        log.note(line)
    for line in phone_lines(settings, sys.stdout):
        log.announce(line)
    if settings.token_file is not None:
        log.note(f"the page asks for a token; an address with one: {link_command(settings)}")
    # The warning is the last line, so that it stays in sight.
    if is_open_to_all(settings):
        log.note(f"WARNING {NO_AUTH_WARNING}")


def check_certificate(settings: Settings) -> None:
    """Read the certificate, or make the self-signed one, so that a wrong one is told before anything starts.

    Raises:
        SettingsError: it cannot serve.
    """
    if not settings.serves_tls:
        return
    # They take a moment to import.
    from gateway.door.certificates import CertificateError
    from gateway.door.tls import TlsGate

    try:
        TlsGate(settings)
    except CertificateError as error:
        raise SettingsError(str(error)) from None


def stage_list(settings: Settings) -> list[StageProcess]:
    """The processes of a run, upstream first: each gets the run's flags and its own `--worker-index`."""
    flags = flags_of(settings)
    stages = []
    for module, count in {"gateway": 1, **worker_counts(settings)}.items():
        for index in range(count):
            name = module if count == 1 else f"{module}.{index}"
            own = ["--worker-index", str(index)]  # after the run's flags: the later one counts
            stages.append(StageProcess(name, command_of(sys.executable, module, *flags, *own)))
    if choose_voice(settings).engine:
        # It costs nothing until the first text comes.
        wanted = settings.run_dir / VOICE_WANTED_FILE
        command = command_of(sys.executable, "voice_worker", *flags)
        stages.append(StageProcess("voice_worker", command, wanted=wanted.exists, optional=True))
    return stages


def worker_counts(settings: Settings) -> dict[str, int]:
    """How many workers of each stage a run starts."""
    return {
        "audio_worker": settings.audio_workers,
        "gpu_worker": len(settings.gpu_devices),
        "encoder_worker": settings.encoders,
    }


def ask_ready(settings: Settings, workers: Mapping[str, int]) -> Readiness:
    """Ask the gateway's `/readyz` once. No answer means that it is not ready.

    The run is ready when all its workers are warm. The gateway serves as soon as every stage has one warm
    worker, but the first sessions would then share the first GPU while the second GPU still compiles.

    Args:
        settings: of the run.
        workers: how many workers of each stage are to be warm. Those that were given up do not count.
    """
    connection = connect_gateway(settings, 0.5)
    try:
        connection.request("GET", "/readyz")
        body = connection.getresponse().read(65536)
    except (OSError, http.client.HTTPException):
        return Readiness(False, "the gateway to answer")
    finally:
        connection.close()
    try:
        waiting = _waiting_for(json.loads(body), workers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Readiness(False, "the stages to warm up")
    return Readiness(not waiting, ", ".join(waiting))


def _waiting_for(told: dict[str, dict[str, Any]], counts: Mapping[str, int]) -> list[str]:
    """The stages of a `/readyz` answer that have not all their workers warm, each with why."""
    waiting = []
    for stage, state in told["stages"].items():
        warm = told["warm"][stage]
        if state != "warm":
            waiting.append(f"{stage} ({state})")
        elif warm < counts[stage]:
            waiting.append(f"{stage} ({warm} of {counts[stage]} warm)")
    return waiting


if __name__ == "__main__":
    sys.exit(main())
