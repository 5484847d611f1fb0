"""One clip on several devices: a leader, which is the GPU worker, and members, which are its child processes.

leader:  TeamDenoiser ─ Members ─ orders, one line of JSON each ─▶ member: FastDenoiser
         tensors travel by `fast.exchange`
"""
