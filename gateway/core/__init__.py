"""The gateway's decisions, as plain objects that take data and a time: no sockets, no sleeps."""
