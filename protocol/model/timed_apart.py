"""Which library computes a network on this CPU, timed in a process that ends.

Torch takes 300 MB or more, and stays in a process that has imported it. So a worker imports it only where it
is the faster one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from protocol.model.cpu_graph import untimed_reason
from protocol.model.graph_record import GraphRecord
from protocol.process.apart import ApartError, ask_apart
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LibraryChoice:
    """The library that is to compute a network.

    Attributes:
        openvino: whether it is OpenVINO, else torch.
        keep: whether the next start is to know it.
        eight_bit: whether OpenVINO's network rounds to eight bits. None: that was not timed.
    """

    openvino: bool
    keep: bool
    eight_bit: bool | None = None


def choose_library(record: GraphRecord[Any], work: str, time: Callable[[], LibraryChoice]) -> LibraryChoice:
    """The library for a network that the model ships. No torch is imported for the choice.

    The choice of torch is kept here, and that of OpenVINO is to be kept with its network.

    Args:
        record: of earlier starts. It holds no network, and `chosen_without_torch`.
        work: what the network does, for the log.
        time: makes the choice, as `time_apart` does.
    """
    if record.needs_no_torch:
        logger.info("%s by OpenVINO: %s", work, untimed_reason())
        return LibraryChoice(openvino=True, keep=True)
    try:
        choice = time()
    except ApartError as error:
        # No measurement, so nothing is kept. OpenVINO was the faster one on every CPU that was measured.
        logger.warning("%s by OpenVINO, torch was not timed: %s; the next start tries again", work, error)
        return LibraryChoice(openvino=True, keep=False)
    if choice.keep and not choice.openvino:
        record.store_torch()
    return choice


def time_apart(
    function: str, settings: Settings, facts: Mapping[str, Any], *, stage: str, count: int
) -> list[LibraryChoice]:
    """Has a function time networks in a process of its own. It keeps what it compiles, as a start does.

    Args:
        function: as "module:name". It returns `choices_answer`.
        settings: of this worker.
        facts: further arguments, of JSON's types.
        stage: of this worker.
        count: networks that it times.

    Raises:
        ApartError: nothing was timed. The text says why.
    """
    answer = ask_apart(function, settings, facts, stage=stage)
    try:
        choices = [_read(one) for one in answer["choices"]]
    except (KeyError, TypeError) as error:
        raise ApartError("the timing's answer cannot be read") from error
    if len(choices) != count:
        raise ApartError(f"the timing's answer has {len(choices)} choices of {count}")
    return choices


def choices_answer(choices: Sequence[LibraryChoice]) -> dict[str, Any]:
    """The answer of a function that `time_apart` calls."""
    return {"choices": [asdict(choice) for choice in choices]}


def _read(values: Mapping[str, Any]) -> LibraryChoice:
    """A choice of an answer. Raises TypeError where it is none."""
    choice = LibraryChoice(**values)
    given = [choice.openvino, choice.keep, choice.eight_bit is True]
    if not all(isinstance(value, bool) for value in given):
        raise TypeError(f"{values} is no choice")
    return choice
