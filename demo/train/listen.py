"""Teach the audio cross-attentions to hear the mouth before the pictures are trained.

    python -m demo.train listen --state DIR --minutes 5

In a picture the mouth is a few of 65,536 pixels, so a denoiser takes thousands of batches before its audio
cross-attention carries anything. The mouth's six parameters are known for every moment of the corpus,
though, and Whisper's features cost little. So one attention of the very shape of `attn2` learns to read
them from the audio tokens (about 40,000 frames in minutes on one core); its weights then start every audio
cross-attention of the same width, its output laid along six directions of the hidden state. The denoiser
still learns all of it afterwards.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audio_worker.whisper import load_whisper
from demo.motion.mouth import CHANNELS
from demo.speech.augment import augment, silence
from demo.speech.corpus import load
from demo.train.checkpoint import Averaged, load_training, save_training
from demo.train.config import CLIP_FRAMES, FPS, HISTORY_SAMPLES, SAMPLE_RATE, TICKS, WINDOW_SAMPLES
from demo.train.data import speech_stream
from demo.train.models import build_networks
from gpu_worker.model.attention import Attention, attend
from protocol.audio_tokens import audio_token_positions

logger = logging.getLogger(__name__)

AUDIO_GAIN = 3.0  # the official model multiplies the audio attention's output by this
DIRECTION_SIZE = 1.0  # of a fully opened mouth in the hidden state, whose own deviation is of that order
SILENT_SHARE = 0.12


class Reader(nn.Module):
    """An attention with one constant query a head, over whitened tokens, and a linear reading of six
    parameters.
    """

    def __init__(self, width: int, heads: int, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.query = nn.Parameter(0.1 * torch.randn(width))
        self.to_k = nn.Linear(len(mean), width, bias=False)
        self.to_v = nn.Linear(len(mean), width, bias=False)
        self.read = nn.Linear(width, len(CHANNELS))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (N, T, 384) → (N, 6)."""
        white = (tokens - self.mean) / self.deviation
        query = self.query.expand(len(tokens), 1, -1)
        return self.read(attend(query, self.to_k(white), self.to_v(white), self.heads)[:, 0])

    @torch.no_grad()
    def start(self, attention: Attention, norm: nn.LayerNorm, generator: torch.Generator) -> None:
        """Write this reader into an audio cross-attention whose input is `norm`'s output.

        The whitening is folded into the weights: a constant on the keys moves all logits alike, and one
        on the
        values passes the attention unchanged, so it joins the output's bias.
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
        output.weight.copy_(basis @ self.read.weight)
        constant = self.read.weight @ (-attention.to_v.weight @ self.mean) + self.read.bias
        output.bias.copy_(basis @ constant)


def hear(
    speech: Path, whisper: Path, *, seconds_apart: float, margin: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (W, 75, 5, 384) half precision, positions (12, n) and mouths (W, 12, 6) of windows over
    the corpus.
    """
    generator = torch.Generator().manual_seed(seed)
    audio, mouth = speech_stream(load(speech))
    step = round(seconds_apart * SAMPLE_RATE) // 400 * 400
    starts = torch.arange(HISTORY_SAMPLES, len(audio) - WINDOW_SAMPLES, step)
    pcm, tracks = torch.from_numpy(audio), torch.from_numpy(mouth)
    encoder = load_whisper(whisper)
    frames = torch.arange(CLIP_FRAMES) * (TICKS // FPS)
    features, mouths = [], []
    offsets = torch.arange(WINDOW_SAMPLES) - HISTORY_SAMPLES
    for part in starts.split(32):
        windows = augment(pcm[part[:, None] + offsets].float() / 32768, generator)
        truth = tracks[part[:, None] * TICKS // SAMPLE_RATE + frames]
        quiet = torch.rand(len(part), generator=generator) < SILENT_SHARE
        windows = torch.where(quiet[:, None], silence(len(part), WINDOW_SAMPLES, "cpu", generator), windows)
        features.append(encoder.features(windows, "short").half())
        mouths.append(truth * (~quiet).float()[:, None, None])
    positions = audio_token_positions(
        CLIP_FRAMES, FPS, 75, margin=margin, offset=HISTORY_SAMPLES * 50 // SAMPLE_RATE
    )
    return torch.cat(features), torch.from_numpy(positions), torch.cat(mouths)


def _train_reader(reader: Reader, heard: tuple[Tensor, Tensor, Tensor], minutes: float, seed: int) -> float:
    """Fit; returns the correlation of the opening on the tenth of the windows that was left out."""
    features, positions, mouths = heard
    generator = torch.Generator().manual_seed(seed)
    last = len(features) * 9 // 10
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-2)
    began, step = time.monotonic(), 0
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - progress) + 1e-5
        window = torch.randint(last, (256,), generator=generator)
        frame = torch.randint(CLIP_FRAMES, (256,), generator=generator)
        tokens = features[window[:, None], positions[frame]].float().flatten(1, 2)
        loss = (reader(tokens) - mouths[window, frame]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
    with torch.no_grad():
        tokens = features[last:][:, positions].float().flatten(0, 1).flatten(1, 2)
        read = torch.cat([reader(part)[:, 0] for part in tokens.split(512)])
    truth = mouths[last:, :, 0].flatten()
    correlation = float(torch.corrcoef(torch.stack([read, truth]))[0, 1])
    logger.info("listen: %d steps, opening's correlation on unheard windows %.3f", step, correlation)
    return correlation


def listen(speech: Path, whisper: Path, state: Path, *, minutes: float, seed: int, margin: int = 2) -> None:
    """Train a reader per width and start the denoiser's audio cross-attentions from it."""
    networks = build_networks()
    averaged = Averaged(networks)
    step = load_training(state, "networks", networks, averaged)
    networks.load_state_dict(averaged.module.state_dict())
    heard = hear(speech, whisper, seconds_apart=0.45, margin=margin, seed=seed)
    sample = heard[0][:: max(1, len(heard[0]) // 200)].float().flatten(0, 2)
    mean, deviation = sample.mean(0), sample.std(0)
    generator = torch.Generator().manual_seed(seed)
    blocks = networks.denoiser.transformer_blocks.values()
    # The narrow middle block sees the picture as a whole; the mouth is drawn at the widest level.
    width = max(block.width for block in blocks)
    wide = [block for block in blocks if block.width == width]
    reader = Reader(width, wide[0].attn2.heads, mean, deviation)
    _train_reader(reader, heard, minutes, seed)
    for block in wide:
        reader.start(block.attn2, block.norm2, generator)
    averaged.module.load_state_dict(networks.state_dict())
    save_training(state, "networks", networks, averaged, torch.optim.AdamW(networks.parameters()), step)
