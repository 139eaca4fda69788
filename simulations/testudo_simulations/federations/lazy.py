"""Clients of a simulated federation whose examples are made when they are asked for. Knows no data.

So that a federation of a hundred thousand clients costs what its cohorts cost. A client's examples depend on the seed
and its number alone, so they are the same whenever they are made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

from testudo_common.learning.tasks import Examples

KEPT_BYTES = 1 << 28
"""Of the clients asked last: a federation of up to so much is made once."""


class MadeWhenAsked(Mapping[str, Examples]):
    """Client id -> its examples; ids sorted. Counting and naming clients makes none.

    Args:
        prefix: Of the ids, which go on with a number of six digits.
        count: How many clients there are, up to a million.
        make: The examples of the client of a number, from 0; the same ones each time.
        kept_bytes: How much of those asked last is kept.
    """

    def __init__(
        self, prefix: str, count: int, make: Callable[[int], Examples], *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._prefix, self._count, self._make = prefix, count, make
        self._kept_bytes, self._bytes = kept_bytes, 0
        self._kept: OrderedDict[str, Examples] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return map(self._name, range(self._count))

    def __contains__(self, client: object) -> bool:
        return isinstance(client, str) and self._number_of(client) is not None

    def __getitem__(self, client: str) -> Examples:
        examples = self._kept.get(client)
        if examples is not None:
            self._kept.move_to_end(client)
            return examples
        number = self._number_of(client)
        if number is None:
            raise KeyError(client)
        examples = self._make(number)
        self._kept[client] = examples
        self._bytes += _size(examples)
        while self._bytes > self._kept_bytes:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return examples

    def _name(self, number: int) -> str:
        return f"{self._prefix}-{number:06d}"

    def _number_of(self, client: str) -> int | None:
        digits = client[-6:]
        number = int(digits) if digits.isdecimal() else self._count
        return number if number < self._count and client == self._name(number) else None


def _size(examples: Examples) -> int:
    return examples.inputs.nbytes + examples.targets.nbytes
