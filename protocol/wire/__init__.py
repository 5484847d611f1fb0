"""Messages and their limits, between processes and between a browser and the gateway: no torch, no zmq."""
