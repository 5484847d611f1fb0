"""Tests that take long, by command: faults done to real runs, and hostile input for every decoder."""
