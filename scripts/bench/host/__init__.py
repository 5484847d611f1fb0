"""Benchmarks that need no GPU."""
