"""Pose tracks: their files, the maps drawn of them, and the features kept of those."""
