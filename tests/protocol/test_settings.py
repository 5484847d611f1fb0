from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.process.settings import ROOT, Settings, SettingsError, flag, flags_of, load_settings
from protocol.process.settings.sources import ENV_PREFIX
from protocol.process.settings.values import kind_of, parse


def load(*argv: str, env: dict[str, str] | None = None) -> Settings:
    return load_settings(list(argv), env or {})


def test_the_defaults_are_the_documented_ones() -> None:
    s = load()
    assert (s.port, s.audio_margin, s.use_init_latent, s.compile_unet) == (8080, 2, True, None)
    assert (s.sample_rate, s.fps, s.frames_a_clip, s.steps, s.cfg) == (16000, None, 12, None, None)
    assert (s.quality, s.clip_frames, s.tier, s.decoder, s.late_start) == ("auto", None, None, None, None)
    assert s.session_state == "auto"
    assert s.config.name == "infer_bundled.yaml" and s.config.is_absolute()
    assert s.host == "127.0.0.1" and s.encoders == 1 and s.gpu_devices == ("auto",)
    assert s == Settings()


def test_flags_go_before_environment_before_file(tmp_path: Path) -> None:
    file = tmp_path / "live.yaml"
    file.write_text("port: 1001\nfps: 12\nclip-frames: 6\n")
    env = {"ECHOMIMIC_PORT": "1002", "ECHOMIMIC_FPS": "8"}
    s = load("--settings", str(file), "--port", "1003", env=env)
    assert (s.port, s.fps, s.clip_frames) == (1003, 8, 6)
    assert load(env={"ECHOMIMIC_SETTINGS": str(file)}).port == 1001


def test_every_kind_of_value_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from_flags = load(
        "--no-use-init-latent", "--compile-unet", "--reference-image", "a.png", "--reference-image", "b.png",
        "--gpu-devices", "cuda:0,cuda:1", "--gpu-devices", "cpu", "--cfg", "2.5", "--pose-dir", "p",
    )  # fmt: skip
    from_env = load(
        env={
            "ECHOMIMIC_USE_INIT_LATENT": "off", "ECHOMIMIC_COMPILE_UNET": "1", "ECHOMIMIC_CFG": "2.5",
            "ECHOMIMIC_REFERENCE_IMAGE": "a.png:b.png", "ECHOMIMIC_GPU_DEVICES": "cuda:0, cuda:1,cpu",
            "ECHOMIMIC_POSE_DIR": "p",
        }
    )  # fmt: skip
    (tmp_path / "s.yaml").write_text(
        "use_init_latent: no\ncompile-unet: true\ncfg: 2.5\nreference_image: [a.png, b.png]\n"
        "gpu_devices: [cuda:0, cuda:1, cpu]\npose_dir: p\nfps:\n"
    )
    monkeypatch.chdir("/")
    from_file = load("--settings", str(tmp_path / "s.yaml"))
    assert from_flags == from_env == from_file
    assert from_flags.reference_image == (tmp_path / "a.png", tmp_path / "b.png")
    assert from_flags.endpoints("latents")[2].endswith("latents.2")


@pytest.mark.parametrize(
    ("argv", "env", "named"),
    [
        (["--port", "x"], {}, "--port x"),
        (["--port", "0"], {}, "--port 0.*1 to 65535"),
        (["--port"], {}, "--port"),
        (["--prot", "1"], {}, "--prot"),
        (["--width", "100"], {}, "--width 100.*multiple of 8"),
        (["--cfg", "nan"], {}, "--cfg nan"),
        (["--idle-flush", "soon"], {}, "--idle-flush soon"),
        (["--host", "0.0.0.0"], {}, "--host 0.0.0.0.*scripts.tokens add.*--no-auth"),
        (["--dtype", "int8"], {}, "--dtype int8.*bfloat16"),
        (["--gpu-devices", ","], {}, "--gpu-devices"),
        (["--config", ""], {}, "--config"),
        (["--config", "~nobody-here/x"], {}, "--config ~nobody"),
        (["--run-dir", "/tmp/" + "x" * 100], {}, "--run-dir.*shorter"),
        (["--settings", "/nowhere.yaml"], {}, "--settings /nowhere.yaml.*No such file"),
        (["stray"], {}, "stray"),
        ([], {"ECHOMIMIC_PORT": "http"}, "ECHOMIMIC_PORT http"),
        ([], {"ECHOMIMIC_PROT": "1"}, "ECHOMIMIC_PROT.*ECHOMIMIC_PORT"),
        ([], {"ECHOMIMIC_COMPILE_UNET": "maybe"}, "ECHOMIMIC_COMPILE_UNET maybe.*on or off"),
    ],
)
def test_errors_name_the_flag(argv: list[str], env: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(*argv, env=env)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("porrt: 1", "porrt.*port"),
        ("port: [1]", "port"),
        ("port: yes", "port"),
        ("fps: 2.5", "fps"),
        ("encoders: true", "encoders"),
        ("config: 7", "config"),
        ("run_dir:", "run_dir"),
        ("- port", "not a map"),
        ("port: {", "not YAML"),
        ("!!python/object/apply:os.system [id]", "not YAML"),
        ("compile_unet: [on]", "compile_unet"),
        ("gpu_devices: []", "gpu_devices"),
        ("[" * 1500, "not YAML"),
    ],
)
def test_errors_name_the_files_entry(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"bad.yaml.*{named}"):
        load("--settings", str(file))


