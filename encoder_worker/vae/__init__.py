"""The decoder half of a VAE in plain torch."""
