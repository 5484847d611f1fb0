"""Pose tracks: read, drawn, and kept as features."""
