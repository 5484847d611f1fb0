"""From latents to pictures: VAE decode and JPEG."""
