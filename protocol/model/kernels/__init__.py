"""Triton kernels compiled before a worker needs them, by processes beside it that do not open its GPU."""
