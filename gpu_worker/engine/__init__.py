"""The engines that make latents: the denoiser that serves, and one without a model."""
