"""An official EchoMimic-v2 folder of a small random model: the scripts' own writer."""

from scripts.official.catalogue import INFERENCE
from scripts.random_model import BASE_UNET, VAE, WEIGHTS, write_official_layout

__all__ = ["BASE_UNET", "INFERENCE", "VAE", "WEIGHTS", "write_official_layout"]
