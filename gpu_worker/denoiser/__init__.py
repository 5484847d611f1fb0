"""EchoMimic-v2's denoiser in plain torch: the reference for the fast path."""
