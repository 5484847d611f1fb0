"""What the gateway decides, as plain objects that take data and a time: no sockets, no sleeps."""
