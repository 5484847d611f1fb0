"""Faults done to real runs, each with its figure. `scripts/torture.sh` runs them."""
