"""Avatars: read, encoded, and kept as reference features."""
