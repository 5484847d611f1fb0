"""Pose tracks of the bundled model: two shipped loops, the split, and the script that writes them."""
