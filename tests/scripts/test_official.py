"""`--model official`: files that are here, the question, the plan, and whole downloads by the command."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from protocol.model.config import ModelConfig
from protocol.process.settings import Settings, SettingsError, flags_of, load_settings
from protocol.process.settings.places import official_config
from scripts.official import prepare
from scripts.official.catalogue import ACCELERATED, ECHOMIMIC, LICENCES, PLAIN, TAESD, WHISPER_WEIGHTS
from scripts.official.errors import OfficialError
from scripts.official.hub import Hub
from scripts.official.licences import LicenceMemory
from scripts.official.machine import Outlook, cpu_warning, memory_warning
from scripts.official.prepare import Preparation
from scripts.official.progress import Progress, size_text
from scripts.official.search import hub_cache, hub_home, own_folder, search, weights_in
from scripts.run.managed import ROOT
from tests.helpers.hub_server import COMMIT, Fault, HubServer
from tests.helpers.official_hub import Repositories, official_repositories
from tests.helpers.official_pose import write_official_pose

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3400035733\n"
FILES = 8
OWN = "huggingface/echomimic-live/pretrained_weights"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the official repository with small random weights."""
    return tmp_path_factory.mktemp("echomimic_v2")


@pytest.fixture(scope="module")
def repositories(layout: Path) -> Repositories:
    return official_repositories(layout)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of a user's who has nothing yet, for this process too."""
    values = {
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HF_HOME": str(tmp_path / "huggingface"),
    }
    (tmp_path / "home").mkdir()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return dict(os.environ)


@pytest.fixture
def mine(layout: Path, repositories: Repositories, tmp_path: Path) -> Path:
    """A copy of the checkout, to be damaged."""
    shutil.copytree(layout, tmp_path / "mine")
    return tmp_path / "mine"


def given(*flags: str) -> Settings:
    """The settings with a portrait and a pose, so that no samples are wanted."""
    return load_settings(
        ["--model", "official", "--reference-image", "a.png", "--pose-dir", "b.npz", *flags], {}
    )


def run_here(settings: Settings, env: dict[str, str]) -> tuple[Settings, str]:
    """Prepare without a terminal. Returns the settings and everything that was told."""
    console = io.StringIO()
    return Preparation(settings, env, io.StringIO(), console).run(), console.getvalue()


@pytest.fixture
def server(repositories: Repositories) -> Iterator[HubServer]:
    with HubServer(repositories) as running:
        yield running


def hub_of(server: HubServer) -> type[Hub]:
    """The client of a server in this process, which reads HF_ENDPOINT once."""

    class Here(Hub):
        def __init__(self) -> None:
            super().__init__()
            self.endpoint, self.offline = server.url, False

    return Here


# ------------------------------------------------------------------ settings


def test_the_configuration_follows_from_the_settings(env: dict[str, str], tmp_path: Path) -> None:
    settings = load_settings(["--model", "official"], {})
    assert settings.config == tmp_path / "state/echomimic-live/official/official.yaml"
    assert load_settings(flags_of(settings), {}) == settings  # as the stages get it
    elsewhere = load_settings(["--model", "official", "--model-dir", "weights"], {})
    assert elsewhere.model_dir == Path.cwd() / "weights"
    assert elsewhere.config == official_config(os.environ, elsewhere.model_dir) != settings.config
    with pytest.raises(SettingsError, match="--model official has its own; give one of the two"):
        load_settings(["--model", "official", "--config", "infer.yaml"], {})
    with pytest.raises(SettingsError, match="give --model official too"):
        load_settings(["--model-dir", "weights"], {})


# ------------------------------------------------------------------ files that are here


