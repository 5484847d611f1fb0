"""Benchmarks. They may import anything, and nothing imports them."""
