"""Messages between processes, and between a browser and the gateway. No torch, no ZeroMQ."""
