"""Renders a sound file into a film, with the workers of a run and without its gateway."""
