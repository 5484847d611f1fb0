"""Spectrogram and hidden states against the official encoder, and the layouts that weights come in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audio_worker.mel import SHORT_WINDOW_FLOOR
from audio_worker.whisper import SpeechEncoder, WindowKind, load_whisper
from demo.factory.make_whisper import DEFAULT_OUT
from protocol.model.checkpoint import CheckpointError
from protocol.model.config import ConfigError
from protocol.process.settings import ROOT
from tests.helpers.parity import golden, relative_error


@pytest.fixture(scope="module")
def short() -> SpeechEncoder:
    return load_whisper(DEFAULT_OUT, "short")


@pytest.fixture(scope="module")
def padded() -> SpeechEncoder:
    return load_whisper(DEFAULT_OUT, "padded")


@pytest.mark.parity
def test_the_spectrogram_is_the_official_one(padded: SpeechEncoder) -> None:
    numbers = golden("whisper.npz")
    mel = padded.spectrogram(torch.from_numpy(numbers["pcm"])[None])[0].numpy()
    assert mel.shape == (80, 3000) and not mel[:, 150:].any()
    error = float(np.abs(mel[:, :150] - numbers["mel"]).max())
    print(f"parity: whisper log-mel max abs err {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parity
def test_padded_features_are_the_official_ones(padded: SpeechEncoder) -> None:
    numbers = golden("whisper.npz")
    features = padded.features(torch.from_numpy(numbers["pcm"])[None])[0]
    assert features.shape == (75, 5, 384)
    errors = [relative_error(features[:, i], numbers["features"][:, i]) for i in range(5)]
    print("parity: whisper hidden states rel err " + ", ".join(f"{e:.1e}" for e in errors))
    assert max(errors) <= 1e-3


def test_no_state_went_through_the_final_norm(short: SpeechEncoder) -> None:
    """The last state is the last block's own output."""
    mel = torch.randn(1, 80, 150, generator=torch.Generator().manual_seed(0))
    states = short(mel)
    out = short.encoder.layers[3](states[:, :, 3].contiguous(), attention_mask=None)
    # transformers 5.0 gives a tuple
    torch.testing.assert_close(states[:, :, 4], out[0] if isinstance(out, tuple) else out)


def test_the_short_window_is_the_padded_encoder_cut_short(
    short: SpeechEncoder, padded: SpeechEncoder
) -> None:
    """Same weights, and the first 75 rows of the same position table."""
    theirs = padded.encoder.state_dict()
    for key, value in short.encoder.state_dict().items():
        assert torch.equal(value, theirs[key][:75] if key == "embed_positions.weight" else theirs[key]), key
    # Before the blocks a position sees its neighbours alone, so away from the cut the window does not matter.
    pcm = 0.3 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(short.features(pcm)[:, :74, 0], padded.features(pcm)[:, :74, 0])


def test_rows_of_a_batch_do_not_influence_each_other(short: SpeechEncoder) -> None:
    pcm = torch.randn(3, 24000, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.3], [1e-3], [0.0]]
    )
    together = short.features(pcm)
    assert together.shape == (3, 75, 5, 384) and together.dtype == torch.float32
    for row in range(3):
        torch.testing.assert_close(together[row], short.features(pcm[row : row + 1])[0], atol=2e-4, rtol=1e-4)


def test_the_short_windows_floor_does_not_follow_the_loudest_sound(
    short: SpeechEncoder, padded: SpeechEncoder
) -> None:
    """A quiet second gives the same spectrogram whether or not a loud word follows it."""
    noise = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0)) * 3e-4
    loud = noise.clone()
    loud[:, 20000:] += 0.5 * torch.sin(torch.arange(4000) * 0.3)
    quiet_part = slice(0, 120)

    def change(encoder: SpeechEncoder) -> float:
        moved = encoder.spectrogram(loud) - encoder.spectrogram(noise)
        return float(moved[:, :, quiet_part].abs().max())

    assert change(short) < 1e-6
    assert change(padded) > 0.1


def test_digital_silence_gives_one_constant(short: SpeechEncoder) -> None:
    mel = short.spectrogram(torch.zeros(1, 24000))
    assert torch.equal(mel, torch.full((1, 80, 150), SHORT_WINDOW_FLOOR))
    assert short.features(torch.zeros(1, 24000)).isfinite().all()


def test_autocast_leaves_the_spectrogram_exact(short: SpeechEncoder) -> None:
    pcm = 0.3 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = short.spectrogram(pcm)
    assert torch.equal(inside, short.spectrogram(pcm))