@pytest.mark.parametrize("flag", ["", "pretrained_weights"])
def test_a_checkout_is_used_as_it_is(
    env: dict[str, str], layout: Path, repositories: Repositories, flag: str
) -> None:
    before = sorted(layout.rglob("*"))
    settings, told = run_here(given("--model-dir", str(layout / flag)), env)
    config = ModelConfig.load(settings.config)
    assert (config.steps, config.cfg, config.name) == (6, 1.0, "EchoMimic-v2 (accelerated)")
    weights = layout / "pretrained_weights"
    assert config.denoising_unet_path.resolve() == weights / "denoising_unet_acc.pth"
    assert config.audio_model_path.resolve() == weights / "audio_processor/tiny.pt"
    assert config.audio_model_path.suffix == ".pt"
    assert config.base_unet_config()["norm_num_groups"] == 32
    assert sorted(layout.rglob("*")) == before
    assert told.splitlines() == [f"official weights: accelerated model, {weights / 'denoising_unet_acc.pth'}"]


def test_a_checkout_near_the_working_folder(
    env: dict[str, str], layout: Path, repositories: Repositories, tmp_path: Path
) -> None:
    (tmp_path / "cwd/echomimic_v2").symlink_to(layout)
    settings, _ = run_here(given("--decoder", "tiny"), env)
    config = ModelConfig.load(settings.config)
    assert config.denoising_unet_path.resolve().is_relative_to(layout)
    assert (config.pretrained_vae_path.parent / "taesd/config.json").is_file()


def test_files_of_the_hubs_cache(env: dict[str, str], repositories: Repositories) -> None:
    cache = hub_cache(env)
    for repository, files in repositories.items():
        folder = cache / f"models--{repository.replace('/', '--')}"
        for name, content in files.items():
            blob = folder / "blobs" / name.replace("/", "-")
            link = folder / "snapshots" / COMMIT / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.symlink_to(blob)
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text(COMMIT)
    settings, told = run_here(given(), env)
    assert "missing" not in told
    config = ModelConfig.load(settings.config)
    assert config.audio_model_path.name == "model.safetensors"  # read by its name, not the blob's


def test_the_plain_model_is_known_by_its_file(env: dict[str, str], mine: Path) -> None:
    for name in ("denoising_unet", "motion_module"):
        (mine / f"pretrained_weights/{name}_acc.pth").rename(mine / f"pretrained_weights/{name}.pth")
    settings, told = run_here(given("--model-dir", str(mine)), env)
    config = ModelConfig.load(settings.config)
    assert (config.steps, config.cfg, config.is_accelerated) == (30, 2.5, False)
    assert "official weights: plain model" in told
    assert "30 steps with guidance 2.5 unless --steps and --cfg say otherwise" in told


