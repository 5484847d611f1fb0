"""A thread for long work. The loop of a worker answers heartbeats and signals, and must not wait for it."""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a task: a value, or the error that it ended with.

    A generator makes one output for each value that it yields, and a last one without a value.
    """

    #: The key under which the task was started.
    key: Hashable
    value: Any = None
    error: Exception | None = None
    #: Whether it is the task's last one.
    done: bool = True


class Compute:
    """Runs tasks one after the other in one daemon thread.

    Args:
        wake: is called in that thread for each output.
        clock: seconds that never run backwards.
    """

    def __init__(self, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._clock = clock
        self._tasks: queue.SimpleQueue[tuple[Hashable, Callable[..., Any], tuple[Any, ...]] | None]
        self._tasks = queue.SimpleQueue()
        self._outputs: deque[Output] = deque()
        self._began: float | None = None
        #: Tasks started whose last output was not taken yet.
        self.waiting = 0
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def start_task(self, key: Hashable, task: Callable[..., Any], *args: Any) -> None:
        """Run `task(*args)` after the tasks that were started before. Its outputs carry `key`."""
        self.waiting += 1
        self._tasks.put((key, task, args))

    def take(self) -> list[Output]:
        """The outputs made since the last call, in order."""
        outputs = []
        while self._outputs:
            outputs.append(self._outputs.popleft())
        self.waiting -= sum(output.done for output in outputs)
        return outputs

    def busy_for(self) -> float:
        """How long the present task has been running, in seconds, or 0."""
        began = self._began
        return 0.0 if began is None else self._clock() - began

    def stop(self, timeout: float) -> bool:
        """Take no more tasks. Returns False if the present one did not end in `timeout` seconds."""
        self._tasks.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._tasks.get()) is not None:
            key, task, args = item
            self._began = self._clock()  # read by `busy_for` in the loop's thread
            try:
                value = task(*args)
                if inspect.isgenerator(value):
                    for part in value:
                        self._put(Output(key, part, done=False))
                    value = None
                self._put(Output(key, value))
            except Exception as error:  # whoever started the task handles its failure
                self._put(Output(key, error=error))
            finally:
                self._began = None

    def _put(self, output: Output) -> None:
        self._outputs.append(output)
        self._wake()