@pytest.mark.parametrize("shape", [(24000,), (1, 100), (2, 23999)])
def test_wrong_shapes_are_refused(short: SpeechEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pcm must be"):
        short.features(torch.zeros(shape))


def test_a_window_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'short' or 'padded'"):
        SpeechEncoder("long")  # type: ignore[arg-type]


LOADS_WITHOUT_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import torch
from audio_worker.whisper import load_whisper
assert "transformers" not in sys.modules
load_whisper(sys.argv[1], "short").features(torch.zeros(1, 24000))
assert "transformers" in sys.modules
"""


@pytest.mark.process
def test_loading_asks_no_network_and_imports_transformers_late(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    command = [sys.executable, "-c", LOADS_WITHOUT_NETWORK, str(DEFAULT_OUT)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)


def small(window: WindowKind = "short") -> SpeechEncoder:
    torch.manual_seed(0)
    encoder = SpeechEncoder(window, width=64, heads=1, layers=2)
    # transformers starts every bias at nothing, which would hide one that is lost on the way
    for name, parameter in encoder.encoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return encoder.eval().requires_grad_(False)


def stored(encoder: SpeechEncoder) -> dict[str, torch.Tensor]:
    """A file's content: the weights, and a table of 1,500 positions that the formula does not give."""
    state = {key: value.contiguous() for key, value in encoder.encoder.state_dict().items()}
    more = torch.randn(1500 - len(state["embed_positions.weight"]), 64)
    encoder.encoder.embed_positions.weight += 0.1
    state["embed_positions.weight"] = torch.cat([encoder.encoder.embed_positions.weight, more])
    return state


def openai_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {
        "self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key", "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "fc1": "mlp.0", "fc2": "mlp.2",
        "final_layer_norm": "mlp_ln", "layers": "blocks", "embed_positions.weight": "positional_embedding",
    }  # fmt: skip
    renamed = {"encoder.ln_post.weight": torch.ones(64), "decoder.token_embedding.weight": torch.zeros(4, 64)}
    for key, value in state.items():
        name = key
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        renamed[f"encoder.{name}"] = value
    return renamed


@pytest.mark.parametrize(
    ("layout", "window"),
    [
        ("openai", "short"),
        ("openai", "padded"),
        ("hf_folder", "short"),
        ("hf_bin", "short"),
        ("ours", "short"),
        ("ours_folder", "short"),
    ],
)
def test_every_layout_loads(tmp_path: Path, layout: str, window: WindowKind) -> None:
    encoder = small(window)
    state = stored(encoder)
    full = {f"model.encoder.{key}": value for key, value in state.items()}
    full |= {"model.decoder.layer_norm.weight": torch.ones(64), "proj_out.weight": torch.ones(2, 64)}
    path = tmp_path
    if layout == "openai":
        path = tmp_path / "tiny.pt"
        torch.save({"dims": {"n_mels": 80}, "model_state_dict": openai_state(state)}, path)
    elif layout == "hf_folder":
        save_file(full, tmp_path / "model.safetensors")
    elif layout == "hf_bin":
        torch.save(full, tmp_path / "pytorch_model.bin")
    else:
        file = tmp_path / "whisper_encoder.safetensors"
        save_file(state, file)
        path = tmp_path if layout == "ours_folder" else file
    mel = torch.randn(1, 80, 2 * encoder.positions)
    torch.testing.assert_close(load_whisper(path, window)(mel), encoder(mel))


def test_the_number_of_heads_is_the_configs(tmp_path: Path) -> None:
    save_file(stored(small()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"encoder_attention_heads": 4}')
    assert load_whisper(tmp_path, "short").encoder.config.encoder_attention_heads == 4
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read"):
        load_whisper(tmp_path, "short")


def test_a_bundled_file_without_positions_gets_whispers_table(short: SpeechEncoder) -> None:
    """The sinusoids of Radford et al.: sines of 192 wavelengths from 2π to 20,000π, then their cosines."""
    assert "embed_positions.weight" not in load_file(DEFAULT_OUT / "whisper_encoder.safetensors")
    scale = 10_000 ** -(np.arange(192) / 191)
    angles = np.arange(75)[:, None] * scale
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(short.encoder.embed_positions.weight.numpy(), table, atol=1e-5)


def damaged(change: str) -> dict[str, torch.Tensor]:
    state = stored(small())
    if change == "missing":
        del state["layers.1.fc1.bias"]
    elif change == "shape":
        state["layers.0.fc2.weight"] = torch.zeros(64, 7)
    elif change == "unexpected":
        state["layers.0.surprise"] = torch.zeros(1)
    elif change == "positions":
        state["embed_positions.weight"] = torch.zeros(60, 64)
    else:
        state = {"decoder.x": torch.zeros(1)}
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", r"missing key layers\.1\.fc1\.bias"),
        ("shape", r"layers\.0\.fc2\.weight has shape \(64, 7\), the model needs \(64, 256\)"),
        ("unexpected", r"unexpected key layers\.0\.surprise"),
        ("positions", r"embed_positions\.weight has shape \(60, 64\), the model needs \(75, 64\)"),
        ("decoder only", r"conv1\.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_name_file_and_key(tmp_path: Path, change: str, words: str) -> None:
    file = tmp_path / "whisper_encoder.safetensors"
    save_file(damaged(change), file)
    with pytest.raises(CheckpointError, match=words) as error:
        load_whisper(file, "short")
    assert str(file) in str(error.value)


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    file = tmp_path / "whisper_encoder.safetensors"
    file.write_bytes(b"not safetensors")
    pickled = tmp_path / "tiny.pt"
    pickled.write_bytes(b"not torch's format")
    for path, words in [
        (file, "not a safetensors file"),
        (pickled, "damaged, or holds more than weights"),
        (tmp_path / "nowhere.pt", "no such weights file"),
        (tmp_path / "..", "holds none of"),
    ]:
        with pytest.raises(CheckpointError, match=words) as error:
            load_whisper(path, "short")
        assert str(path) in str(error.value)
