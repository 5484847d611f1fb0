"""Triton kernels of the fast path (sm_90 first, and any CUDA GPU that Triton serves).

Each module holds one kernel family and the function that launches it. `gpu_worker.fast.ops` chooses between
them and plain torch, which computes the same on any device.
"""
