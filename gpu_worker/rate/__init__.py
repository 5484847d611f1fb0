"""Which frame rate this machine holds."""
