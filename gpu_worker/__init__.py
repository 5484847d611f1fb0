"""The GPU worker: clips of audio tokens in, latents of video frames out, by EchoMimic-v2's denoiser."""
