"""The denoiser's speed, optimisation by optimisation: `python -m scripts.bench.gpu.ladder`."""
