"""Strategies for hypothesis: valid bytes and texts with a few changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

#: Numbers at which decoders of lengths and sizes stumble, as bytes.
EDGES = [
    *(bytes([value]) for value in (0, 1, 0x7F, 0x80, 0xFF)),
    *(value.to_bytes(2, "little") for value in (0x7FFF, 0x8000, 0xFFFF)),
    *(value.to_bytes(4, order) for value in (1, 2**31 - 1, 2**31, 2**32 - 1) for order in ("little", "big")),
    (2**63 - 1).to_bytes(8, "little"),
    b"\xff" * 8,
]  # fmt: skip
#: Whole numbers of the same kind.
NUMBERS = [-1, 0, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30]

#: Changes of a file at most.
MAX_EDITS = 3
_SEEDS = st.integers(0, 2**64 - 1)


def edited(whole: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of these files with a few changes, and now and then bytes that are no such file."""
    # The changes hang on one drawn number: a draw for each of them takes a millisecond in all.
    near = st.builds(lambda data, number: _edit(data, Random(number)), st.sampled_from(list(whole)), _SEEDS)
    return st.one_of(near, near, near, st.binary(max_size=200))


def edited_text(whole: Sequence[str]) -> st.SearchStrategy[str]:
    """One of these texts with a few changes, or any text."""
    changed = edited([text.encode() for text in whole]).map(lambda data: data.decode(errors="replace"))
    return changed | st.text(max_size=100)


def vary(case: Any, random: Random) -> Any:
    """A case like this one, with one part of it changed. Parts of other types stay as they are."""
    if isinstance(case, bytes):
        return _edit(case, random)
    if isinstance(case, str):
        return _edit(case.encode(errors="surrogateescape"), random).decode(errors="surrogateescape")
    if isinstance(case, int) and not isinstance(case, bool):
        return random.choice(NUMBERS)
    if isinstance(case, dict) and case:
        key = random.choice(list(case))
        return {**case, key: vary(case[key], random)}
    if isinstance(case, list | tuple) and case:
        parts = list(case)
        place = random.randrange(len(parts))
        parts[place] = vary(parts[place], random)
        if isinstance(case, list) and random.random() < 0.2:
            parts.insert(place, random.choice(parts))
        return type(case)(parts)
    return case


def _edit(whole: bytes, random: Random) -> bytes:
    data = bytearray(whole)
    for _ in range(random.randint(0, MAX_EDITS)):
        # More changes at the front, where headers are.
        place = int(len(data) * random.random() ** 2)
        length = random.randint(1, 64)
        piece = random.choice(EDGES) if random.random() < 0.5 else random.randbytes(random.randint(1, 8))
        match random.randrange(6):
            case 0 | 1:
                data[place : place + len(piece)] = piece
            case 2:
                data[place:place] = piece
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + length] * 3
            case _:
                del data[place:]
    return bytes(data)


#: Values as JSON and msgpack have them.
leaves: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from(NUMBERS[:-2])
    | st.floats()
    | st.text(max_size=20)
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def fields(names: Sequence[str], known: st.SearchStrategy[Any] = values) -> st.SearchStrategy[dict[str, Any]]:
    """Maps with some of these names, and now and then another."""
    return st.dictionaries(
        st.sampled_from(list(names)) | st.text(max_size=8), known | values, max_size=len(names)
    )


def json_of(maps: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """The values as JSON text, with NaN and infinity as Python writes them."""
    return maps.map(json.dumps)
