"""All that a server receives, and a search in it for what it must not learn. No tests in here.

A figure found once may be chance: a transcript is mostly random. So two runs are compared, of the same clients with the
same data under two plans that differ in name only: what a client leaks stands in the same place of both, while keys,
masks, seals, signatures and the plan's digest all change. A place matches by chance in both with the square of the
chance in one: see :func:`expected_by_chance`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from secure_federation import Link
from testudo_common.errors import ProtocolError
from testudo_common.secagg.messages import MESSAGES
from testudo_common.wire import Message, SecureMessage, encode

RELATIVE = 1e-6
INTEGERS = ("<H", ">H", "<i", ">i", "<q", ">q")
FLOATS = ("<f4", ">f4", "<f8", ">f8")
SHORTEST_TEXT = 3
_LARGEST = {"H": 1 << 16, "i": 1 << 31, "q": 1 << 63}

Figures = Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Received:
    """One message that came from a client.

    Attributes:
        client: From whom.
        place: Which message of which round and attempt.
        parts: Name -> bytes: header, body, vector.
        message: Decoded.
    """

    client: str
    place: tuple[Any, ...]
    parts: Mapping[str, bytes]
    message: Message


def received(link: Link) -> list[Received]:
    """All replies on a link, as bytes and decoded."""
    found = []
    for client, step, request, reply in link.log:
        assert reply is not None and not isinstance(reply, str)
        sent = encode(reply)
        vector = b"" if sent.vector is None else sent.vector.tobytes()
        parts = {"header": sent.header, "body": sent.body or b"", "vector": vector}
        found.append(Received(client, (request.round, request.attempt, step), parts, reply))
    return found


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A figure of a client that stands in a message of that client; comparable between runs."""

    client: str
    figure: str
    encoding: str
    place: tuple[Any, ...]


def leaks(one: Iterable[Received], other: Iterable[Received], figures: Mapping[str, Figures]) -> list[Hit]:
    """What stands in the same place of both transcripts.

    Args:
        one: Of a run.
        other: Of a run of the same clients on the same data.
        figures: Client -> name -> what nobody must learn; they are the same in both runs.
    """
    first, second = (
        {hit for message in run for hit in _hits(message, figures.get(message.client, {}))} for run in (one, other)
    )
    return sorted(first & second)


def _hits(message: Received, figures: Figures) -> Iterator[Hit]:
    for part, data in message.parts.items():
        for figure, encoding, offset in [*_in_bytes(data, figures), *_in_floats(data, figures)]:
            yield Hit(message.client, figure, encoding, (*message.place, part, offset))
    for where, number in _numbers(message.message):
        for figure, value in figures.items():
            if abs(number - value) <= RELATIVE * abs(value):
                yield Hit(message.client, figure, "field", (*message.place, where))
    for norm in _norms(message.message):
        for figure, value in figures.items():
            if abs(norm - value) <= RELATIVE * abs(value):
                yield Hit(message.client, figure, "norm of a vector", message.place)


def texts_of(value: int | float) -> set[str]:
    """As decimals of 3 to 10 digits, in percent, and as Python writes it; none so short that it is nobody's."""
    if isinstance(value, int):
        shown = {str(value)}
    else:
        shown = {repr(value), repr(float(np.float32(value))), str(np.float32(value)), f"{value:.6e}"}
        shown |= {f"{scaled:.{digits}f}" for scaled in (value, 100 * value) for digits in range(3, 11)}
        shown |= {f"{value:.{digits}g}" for digits in range(4, 11)}
    return {text for text in shown if len(text) >= SHORTEST_TEXT}


def _in_bytes(data: bytes, figures: Figures) -> Iterator[tuple[str, str, int]]:
    for name, value in figures.items():
        patterns = {f"text {text}": text.encode() for text in texts_of(value)}
        if isinstance(value, int):
            kinds = [kind for kind in INTEGERS if value < _LARGEST[kind[1]]]
            patterns |= {kind: struct.pack(kind, value) for kind in kinds}
        for encoding, pattern in patterns.items():
            offset = data.find(pattern)
            while offset >= 0:
                yield name, encoding, offset
                offset = data.find(pattern, offset + 1)


def _in_floats(data: bytes, figures: Figures) -> Iterator[tuple[str, str, int]]:
    """Also where a number is not aligned, and in the midst of a vector."""
    names, wanted = list(figures), np.array(list(figures.values()), dtype=np.float64)
    for kind in FLOATS:
        size = np.dtype(kind).itemsize
        for shift in range(min(size, len(data) - size + 1)):
            count = (len(data) - shift) // size
            with np.errstate(invalid="ignore", over="ignore"):
                numbers = np.frombuffer(data, dtype=kind, count=count, offset=shift).astype(np.float64)
                close = np.abs(numbers[:, None] - wanted) <= RELATIVE * np.abs(wanted)  # [numbers, figures]
            for index, figure in zip(*np.nonzero(close), strict=True):
                yield names[figure], kind, shift + size * int(index)


def _numbers(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number in the fields of a message, of the message in its body, and of what these are made of."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield where, float(value)
    elif isinstance(value, tuple | list):
        for index, each in enumerate(value):
            yield from _numbers(each, f"{where}[{index}]")
    elif is_dataclass(value):
        for field in fields(value):
            yield from _numbers(getattr(value, field.name), f"{where}.{field.name}")
        if isinstance(value, SecureMessage):
            try:
                yield from _numbers(MESSAGES.decode(value.body), f"{where}.body")
            except ProtocolError:
                return  # not of the protocol: its bytes are searched


def _norms(message: Message) -> Iterator[float]:
    """The L2 norm of a vector that travels as it is."""
    for field in fields(message):
        vector = getattr(message, field.name)
        if isinstance(vector, np.ndarray) and vector.dtype == np.float32:
            yield float(np.linalg.norm(vector.astype(np.float64)))


def expected_by_chance(one: Iterable[Received], figures: Mapping[str, Figures]) -> float:
    """How many hits two runs of random bytes have in common, at the most.

    In one place a number of 16 bits is any given one with probability 2^-16, and a float32 is within 10^-6 of a given
    one with probability 2^-26 (34 of 2^32; a float64: 2^-29); text of three digits has 2^-24. Squared for both runs.
    """
    places = {}
    for message in one:
        places[message.client] = places.get(message.client, 0) + sum(map(len, message.parts.values()))
    chance = 0.0
    for client, own in figures.items():
        for value in own.values():
            for_integers = 2 * (2.0**-16) ** 2 + 4 * (2.0**-32) ** 2 if isinstance(value, int) else 0.0
            one_place = for_integers + 4 * (2.0**-26) ** 2 + len(texts_of(value)) * (2.0**-24) ** 2
            chance += places.get(client, 0) * one_place
    return chance