def test_the_folders_decide_before_the_cache(env: dict[str, str], tmp_path: Path) -> None:
    plain, cached = tmp_path / "plain", hub_cache(env) / "models--BadToBest--EchoMimicV2/snapshots/a"
    for path in (plain / "denoising_unet.pth", cached / "denoising_unet_acc.pth"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
    assert search([plain], hub_cache(env), small_decoder=False).variant is PLAIN
    assert search([tmp_path], hub_cache(env), small_decoder=False).variant is ACCELERATED
    assert search([tmp_path], tmp_path, small_decoder=False).variant is ACCELERATED


def test_damaged_files_are_missing(env: dict[str, str], mine: Path) -> None:
    weights = mine / "pretrained_weights"
    (weights / "denoising_unet_acc.pth").write_text(POINTER)
    reference = weights / "reference_unet.pth"
    reference.write_bytes(reference.read_bytes()[:-100])
    (weights / "sd-vae-ft-mse/config.json").write_text("<!doctype html>")
    found = search([weights], hub_cache(env), small_decoder=False)
    assert found.variant is ACCELERATED
    assert {part.place for part in found.missing} == {
        "denoising_unet_acc.pth",
        "reference_unet.pth",
        "sd-vae-ft-mse/config.json",
    }
    for words in ("is a Git LFS pointer", "is cut off", "is a web page"):
        assert any(words in sentence for sentence in found.damaged), words


def test_names_of_folders(tmp_path: Path) -> None:
    """A new folder gets the official layout, and one that has weights is taken as it is."""
    assert weights_in(tmp_path) == tmp_path / "pretrained_weights"
    assert weights_in(tmp_path / "pretrained_weights") == tmp_path / "pretrained_weights"
    (tmp_path / "reference_unet.pth").touch()
    assert weights_in(tmp_path) == tmp_path


def test_the_hubs_own_folder() -> None:
    assert hub_home({"HF_HOME": "/models/hf"}) == Path("/models/hf")
    assert hub_home({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/huggingface")
    assert hub_cache({"HF_HUB_CACHE": "/fast"}) == Path("/fast")
    assert hub_cache({"HF_HOME": "/models/hf"}) == Path("/models/hf/hub")
    assert own_folder({"HF_HOME": "/hf"}) == Path("/hf/echomimic-live/pretrained_weights")


def test_links_of_the_other_variant_go(env: dict[str, str], mine: Path) -> None:
    settings, _ = run_here(given("--model-dir", str(mine)), env)
    for name in ("denoising_unet", "motion_module"):
        (mine / f"pretrained_weights/{name}_acc.pth").rename(mine / f"pretrained_weights/{name}.pth")
    run_here(given("--model-dir", str(mine)), env)
    names = {path.name for path in settings.config.parent.rglob("*.pth")}
    assert names == {"denoising_unet.pth", "motion_module.pth", "reference_unet.pth", "pose_encoder.pth"}
    assert yaml.safe_load(settings.config.read_text())["name"] == "EchoMimic-v2 (plain)"


def test_samples_of_a_checkout(env: dict[str, str], mine: Path) -> None:
    portrait = mine / "assets/halfbody_demo/refimag/natural_bk_openhand/0014.png"
    portrait.parent.mkdir(parents=True)
    portrait.touch()
    write_official_pose(mine / "assets/halfbody_demo/pose/01", frames=3)
    flags = ["--model", "official", "--model-dir", str(mine)]
    settings, _ = run_here(load_settings(flags, {}), env)
    assert settings.reference_image == (portrait,)
    assert settings.pose_dir == (mine / "assets/halfbody_demo/pose/01",)
    settings, _ = run_here(load_settings([*flags, "--reference-image", "/my/face.png"], {}), env)
    assert settings.reference_image == (Path("/my/face.png"),)
    assert settings.pose_dir == (mine / "assets/halfbody_demo/pose/01",)


# ------------------------------------------------------------------ licences, speed, progress


def test_licences_are_remembered(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = LicenceMemory(env)
    assert memory.still_open([ECHOMIMIC, ECHOMIMIC, TAESD]) == [ECHOMIMIC, TAESD]
    memory.accept([ECHOMIMIC])
    assert LicenceMemory(env).still_open([ECHOMIMIC, TAESD]) == [TAESD]
    memory.path.write_text("[damaged")
    assert memory.still_open([ECHOMIMIC]) == [ECHOMIMIC]
    memory.accept([ECHOMIMIC])
    monkeypatch.setitem(LICENCES, ECHOMIMIC, "another one today")
    assert memory.still_open([ECHOMIMIC]) == [ECHOMIMIC]


def test_the_speed_of_a_cpu() -> None:
    told = cpu_warning(Outlook(None, 0, None, 250e9), 6, 1.0)
    assert "there is no NVIDIA GPU" in told and "about 17 minutes at 768×768, or 6 minutes at 512×512" in told
    told = cpu_warning(Outlook(None, 0, "the driver is too old", 250e9), 30, 2.5)
    assert "NVIDIA's driver is there, but the driver is too old" in told and "2.8 hours" in told


def test_the_memory_of_a_gpu() -> None:
    assert memory_warning(Outlook("RTX 4090", 25_300_000_000, None, 0.0)) is None
    assert memory_warning(Outlook(None, 0, None, 250e9)) is None
    told = memory_warning(Outlook("RTX 3070", 8_200_000_000, None, 0.0))
    assert told is not None and "RTX 3070 has 8 GB of memory" in told


def test_the_question_and_its_answers(
    env: dict[str, str], server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question at a terminal. Anything but yes fetches nothing, and a yes is not asked again."""

    class Answer(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "ask_outlook", lambda: None)
    for answer in ("n\n", "\n", ""):
        console = io.StringIO()
        with pytest.raises(OfficialError, match="licences were not accepted"):
            Preparation(given(), env, Answer(answer), console).run()
        assert console.getvalue().count("[y/N]") == 1
    assert not [request for request in server.requests if request.method == "GET"]
    Preparation(given(), env, Answer("Yes\n"), io.StringIO()).run()
    assert not LicenceMemory(env).still_open([ECHOMIMIC])
    assert LicenceMemory(env).still_open([TAESD]), "only those that were told"


def test_lines_of_progress() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(6_100_000_000, stream, clock=lambda: now[0])
    assert progress.text().startswith("0 % of 6.1 GB, 0 B/s")
    progress.begin("denoising_unet_acc.pth", already=1_220_000_000)
    now[0] = 10.0
    progress.add(61_000_000)
    assert progress.text() == "21 % of 6.1 GB, 6.1 MB/s, 13 min left: denoising_unet_acc.pth"
    progress.add(-61_000_000)
    assert progress.text().startswith("20 % of 6.1 GB")


def test_progress_where_no_terminal_is_and_where_one_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        with Progress(1000, stream, line_every=0.05) as progress:
            progress.begin("a.pth")
            progress.add(1000)
            time.sleep(0.4)
        text = stream.getvalue()
        assert text.endswith("a.pth\n") and "100 % of 1.0 kB" in text
        assert ("\r" in text) is ("[####" in text) is stream.isatty()
        assert len(text.splitlines()) > 2 or stream.isatty()


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 B"), (4005, "4.0 kB"), (335e6, "335 MB"), (6.1e9, "6.1 GB"), (2e12, "2.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


# ------------------------------------------------------------------ the command


def command(*flags: str) -> list[str]:
    pictures = ["--reference-image", "a.png", "--pose-dir", "b.npz"]
    return [sys.executable, str(ROOT / "scripts/run/start.py"), "scripts.official", *pictures, *flags]


def fetch(
    env: dict[str, str], server: HubServer, *flags: str, limits: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command with the Hub's address in HF_ENDPOINT, without a terminal."""
    return subprocess.run(
        command(*flags),
        env={**env, "HF_ENDPOINT": server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limits,
    )


@pytest.mark.process
def test_everything_is_fetched_once(env: dict[str, str], server: HubServer, tmp_path: Path) -> None:
    refused = fetch(env, server)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("echomimic-live: nobody can be asked here")
    assert f"{ECHOMIMIC}: Apache-2.0; its authors intend it for academic research" in refused.stderr
    assert f"({server.url}/{ECHOMIMIC})" in refused.stderr
    assert "are free" in refused.stderr and "missing of the official weights" in refused.stderr
    if "NVIDIA GPU" in refused.stderr:
        assert "far from real time" in refused.stderr
    assert not server.gets("denoising_unet_acc.pth")

    done = fetch(env, server, "--accept-licences")
    assert done.returncode == 0, done.stderr
    assert "100 % of" in done.stderr
    config = ModelConfig.load(done.stdout.strip())
    assert config.denoising_unet_path.resolve() == tmp_path / OWN / "denoising_unet_acc.pth"
    assert len(list((tmp_path / OWN).rglob("*.*"))) == FILES
    for name in ("taesd", "model_index.json", "diffusion_pytorch_model.bin"):
        assert not server.gets(name), "only the files that are needed"

    server.requests.clear()
    assert fetch(env, server).returncode == 0
    assert not server.requests, "nothing is asked when everything is here"
    small = fetch(env, server, "--decoder", "tiny")  # one more repository: its licence is still open
    assert small.returncode == 1 and TAESD in small.stderr and f"{ECHOMIMIC}:" not in small.stderr


@pytest.mark.process
def test_killed_in_the_middle_and_started_again(
    env: dict[str, str], server: HubServer, tmp_path: Path
) -> None:
    server.repositories = {
        **server.repositories,
        # zip archives may have other bytes before them, so this stays a file of weights
        ECHOMIMIC: {**server.repositories[ECHOMIMIC], "pose_encoder.pth": bytes(5 * 2**20)},
    }
    server.faults[f"{ECHOMIMIC}/pose_encoder.pth"] = Fault(hold_after=3 * 2**20)
    running = subprocess.Popen(
        command("--accept-licences", "--model-dir", str(tmp_path / "new")),
        env={**env, "HF_ENDPOINT": server.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    weights = tmp_path / "new/pretrained_weights"
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in weights.glob("pose_encoder.pth.*.part")) < 2 * 2**20:
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in told
    assert told.splitlines()[-1].endswith("what has come stays, and the next start goes on")
    server.faults.clear()
    server.go_on.set()
    server.requests.clear()
    done = fetch(env, server, "--model-dir", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert "are here from an earlier start" in done.stderr
    assert server.gets("pose_encoder.pth")[-1].range.startswith("bytes=")
    assert not server.gets("denoising_unet_acc.pth"), "it was whole before"
    assert (weights / "pose_encoder.pth").read_bytes() == bytes(5 * 2**20)


@pytest.mark.process
def test_a_disk_that_is_full(env: dict[str, str], server: HubServer) -> None:
    """A limit on a file's size stands for the end of the disk: the write fails in the middle."""
    size = len(server.repositories[ECHOMIMIC]["denoising_unet_acc.pth"])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    full = fetch(env, server, "--accept-licences", limits=limit)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert "no more can be written to" in last and "make space" in last
    done = fetch(env, server, "--accept-licences")
    assert done.returncode == 0, done.stderr
    assert server.gets("denoising_unet_acc.pth")[-1].range == f"bytes={size // 2}-"


def test_a_disk_that_would_become_full(
    env: dict[str, str], server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "_free_bytes", lambda folder: prepare.LEFT_FREE)
    with pytest.raises(OfficialError, match=r"are to come and 210 MB are free; make space, or name a folder"):
        run_here(given("--accept-licences"), env)
    assert not [request for request in server.requests if request.method == "GET"]


@pytest.mark.process
def test_offline_says_what_is_missing(env: dict[str, str], server: HubServer, mine: Path) -> None:
    (mine / "pretrained_weights/reference_unet.pth").unlink()
    done = fetch({**env, "HF_HUB_OFFLINE": "1"}, server, "--model-dir", str(mine))
    assert done.returncode == 1
    assert f"1 files are not on this machine: reference_unet.pth of {ECHOMIMIC}" in done.stderr
    assert not server.requests


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        (f"{ECHOMIMIC}/reference_unet.pth", Fault(404, "EntryNotFound"), "has no file reference_unet.pth"),
        (f"{ECHOMIMIC}/reference_unet.pth", Fault(altered=True), "came with another content"),
    ],
)
def test_one_sentence_for_a_failure(
    env: dict[str, str], server: HubServer, name: str, fault: Fault, words: str
) -> None:
    server.faults[name] = fault
    done = fetch(env, server, "--accept-licences")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1]


def test_a_pointer_in_the_users_folder_is_replaced(
    env: dict[str, str], server: HubServer, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "ask_outlook", lambda: None)
    pointer = mine / "pretrained_weights/reference_unet.pth"
    pointer.write_text(POINTER)
    settings, told = run_here(given("--model-dir", str(mine), "--accept-licences"), env)
    assert f"not used: {pointer}: is a Git LFS pointer" in told
    assert pointer.read_bytes() == server.repositories[ECHOMIMIC]["reference_unet.pth"]
    assert WHISPER_WEIGHTS.place not in told, "the file in OpenAI's form serves"
    ModelConfig.load(settings.config)
