"""A hop is a link from one stage to the next.

The upstream stage binds a ROUTER and hands out jobs (`server.HopServer`, which asks `dispatch.Dispatcher` who
gets which job). Workers connect a DEALER, take jobs and acknowledge them (`client.HopClient`). A job travels
as its number (8 bytes, big-endian) and the message's parts. Number 0 marks a message that needs no
acknowledgement.

Neither side ever waits. Call the methods from one thread, whenever a socket is readable and every 100 ms.
"""
