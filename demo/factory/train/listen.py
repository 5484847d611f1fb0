"""Teach Whisper and the audio cross-attentions to hear the mouth, before and apart from the pictures.

    python -m demo.factory.train listen --state DIR --minutes 5

In a picture the mouth is a few of 65,536 pixels. So a denoiser takes thousands of batches before its audio
cross-attention carries anything. But the corpus has the mouth's six parameters for every moment, and Whisper
costs little. So one attention of the shape of `attn2` learns to read them from the audio tokens. Low-rank
corrections of Whisper's linear layers learn with it, because a window of 1.5 s must say more about lips than
Whisper needs for words. The corrections are part of the model.

With `--start` the attention's weights start every audio cross-attention of the same width. Its output is laid
along six directions of the hidden state. The denoiser still learns all of it afterwards.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from audio_worker.adapter import DOWN, UP, apply_adapter, linear_layers
from audio_worker.mel import DYNAMIC_RANGE, HOP, N_FFT, SHORT_WINDOW_FLOOR, mel_filters
from audio_worker.whisper import SpeechEncoder, load_whisper
from demo.factory.motion.visemes import CHANNELS
from demo.factory.train.checkpoint import Averaged, load_training, save_training
from demo.factory.train.config import CLIP_FRAMES, FPS, HISTORY_SAMPLES
from demo.factory.train.models import build_networks
from demo.factory.train.step import Gradients, GraphedLoss, TrainingRun, leads, share_weights
from demo.factory.train.voices import Voices
from gpu_worker.denoiser.model.attention import Attention, attend
from gpu_worker.denoiser.model.transformer import AUDIO_GAIN
from protocol.model.audio_tokens import audio_token_positions
from protocol.wire.clock import SAMPLE_RATE

logger = logging.getLogger(__name__)

DIRECTION_SIZE = 1.0  # of a fully opened mouth in the hidden state, whose own deviation is of that order
RANK = 16  # of a layer's correction: 0.9 MB in all
ADAPTER = "whisper_adapter.safetensors"
OPENING_WEIGHT = 2.0  # the eye sees the opening first
RATE, FINAL_RATE = 2e-3, 2e-5
WARM_UP = 100  # steps
DECAY = 0.99  # of the running average
MASKS, MASKED_BANDS, MASK_CHANCE = 2, 12, 0.5  # of bands: how many, their most of 80 mel bands, their chance


def load_ears(whisper: Path, adapter: Path) -> SpeechEncoder:
    """Whisper with the corrections in the file `adapter`, if it exists."""
    encoder = load_whisper(whisper, "short")
    if adapter.is_file():
        apply_adapter(encoder, adapter)
    return encoder


def spectrograms(pcm: Tensor, filters: Tensor) -> Tensor:
    """What `SpeechEncoder.spectrogram` gives for short windows, made on the device of `pcm`.

    transformers' extractor goes row by row through numpy, which takes longer than Whisper's encoder on a GPU.

    Args:
        pcm: (B, 24000) samples at 16 kHz in -1..1.
        filters: the bank (201, n_mels).

    Returns:
        (B, n_mels, 150) float32.
    """
    with torch.autocast(pcm.device.type, enabled=False):
        window = torch.hann_window(N_FFT, device=pcm.device)
        power = torch.stft(pcm, N_FFT, HOP, window=window, return_complex=True)[..., :-1].abs().square()
        bands = (filters.T @ power).clamp_min(1e-10).log10()
        bands = torch.maximum(bands, bands.amax((1, 2), keepdim=True) - DYNAMIC_RANGE)
        return ((bands + 4) / 4).clamp_min(SHORT_WINDOW_FLOOR)


def mask_bands(bands: Tensor) -> Tensor:
    """Spectrograms (B, n_mels, T), some of whose neighbouring bands have the mean of all.

    So no band is needed alone (Park et al. 2019, "SpecAugment: a simple data augmentation method for
    automatic speech recognition"). Moments stay as they are, since the mouth's times matter.
    """
    batch, count, _ = bands.shape
    band = torch.arange(count, device=bands.device)
    mean = bands.mean((1, 2), keepdim=True)
    for _ in range(MASKS):
        width = torch.randint(0, MASKED_BANDS + 1, (batch, 1), device=bands.device)
        first = (torch.rand(batch, 1, device=bands.device) * (count - width)).floor()
        chosen = torch.rand(batch, 1, device=bands.device) < MASK_CHANCE
        masked = (band >= first) & (band < first + width) & chosen
        bands = torch.where(masked[:, :, None], mean, bands)
    return bands


class LowRank(nn.Module):
    """A correction up · down of a weight (out, in), zero at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, width = weight.shape
        self.down = nn.Parameter(torch.randn(rank, width, device=weight.device) / math.sqrt(width))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def correct(encoder: SpeechEncoder, adapter: Path) -> dict[str, LowRank]:
    """Put a trainable correction on every linear layer.

    It starts from the file `adapter`, if that exists and has corrections of the same rank.
    """
    known = load_file(adapter) if adapter.is_file() else {}
    made = {}
    for name, layer in linear_layers(encoder).items():
        correction = LowRank(layer.weight, RANK)
        if name + UP in known and known[name + UP].shape == correction.up.shape:
            correction.load_state_dict({"down": known[name + DOWN], "up": known[name + UP]})
        parametrize.register_parametrization(layer, "weight", correction)
        made[name] = correction
    return made


def save_corrections(corrections: dict[str, LowRank], path: Path) -> None:
    """Writes them as `audio_worker.adapter` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [(name + DOWN, c.down) for name, c in corrections.items()]
    parts += [(name + UP, c.up) for name, c in corrections.items()]
    save_file({name: value.detach().cpu().contiguous() for name, value in parts}, path)


class MouthReader(nn.Module):
    """An attention over whitened tokens, one constant query a head, and a linear reading of six values."""

    def __init__(self, width: int, heads: int, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.query = nn.Parameter(0.1 * torch.randn(width))
        self.to_k = nn.Linear(len(mean), width, bias=False)
        self.to_v = nn.Linear(len(mean), width, bias=False)
        self.read = nn.Linear(width, len(CHANNELS))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mouths (N, 6) from tokens (N, T, 384)."""
        white = (tokens - self.mean) / self.deviation
        query = self.query.expand(len(tokens), 1, -1)
        mouths: Tensor = self.read(attend(query, self.to_k(white), self.to_v(white), self.heads)[:, 0])
        return mouths

    @torch.no_grad()
    def start(self, attention: Attention, norm: nn.LayerNorm, generator: torch.Generator) -> None:
        """Write this reader into an audio cross-attention whose input is `norm`'s output.

        The whitening is folded into the weights. A constant on the keys moves all logits alike, so it drops
        out. A constant on the values passes the attention unchanged, so it joins the output's bias.
        """
        width = len(self.query)
        attention.to_k.weight.copy_(self.to_k.weight / self.deviation)
        attention.to_v.weight.copy_(self.to_v.weight / self.deviation)
        # The query is made constant: the norm gives mostly its bias, and to_q turns that into the query.
        direction = F.normalize(torch.randn(width, generator=generator), dim=0) * math.sqrt(width)
        norm.weight.fill_(0.1)
        norm.bias.copy_(direction)
        attention.to_q.weight.mul_(0.1).sub_(
            torch.outer(attention.to_q.weight @ direction, direction) / width
        )
        attention.to_q.weight.add_(torch.outer(self.query, direction) / width)
        basis = torch.linalg.qr(torch.randn(width, len(CHANNELS), generator=generator)).Q * math.sqrt(width)
        basis *= DIRECTION_SIZE / AUDIO_GAIN
        output = attention.to_out[0]
        assert isinstance(output, nn.Linear)
        output.weight.copy_(basis @ self.read.weight)
        constant = self.read.weight @ (-attention.to_v.weight @ self.mean) + self.read.bias
        output.bias.copy_(basis @ constant)


class Ears:
    """Whisper, its corrections and a reader over the audio tokens of whole clips."""

    def __init__(
        self, voices: Voices, whisper: Path, adapter: Path, width: int, heads: int, margin: int
    ) -> None:
        self.voices, device = voices, voices.audio.device
        self.encoder = load_whisper(whisper, "short").to(device)
        self.corrections = correct(self.encoder, adapter)
        positions = audio_token_positions(
            CLIP_FRAMES, FPS, 75, margin=margin, offset=HISTORY_SAMPLES * 50 // SAMPLE_RATE
        )
        self._positions = torch.from_numpy(positions).to(device)
        filters = mel_filters(self.encoder.encoder.config.num_mel_bins)
        self._filters = torch.from_numpy(filters).float().to(device)
        self._when = torch.arange(CLIP_FRAMES, device=device)
        with torch.no_grad():
            pcm, _ = voices.windows(64, self._when)
            sample = self._features(pcm).flatten(0, 2)
        self.reader = MouthReader(width, heads, sample.mean(0), sample.std(0)).to(device)
        #: All that is trained.
        self.trained = nn.ModuleList([self.reader, *self.corrections.values()])

    def _features(self, pcm: Tensor, masked: bool = False) -> Tensor:
        bands = spectrograms(pcm, self._filters)
        features: Tensor = self.encoder(mask_bands(bands) if masked else bands)
        return features.float()

    def read(self, pcm: Tensor, *, masked: bool = False) -> Tensor:
        """Mouths (B, CLIP_FRAMES, 6) of the clips of windows (B, WINDOW_SAMPLES).

        `masked`: with bands left out, as in training.
        """
        with torch.autocast(pcm.device.type, torch.bfloat16):
            features = self._features(pcm, masked)
            tokens = features[:, self._positions].flatten(0, 1).flatten(1, 2)
            mouths: Tensor = self.reader(tokens)
            by_clip: Tensor = mouths.float().unflatten(0, (len(pcm), -1))
            return by_clip

    def examples(self, batch: int) -> dict[str, Tensor]:
        """Sound `pcm` and mouths `mouth` of new windows."""
        pcm, mouth = self.voices.windows(batch, self._when)
        return {"pcm": pcm, "mouth": mouth}

    def loss(self, examples: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean squared error of the mouths, the opening weighed by `OPENING_WEIGHT`, and the opening's."""
        error = (self.read(examples["pcm"], masked=True) - examples["mouth"]).square().mean(dim=(0, 1))
        opening = error[CHANNELS.index("mouth_open")]
        return error.mean() + (OPENING_WEIGHT - 1) * opening, opening

    @torch.no_grad()
    def correlation(self, voices: Voices, windows: int = 512) -> float:
        """Correlation of the opening read with the true one, over windows of `voices` as they were spoken."""
        read, truth = [], []
        for _ in range(0, windows, 64):
            pcm, mouth = voices.windows(64, self._when, plain=True)
            read.append(self.read(pcm)[..., 0].flatten())
            truth.append(mouth[..., 0].flatten())
        return float(torch.corrcoef(torch.stack([torch.cat(read), torch.cat(truth)]))[0, 1])


def train_ears(ears: Ears, held_out: Voices, state: Path, *, minutes: float, batch: int) -> None:
    """Fit reader and corrections, and log how well the opening of unknown voices is read."""
    averaged = Averaged(ears.trained, DECAY)
    share_weights([ears.trained, averaged.module])
    parameters = list(ears.trained.parameters())
    gradients = Gradients(parameters)
    graphed = GraphedLoss(ears.loss, ears.examples(batch), gradients, alone=True)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-2)
    loop = TrainingRun(
        "listen",
        state,
        {"listen": (ears.trained, averaged)},
        {"listen": optimizer},
        gradients,
        step=0,
        minutes=minutes,
        peak=RATE,
        final=FINAL_RATE,
        warm_up=WARM_UP,
    )
    for _ in loop.steps():
        for name, value in ears.examples(batch).items():
            graphed.inputs[name].copy_(value)
        loop.learn(*graphed())
    ears.trained.load_state_dict(averaged.module.state_dict())
    logger.info(
        "listen: %d steps, opening's correlation %.3f on training voices, %.3f on held-out ones",
        loop.step, ears.correlation(ears.voices), ears.correlation(held_out),
    )  # fmt: skip


def listen(
    speech: Path,
    whisper: Path,
    state: Path,
    *,
    minutes: float,
    batch: int,
    seed: int,
    device: torch.device,
    start: bool,
    margin: int = 2,
) -> None:
    """Train the corrections of `state`. With `start`, set its audio cross-attentions from them."""
    networks = build_networks()
    averaged = Averaged(networks)
    step = load_training(state, "networks", networks, averaged)
    networks.load_state_dict(averaged.module.state_dict())
    blocks = networks.denoiser.transformer_blocks.values()
    # The narrow middle block sees the picture as a whole; the mouth is drawn at the widest level.
    width = max(block.width for block in blocks)
    wide = [block for block in blocks if block.width == width]
    voices, held_out = (
        Voices(speech, torch.Generator(device=device).manual_seed(seed), held_out=unknown)
        for unknown in (False, True)
    )
    ears = Ears(voices, whisper, state / ADAPTER, width, wide[0].attn2.heads, margin)
    train_ears(ears, held_out, state, minutes=minutes, batch=batch)
    if not leads():
        return
    save_corrections(ears.corrections, state / ADAPTER)
    if not start:
        return
    reader = ears.reader.cpu()
    generator = torch.Generator().manual_seed(seed)
    for block in wide:
        reader.start(block.attn2, block.norm2, generator)
    averaged.module.load_state_dict(networks.state_dict())
    save_training(state, "networks", networks, averaged, torch.optim.AdamW(networks.parameters()), step)
