"""The choice of the frame rate that this machine holds."""
