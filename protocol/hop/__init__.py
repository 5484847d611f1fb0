"""A hop: upstream binds a ROUTER and hands out jobs, workers connect a DEALER, take, and acknowledge them.

`HopServer` is the upstream side over `dispatch.Dispatcher`, `HopClient` the worker's side. A job travels as
its number (8 bytes, big-endian) and the message's frames; number 0 marks what needs no acknowledgement.
Neither side ever waits: call the methods from one thread, whenever a socket is readable and every 100 ms.
"""
