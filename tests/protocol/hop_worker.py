"""A worker process for the hop's tests: takes jobs, works on each for a while, acknowledges it."""

from __future__ import annotations

import argparse
import signal
import time
from collections import deque
from pathlib import Path

import zmq

from protocol.hop.client import HopClient, Job
from protocol.hop.keys import load_key
from protocol.wire.messages import Close


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoints", nargs="+")
    parser.add_argument("--name", default="0")
    parser.add_argument("--credit", type=int, default=2)
    parser.add_argument("--work", type=float, default=0.0, help="seconds a job takes")
    parser.add_argument("--run-dir", type=Path, help="folder of the run's key")
    parser.add_argument("--hang-at", type=int, default=0, help="spin for ever on the n-th job")
    args = parser.parse_args()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    key = load_key(args.run_dir) if args.run_dir else None
    client = HopClient(
        zmq.Context(), args.endpoints, stage="worker", worker=args.name, credit=args.credit, key=key
    )
    poller = zmq.Poller()
    for socket in client.sockets:
        poller.register(socket, zmq.POLLIN)
    jobs: deque[Job] = deque()
    done, free_at = 0, 0.0
    while not stop:
        client.heartbeat()
        jobs.extend(job for job in client.recv() if not isinstance(job.msg, Close))
        if jobs and time.monotonic() >= free_at:
            done += 1
            while done == args.hang_at:
                pass
            client.ack(jobs.popleft())
            free_at = time.monotonic() + args.work
        poller.poll(max(1, min(50, round((free_at - time.monotonic()) * 1000))) if jobs else 50)
    client.close()


if __name__ == "__main__":
    main()
