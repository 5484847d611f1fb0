"""Recordings of sessions: the sound and the pictures that were sent, in a file, without coding them again."""