def test_variables_of_other_tools_are_left_alone() -> None:
    assert load(env={"ECHOMIMIC_LIVE_VENV": "/x", "PORT": "1"}) == load()


def test_a_process_started_by_hand_finds_the_run() -> None:
    a, b = load("--port", "9001"), load("--port", "9001", "--encoders", "3", "--jpeg-quality", "50")
    assert a.run_dir == b.run_dir != load().run_dir
    assert a.endpoint("pcm") == b.endpoint("pcm") == f"ipc://{a.run_dir}/pcm"


def test_endpoints() -> None:
    s = load("--audio-workers", "3", "--gpu-devices", "a,b", "--run-dir", "/tmp/r")
    assert s.endpoints("pcm") == ["ipc:///tmp/r/pcm"] and s.endpoint("results") == "ipc:///tmp/r/results"
    assert s.endpoints("clips") == [f"ipc:///tmp/r/clips.{i}" for i in range(3)]
    assert s.endpoints("latents") == ["ipc:///tmp/r/latents.0", "ipc:///tmp/r/latents.1"]
    for wrong in (("pcm", 0), ("clips", None), ("frames", None), ("clips", 100)):
        with pytest.raises(ValueError, match="endpoint"):
            s.endpoint(*wrong)


def test_tcp_ports_do_not_meet() -> None:
    s = load("--transport", "tcp", "--tcp-base-port", "20000")
    urls = [s.endpoint("pcm"), s.endpoint("results")]
    urls += [s.endpoint(name, i) for name in ("clips", "latents") for i in range(100)]
    assert len(set(urls)) == len(urls) and all(u.startswith("tcp://127.0.0.1:20") for u in urls)


paths = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8).map(
    lambda t: f"/x/{t}"
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "port": st.integers(1, 65535),
            "use_init_latent": st.booleans(),
            "fps": st.sampled_from([None, 8, 12, 24]),
            "cfg": st.none() | st.floats(1, 30),
            "reference_image": st.lists(paths.map(Path), max_size=3).map(tuple),
            "gpu_devices": st.lists(st.sampled_from(["cpu", "cuda:1"]), min_size=1, max_size=3).map(tuple),
            "dead_after": st.floats(1, 600),
            "config": paths.map(Path),
        },
    )
)
def test_a_child_gets_the_same_settings_by_flags(changes: dict[str, object]) -> None:
    s = dataclasses.replace(load(), **changes)  # type: ignore[arg-type]
    assert load(*flags_of(s)) == s


def test_every_field_is_a_flag_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(flag(f.name) in text for f in dataclasses.fields(Settings))


def test_settings_made_in_code_are_held_to_the_same_limits() -> None:
    with pytest.raises(SettingsError, match="--port"):
        Settings(port=0)


def test_the_command_line_tells_and_exits_with_2() -> None:
    code = "from protocol.process.settings import settings_from_command_line as s; s()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--port", "no"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "--port no" in done.stderr and "Traceback" not in done.stderr


def test_help_needs_nothing_installed() -> None:
    code = (
        "import sys, protocol.process.settings;"
        "print([m for m in ('yaml', 'numpy', 'zmq', 'msgpack', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "3", 3),
        (float | None, "", None),
        (float | None, "2.5", 2.5),
        (bool, "on", True),
        (Path, "a", Path("/here/a")),
        (tuple[Path, ...], "a:/b", (Path("/here/a"), Path("/b"))),
        (tuple[str, ...], "cpu, cuda:0", ("cpu", "cuda:0")),
    ],
)
def test_a_fields_annotation_says_how_it_is_read(annotation: object, text: str, value: object) -> None:
    assert parse(kind_of(annotation), "--flag", text, Path("/here")) == value


@pytest.mark.parametrize("annotation", [list[int], int | str, dict])
def test_a_type_that_no_setting_can_have(annotation: object) -> None:
    with pytest.raises(TypeError, match="no setting"):
        kind_of(annotation)


def test_only_the_settings_read_the_projects_variables() -> None:
    """Other code may set variables of libraries. The variables of this project have one reader."""
    for package in ("protocol", "gateway", "audio_worker", "gpu_worker", "encoder_worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name != "settings":
                assert ENV_PREFIX not in path.read_text(encoding="utf-8"), path
