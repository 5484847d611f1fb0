"""Avatars: their pictures, and the reference features kept of those."""
