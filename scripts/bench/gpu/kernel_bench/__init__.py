"""Times of the fast path's kernels, one by one."""
