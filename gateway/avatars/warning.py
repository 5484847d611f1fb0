"""The sentence about a picture that the model does not carry."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.avatars.fit import Fit
from protocol.wire.phrases import phrase


def warning_of(fit: Mapping[str, float], model: str) -> str:
    """A warning about an avatar that the model does not carry. Empty where it does, or was not measured.

    Args:
        fit: the fields of its `Fit`, or none.
        model: the model's name.
    """
    if not fit or Fit(fit.get("edges", 0.0), fit.get("psnr", 0.0)).carried:
        return ""
    if model.startswith("bundled"):
        return phrase("warning_figures")
    return phrase("warning_little")
