"""`--model official`: its settings, and files that are on this machine already."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from protocol.model.config import ModelConfig
from protocol.process.settings import SettingsError, flags_of, load_settings
from protocol.process.settings.places import official_config
from scripts.official.catalogue import ACCELERATED, PLAIN
from scripts.official.search import hub_cache, hub_home, own_folder, search, weights_in
from tests.helpers.hub_server import COMMIT
from tests.helpers.official_hub import Repositories
from tests.helpers.official_pose import write_official_pose
from tests.scripts.official.world import POINTER, given, run_here


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
