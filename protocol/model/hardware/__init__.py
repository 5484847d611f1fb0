"""The machine's processor and GPUs: arithmetic, devices, threads, memory.

Set before torch is imported (these modules do not import it):
    threads        OpenMP threads: their number, and that they sleep while they wait
    gpu_allocator  torch's allocator of GPU memory
    cpu_features   whether the CPU multiplies bfloat16
    drivers        whether the machine can have a usable GPU at all
After that:
    gpu_fitness    whether torch can compute on this machine's GPUs, and why not
    devices        which process computes on which device
    dtypes         torch's dtypes by their names in settings, and those worth trying on a device
    gpu_memory     how much of its GPU's memory a process holds
"""
