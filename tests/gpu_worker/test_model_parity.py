"""The networks against golden numbers of the official code, in float32."""

from __future__ import annotations

import pytest
import torch

from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D, UNetConfig
from tests.gpu_worker.conftest import TinyModels
from tests.helpers.parity import golden, golden_json, relative_error, tiny_configs, whole_golden

pytestmark = pytest.mark.parity

LIMIT = 1e-4


def report(what: str, error: float) -> None:
    print(f"parity: {what} rel err {error:.1e}")


@torch.no_grad()
def test_reference_features(tiny: TinyModels) -> None:
    numbers = golden("modules.npz")
    bank = tiny.reference(torch.from_numpy(numbers["ref_latents"]))
    wanted = {key.removeprefix("bank."): value for key, value in numbers.items() if key.startswith("bank.")}
    assert set(bank) == set(wanted)
    errors = {name: relative_error(bank[name], value) for name, value in wanted.items()}
    report(f"reference features of {len(errors)} blocks, worst", max(errors.values()))
    assert max(errors.values()) <= LIMIT


@torch.no_grad()
def test_pose_encoder(tiny: TinyModels) -> None:
    numbers = whole_golden("modules.npz")
    error = relative_error(
        tiny.pose_encoder(torch.from_numpy(numbers["pose_maps"])), numbers["pose_features"]
    )
    report("pose encoder", error)
    assert error <= LIMIT


@pytest.mark.parametrize("timestep", [999, 499, 0])
@torch.no_grad()
def test_denoiser(tiny: TinyModels, timestep: int) -> None:
    numbers = {key: torch.from_numpy(value) for key, value in golden("modules.npz").items()}
    bank = {key.removeprefix("bank."): value for key, value in numbers.items() if key.startswith("bank.")}
    cache = tiny.denoiser.project_reference(bank)
    out = tiny.denoiser(numbers["latents"], timestep, numbers["audio"], numbers["pose_features"], cache)
    error = relative_error(out, numbers[f"out_t{timestep}"].numpy())
    report(f"denoiser t={timestep}", error)
    assert error <= LIMIT


def test_full_size_keys_and_shapes() -> None:
    wanted = golden_json("state_dict_keys.json")
    configs = tiny_configs()
    with torch.device("meta"):
        modules = {
            "denoising_unet": DenoisingUNet3D(
                UNetConfig.denoiser(configs["sd15"], configs["unet_additional_kwargs"])
            ),
            "reference_unet": ReferenceUNet2D(UNetConfig.reference(configs["sd15"])),
            "pose_encoder": PoseEncoder(320),
        }
    for name, module in modules.items():
        shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
        assert shapes == wanted[name], name
        print(f"parity: {name} has all {len(shapes)} keys and shapes of the release")
