"""Log-mel and hidden states against the official encoder, and the layouts weights come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audio_worker.mel import SHORT_WINDOW_MAX, log_mel, mel_filters
from audio_worker.whisper import WhisperEncoder, WhisperWeightsError, load_whisper
from demo.factory.make_whisper import DEFAULT_OUT
from tests.helpers.parity import golden, relative_error


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return load_whisper(DEFAULT_OUT)


def test_log_mel_is_the_official_one() -> None:
    numbers = golden("whisper.npz")
    mel = log_mel(torch.from_numpy(numbers["pcm"])[None])[0].numpy()
    error = float(np.abs(mel - numbers["mel"]).max())
    print(f"parity: whisper log-mel max abs err {error:.1e}")
    assert error <= 1e-4


def test_padded_features_are_the_official_ones(encoder: WhisperEncoder) -> None:
    numbers = golden("whisper.npz")
    features = encoder.features(torch.from_numpy(numbers["pcm"])[None], "padded")[0]
    assert features.shape == (75, 5, 384)
    errors = [relative_error(features[:, i], numbers["features"][:, i]) for i in range(5)]
    print("parity: whisper hidden states rel err " + ", ".join(f"{e:.1e}" for e in errors))
    assert max(errors) <= 1e-3


def test_filter_bank() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201)
    assert (filters >= 0).all() and (filters.sum(1) > 0).all()
    # unit area in hertz, where the bins (40 Hz) are fine enough to show it
    torch.testing.assert_close(filters[60:].sum(1) * 40, torch.ones(20), atol=0.02, rtol=0)


def test_rows_of_a_batch_do_not_influence_each_other(encoder: WhisperEncoder) -> None:
    pcm = torch.randn(3, 24000, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.3], [1e-3], [0.0]]
    )
    together = encoder.features(pcm)
    assert together.shape == (3, 75, 5, 384) and together.dtype == torch.float32
    for row in range(3):
        torch.testing.assert_close(
            together[row], encoder.features(pcm[row : row + 1])[0], atol=2e-4, rtol=1e-4
        )


def test_the_short_windows_floor_does_not_follow_the_loudest_sound() -> None:
    """A quiet second gives the same mel whether or not a loud word follows it."""
    noise = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0)) * 3e-4
    loud = noise.clone()
    loud[:, 20000:] += 0.5 * torch.sin(torch.arange(4000) * 0.3)
    quiet_part = slice(0, 120)
    alone = log_mel(noise, max_floor=SHORT_WINDOW_MAX)[:, :, quiet_part]
    torch.testing.assert_close(log_mel(loud, max_floor=SHORT_WINDOW_MAX)[:, :, quiet_part], alone)
    assert (log_mel(loud)[:, :, quiet_part] - log_mel(noise)[:, :, quiet_part]).abs().max() > 0.1


def test_digital_silence_gives_one_constant(encoder: WhisperEncoder) -> None:
    mel = log_mel(torch.zeros(1, 24000), max_floor=SHORT_WINDOW_MAX)
    torch.testing.assert_close(mel, torch.full_like(mel, (SHORT_WINDOW_MAX - 8 + 4) / 4))
    assert encoder.features(torch.zeros(1, 24000)).isfinite().all()


@pytest.mark.parametrize("shape", [(24000,), (1, 100), (2, 23999)])
def test_wrong_shapes_are_refused(encoder: WhisperEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pcm must be"):
        encoder.features(torch.zeros(shape))


def small() -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(width=64, heads=1, layers=2).eval().requires_grad_(False)


def openai_state(encoder: WhisperEncoder) -> dict[str, torch.Tensor]:
    names = {
        "self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key", "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "fc1": "mlp.0", "fc2": "mlp.2",
        "final_layer_norm": "mlp_ln", "layers": "blocks",
    }  # fmt: skip
    state = {"encoder.positional_embedding": encoder.positions, "encoder.ln_post.weight": torch.ones(64)}
    state["decoder.token_embedding.weight"] = torch.zeros(4, 64)
    for key, value in encoder.state_dict().items():
        name = key
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[f"encoder.{name}"] = value
    return state


@pytest.mark.parametrize("layout", ["openai", "hf_folder", "hf_bin", "ours", "ours_folder"])
def test_every_layout_loads(tmp_path: Path, layout: str) -> None:
    encoder = small()
    state = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    full = {f"model.encoder.{key}": value for key, value in state.items()}
    full |= {"model.decoder.layer_norm.weight": torch.ones(64), "proj_out.weight": torch.ones(2, 64)}
    full["model.encoder.embed_positions.weight"] = encoder.positions.contiguous()
    path = tmp_path
    if layout == "openai":
        path = tmp_path / "tiny.pt"
        torch.save({"dims": {"n_mels": 80}, "model_state_dict": openai_state(encoder)}, path)
    elif layout == "hf_folder":
        save_file(full, tmp_path / "model.safetensors")
    elif layout == "hf_bin":
        torch.save(full, tmp_path / "pytorch_model.bin")
    else:
        file = tmp_path / "whisper_encoder.safetensors"
        save_file(state, file)
        path = tmp_path if layout == "ours_folder" else file
    mel = torch.randn(1, 80, 60)
    torch.testing.assert_close(load_whisper(path)(mel), encoder(mel))


def test_damaged_weights_name_file_and_key(tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in small().state_dict().items()}
    file = tmp_path / "whisper_encoder.safetensors"
    missing = {key: value for key, value in state.items() if key != "layers.1.fc1.bias"}
    wrong = {**state, "layers.0.fc2.weight": torch.zeros(64, 7)}
    extra = {**state, "layers.0.surprise": torch.zeros(1)}
    for damaged, text in [
        (missing, "encoder.layers.1.fc1.bias is missing"),
        (wrong, r"encoder.layers.0.fc2.weight has shape \(64, 7\), expected \(64, 256\)"),
        (extra, "encoder.layers.0.surprise is not part"),
        ({"decoder.x": torch.zeros(1)}, "conv1.weight is missing"),
    ]:
        save_file(damaged, file)
        with pytest.raises(WhisperWeightsError, match=text) as error:
            load_whisper(file)
        assert str(file) in str(error.value)
    file.write_bytes(b"not safetensors")
    with pytest.raises(WhisperWeightsError, match="cannot be read"):
        load_whisper(file)
    with pytest.raises(WhisperWeightsError, match="no such file"):
        load_whisper(tmp_path / "nowhere.pt")
    with pytest.raises(WhisperWeightsError, match="holds none of"):
        load_whisper(tmp_path / "..")
