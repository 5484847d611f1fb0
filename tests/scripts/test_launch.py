"""The work of `run_all.sh`: the processes of a run, its flags, poses converted before anything starts."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from protocol.model.assets import display_names, pose_files
from protocol.process.settings import NO_AUTH_WARNING, SettingsError, load_settings
from protocol.process.voices import VOICE_WANTED_FILE
from scripts.run import launch
from scripts.run.poses import PoseError, convert_pose_folders
from scripts.run.runlog import RunLog
from scripts.run.start import START
from tests.helpers.official_pose import write_official_pose


def commands(*flags: str) -> dict[str, list[str]]:
    return {stage.name: list(stage.command) for stage in launch.stage_list(load_settings(flags, env={}))}


def test_one_process_per_stage_by_default() -> None:
    assert list(commands("--voice-engine", "none")) == [
        *("gateway", "audio_worker", "gpu_worker", "encoder_worker")
    ]


def test_the_voice_worker_is_started_when_the_gateway_asks_for_it(tmp_path: Path) -> None:
    flags = ["--voice-url", "http://127.0.0.1:1/v1", "--run-dir", str(tmp_path)]
    voice = launch.stage_list(load_settings(flags, env={}))[-1]
    assert voice.name == "voice_worker" and voice.optional
    assert voice.wanted is not None and not voice.wanted()
    (tmp_path / VOICE_WANTED_FILE).touch()
    assert voice.wanted()


def test_a_speech_engine_that_is_named_and_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    settings = load_settings(["--voice-engine", "flite"], env={})
    with pytest.raises(SettingsError, match="apt-get install flite"):
        launch.check_voice(settings)
    launch.check_voice(load_settings([], env={}))


def test_counts_follow_the_flags_and_each_worker_knows_its_number() -> None:
    made = commands(
        *("--encoders", "3", "--gpu-devices", "cuda:0,cuda:1", "--audio-workers", "2", "--port", "9001"),
        *("--voice-engine", "none"),
    )
    assert list(made) == [
        *("gateway", "audio_worker.0", "audio_worker.1", "gpu_worker.0", "gpu_worker.1"),
        *("encoder_worker.0", "encoder_worker.1", "encoder_worker.2"),
    ]
    for name, command in made.items():
        module, _, index = name.partition(".")
        assert command[command.index(START) + 1] == module
        settings = load_settings(command[command.index(START) + 2 :], env={})
        assert settings.worker_index == int(index or 0)
        assert settings.port == 9001
        assert settings.gpu_devices == ("cuda:0", "cuda:1")


def test_a_flag_of_the_run_reaches_every_stage() -> None:
    for command in commands("--steps", "3", "--no-use-init-latent", "--fps", "12").values():
        settings = load_settings(command[command.index(START) + 2 :], env={})
        assert (settings.steps, settings.use_init_latent, settings.fps) == (3, False, 12)


def test_official_pose_folders_are_converted_and_others_pass(tmp_path: Path) -> None:
    official = write_official_pose(tmp_path / "01")
    track = tmp_path / "calm.npz"
    track.write_bytes(b"")
    (tmp_path / "run").mkdir()
    made = convert_pose_folders((official, track, tmp_path), tmp_path / "run")
    assert made[1:] == (track, tmp_path)
    assert made[0].name == "01.npz"
    assert made[0].is_relative_to(tmp_path / "run")
    with np.load(made[0], allow_pickle=False) as arrays:
        assert arrays["hands"].shape == (3, 2, 21, 2)


def test_poses_of_one_name_are_shown_with_their_folders(tmp_path: Path) -> None:
    folders = [write_official_pose(tmp_path / above / "01") for above in ("alice", "bob")]
    (tmp_path / "run").mkdir()
    files = pose_files(convert_pose_folders(folders, tmp_path / "run"))
    assert display_names(files) == {"01": "01 (alice)", "01-2": "01 (bob)"}


def test_a_damaged_pose_is_named(tmp_path: Path) -> None:
    official = write_official_pose(tmp_path / "01")
    (official / "1.npy").write_bytes(b"not numpy")
    (tmp_path / "run").mkdir()
    with pytest.raises(PoseError, match=r"--pose-dir .*1\.npy"):
        convert_pose_folders((official,), tmp_path / "run")


def test_a_damaged_pose_is_left_out_where_others_are(tmp_path: Path) -> None:
    good, bad = write_official_pose(tmp_path / "01"), write_official_pose(tmp_path / "02")
    (bad / "1.npy").unlink()
    (tmp_path / "run").mkdir()
    left_out: list[str] = []
    made = convert_pose_folders((bad, good), tmp_path / "run", left_out)
    assert [path.name for path in made] == ["01.npz"]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"left out: --pose-dir {bad}: ") and "1.npy is missing" in left_out[0]


@pytest.mark.parametrize("flag", ["--reference-image", "--pose-dir"])
@pytest.mark.parametrize("fault", ["missing", "empty folder", "no picture"])
def test_a_run_without_any_picture_or_pose_does_not_start(
    tmp_path: Path, flag: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "face.png"
    if fault == "empty folder":
        path.mkdir()
    elif fault == "no picture":
        if flag == "--pose-dir":
            pytest.skip("the GPU worker reads poses, and ends the run with the reason")
        path.write_text("hello")
    flags = [flag, str(path), "--run-dir", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    assert launch.main([*flags, "--port", "18347"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"echomimic-live: {path}: ") and told.count("\n") == 1
    assert not (tmp_path / "logs").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [("--host", "0.0.0.0", "--no-auth"), ("--host", "127.0.0.1")])
def test_the_warning_is_the_last_line_of_the_console(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = tmp_path / "console"
    with console.open("a") as output, console.open("a") as errors:
        monkeypatch.setattr("sys.stdout", output)
        log = RunLog(tmp_path / "logs", console=errors)
        launch.say_ready(load_settings(flags, env={}), log)
        log.close()
    lines = console.read_text().splitlines()
    assert "ready: http://127.0.0.1:8080" in lines
    assert (lines[-1] == f"WARNING {NO_AUTH_WARNING}") == ("--no-auth" in flags)


class Readyz(http.server.BaseHTTPRequestHandler):
    """A gateway with two workers in each stage but the first, of which `warm` are warm."""

    warm: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        stages = {stage: "warm" if count else "warming up" for stage, count in self.warm.items()}
        self.send_response(200 if all(self.warm.values()) else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"ready": True, "stages": stages, "warm": self.warm}).encode())

    def log_message(self, *_args: object) -> None:
        pass


def test_readiness_says_what_is_waited_for() -> None:
    """The run is ready when every worker that it started is warm, and not when every stage has one."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Readyz)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    flags = ["--port", str(server.server_port), "--gpu-devices", "cpu,cpu", "--encoders", "2"]
    settings = load_settings(flags, env={})
    expected = {
        (1, 0, 2): "gpu_worker (warming up)",
        (1, 1, 1): "gpu_worker (1 of 2 warm), encoder_worker (1 of 2 warm)",
        (1, 1, 2): "gpu_worker (1 of 2 warm)",
        (1, 2, 3): "",  # an encoder more was started by hand
    }
    try:
        for counts, waiting in expected.items():
            stages = ("audio_worker", "gpu_worker", "encoder_worker")
            Readyz.warm = dict(zip(stages, counts, strict=True))
            answer = launch.ask_ready(settings, launch.worker_counts(settings))
            assert (answer.ready, answer.waiting_for) == (not waiting, waiting)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert launch.ask_ready(settings, {}).waiting_for == "the gateway to answer"


def test_a_log_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    flags = ["--log-dir", str(tmp_path / "file"), "--run-dir", str(tmp_path / "run"), "--port", "45991"]
    assert launch.main(flags) == 1
    assert "--log-dir" in capsys.readouterr().err
