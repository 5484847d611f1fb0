"""The figures of the evaluation, as functions of pictures and curves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Curve = NDArray[np.float64]

#: A `MouthMeter` reading below this is a shut mouth: drawn ones read up to 0.024, and up to about here the
#: figure still shows a line and nothing of the mouth's inside.
SHUT = 0.035
#: Above this a mouth is plainly open.
OPEN = 0.075
#: Largest lag that is looked for, in frames.
MAX_LAG = 6


def psnr(squared_error: NDArray[np.floating]) -> Curve:
    """PSNR in dB from mean squared errors of pictures in 0..1. Identical pictures count as 100 dB."""
    return -10.0 * np.log10(np.maximum(np.asarray(squared_error, np.float64), 1e-10))


def luma(pictures: Tensor) -> Tensor:
    """Luma (n, 1, h, w) of RGB pictures (n, 3, h, w), by the weights of ITU-R BT.601, which JPEG uses too."""
    # No tensor of weights: a constant copied to the GPU could not be recorded in a CUDA graph.
    red, green, blue = pictures.split(1, dim=1)
    mixed: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return mixed


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (n,) of pictures (n, 3, h, w) in 0..1 (Wang et al. 2004).

    It is computed on luma with a Gaussian window of 11×11, σ = 1.5, K1 = 0.01 and K2 = 0.03.
    It is averaged over the places where the window lies inside the picture.
    """
    reach = torch.arange(-5, 6, dtype=torch.float32, device=a.device)
    window = torch.exp(-reach.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    x, y = luma(a.float()), luma(b.float())
    mean_x, mean_y, xx, yy, xy = blur(torch.cat((x, y, x * x, y * y, x * y))).chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean((1, 2, 3))


def inside(boxes: Tensor, size: int) -> Tensor:
    """Pixels, bool (n, size, size), in any of the boxes (n, k, 4) x0, y0, x1, y1 of each picture."""
    at = torch.arange(size, device=boxes.device)
    x = (at >= boxes[..., 0, None]) & (at < boxes[..., 2, None])
    y = (at >= boxes[..., 1, None]) & (at < boxes[..., 3, None])
    return (y[..., :, None] & x[..., None, :]).any(1)


#: From this difference of a value on, two pictures differ at a pixel.
DIFFERS = 0.02
#: Pixels around differences that count as part of them: the decoder's reach.
REACH = 8


def differing(there: Tensor, here: Tensor) -> Tensor:
    """Pixels (n, 1, h, w), 1 where two pictures (n, 3, h, w) differ and 0 elsewhere."""
    return ((there - here).abs().amax(1, keepdim=True) > DIFFERS).float()


def rest_of(differs: Tensor) -> Tensor:
    """Pixels (n, 1, h, w) that are further than `REACH` from all that `differs` (n, 1, h, w), as 1 and 0."""
    return 1 - F.max_pool2d(differs, 2 * REACH + 1, 1, REACH)


def edges_kept(output: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Share (n,) of the truth's edges that the output shows at their places, from 0 to 1.

    The output's gradient of luma is projected on the truth's. A smear lowers the share. Edges elsewhere and
    noise do not raise it.

    Args:
        output: pictures (n, 3, h, w) in 0..1.
        truth: pictures (n, 3, h, w) in 0..1.
        where: pixels (n, h, w) that count.
    """
    return edges(output, truth, where)[0]


def edge_strength(output: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Strength (n,) of the output's edges over that of the truth's, wherever they lie.

    It is the root mean square of the gradients of luma over `where` (n, h, w). A smear lowers both this
    figure and `edges_kept`. An edge in another place lowers `edges_kept` alone.
    """
    return edges(output, truth, where)[1].sqrt()


def edges(output: Tensor, truth: Tensor, where: Tensor, *, least: float = 1e-9) -> tuple[Tensor, Tensor]:
    """The figure of `edges_kept`, and the square of that of `edge_strength`, both (n,).

    `least` is taken for the truth's edges, as a sum of squares, where there are fewer.
    """
    made, drawn = _gradients(output, where), _gradients(truth, where)
    whole = drawn.square().sum(1).clamp_min(least)
    return (made * drawn).sum(1) / whole, made.square().sum(1) / whole


def _gradients(pictures: Tensor, where: Tensor) -> Tensor:
    """Both differences (n, values) of luma of pictures (n, 3, h, w), 0 outside `where`."""
    plain = luma(pictures.float())[:, 0]
    return torch.cat(
        [(plain.diff(dim=axis) * where.narrow(axis, 1, where.shape[axis] - 1)).flatten(1) for axis in (1, 2)],
        1,
    )


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson's correlation of two curves, 0 where one does not move."""
    x, y = np.asarray(a, np.float64) - np.mean(a), np.asarray(b, np.float64) - np.mean(b)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 1e-9 else 0.0


def lag_correlations(output: Curve, truth: Curve, limit: int = MAX_LAG) -> Curve:
    """Correlations (2·limit + 1,) at lags −limit … limit frames. At a positive lag the output is late."""
    length = len(output)
    out = []
    for lag in range(-limit, limit + 1):
        late, early = output[max(0, lag) : length + min(0, lag)], truth[max(0, -lag) : length - max(0, lag)]
        out.append(correlation(late, early))
    return np.array(out)


def best_lag(correlations: Curve) -> int:
    """Lag in frames of the largest of `lag_correlations`."""
    return int(np.argmax(correlations)) - len(correlations) // 2


def closures_shut(opening: Curve, closures: NDArray[np.floating], fps: int) -> tuple[int, int]:
    """Number of lip closures that show a shut mouth on a frame, and number of those that have a frame.

    Args:
        opening: readings (n,) of frames from time 0.
        closures: start and end (k, 2) in seconds.
        fps: frames a second.
    """
    shut = total = 0
    for start, end in closures:
        first, last = int(np.ceil(start * fps - 1e-6)), int(np.floor(end * fps + 1e-6))
        frames = opening[max(first, 0) : last + 1]
        if first < 0 or last >= len(opening) or len(frames) == 0:
            continue
        total += 1
        shut += bool(frames.min() < SHUT)
    return shut, total


def wrongly_shut(opening: Curve, truth: Curve) -> tuple[int, int]:
    """Number of frames plainly open in the truth and shut in the output, and number of those plainly open.

    A mouth that never opens shows here.
    """
    plainly = truth > OPEN
    return int((opening[plainly] < SHUT).sum()), int(plainly.sum())


def seam_figure(changes: Curve, clip_frames: int) -> float:
    """Mean absolute change across clip boundaries over that within clips.

    Args:
        changes: mean absolute changes (n,) from frame j to j + 1. Frame 0 is the first of a clip.
        clip_frames: frames of a clip.

    Raises:
        ValueError: there is no boundary, or nothing else.
    """
    across = (np.arange(len(changes)) + 1) % clip_frames == 0
    if not across.any() or across.all():
        raise ValueError(
            f"{len(changes)} changes hold no clip of {clip_frames} frames and the next one's start"
        )
    return float(changes[across].mean() / max(float(changes[~across].mean()), 1e-9))


def loudness(samples: NDArray[np.floating], rate: int, fps: int, frames: int) -> Curve:
    """Loudness (frames,) in 0..1 at each frame's time.

    It is the level of 50 ms around the frame: 0 at 30 dB under the 95th percentile, 1 at it.
    """
    squares = np.concatenate([[0.0], np.cumsum(np.asarray(samples, np.float64) ** 2)])
    centre = np.arange(frames) * rate // fps
    low = np.clip(centre - rate // 40, 0, len(samples))
    high = np.clip(centre + rate // 40, 0, len(samples))
    level = 10 * np.log10((squares[high] - squares[low]) / np.maximum(high - low, 1) + 1e-10)
    return np.asarray(np.clip((level - np.percentile(level, 95) + 30.0) / 30.0, 0.0, 1.0), np.float64)


def modulation_spectrum(curve: Curve, fps: int) -> tuple[Curve, Curve]:
    """Frequencies in Hz and power per octave of a curve's movement.

    Welch's average over Hann windows of 4 s that overlap by half (one window where the curve is shorter).
    Power per octave shows speech's syllable rate as a peak near 5 Hz (Ding et al. 2017, "Temporal modulations
    in speech and music").
    """
    size = min(4 * fps, len(curve))
    window = np.hanning(size)
    starts = range(0, len(curve) - size + 1, max(1, size // 2))
    pieces = [curve[start : start + size] for start in starts]
    power = np.mean([np.abs(np.fft.rfft((p - p.mean()) * window)) ** 2 for p in pieces], axis=0)
    frequencies: Curve = np.fft.rfftfreq(size, 1.0 / fps).astype(np.float64)
    return frequencies, np.asarray(power * frequencies, np.float64)


def syllables(curve: Curve, fps: int, low: float = 2.0, high: float = 8.0) -> Curve:
    """A curve's movement at the rates of syllables alone, in Hz, which leaves out pauses and phrases."""
    spectrum = np.fft.rfft(curve - np.mean(curve))
    frequencies = np.fft.rfftfreq(len(curve), 1.0 / fps)
    spectrum[(frequencies < low) | (frequencies > high)] = 0.0
    movement: Curve = np.fft.irfft(spectrum, len(curve)).astype(np.float64)
    return movement


def peak_rate(curve: Curve, fps: int, low: float = 1.0, high: float = 9.0) -> float:
    """Frequency in Hz at which a curve moves most, smoothed over neighbours."""
    frequencies, power = modulation_spectrum(curve, fps)
    smooth = np.convolve(power, [0.25, 0.5, 0.25], mode="same")
    allowed = (frequencies >= low) & (frequencies <= min(high, 0.45 * fps))
    return float(frequencies[allowed][np.argmax(smooth[allowed])])
