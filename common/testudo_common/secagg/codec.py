"""Frozen dataclasses as bytes and back: fixed order, explicit lengths, nothing left over.

A field says how it travels in its annotation, ``round: Annotated[int, U32]``. Whole numbers are big-endian; text and
lists carry a count of four bytes in front and a limit that is checked before anything is allocated. By example, a
record of ``U16`` 7 and ``Text`` "ada" is ``0007 00000003 616461``. Knows no message by name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

from testudo_common.errors import Breach, ProtocolError

T = TypeVar("T")
MAX_ITEMS = 1 << 17
_FORMS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Reader:
    """Takes bytes from the front of a buffer; never past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            ProtocolError: There are fewer.
        """
        end = self._at + count
        if end > len(self._data):
            raise ProtocolError(Breach.MALFORMED, "a message ends too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, width: int) -> int:
        """The next whole number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "big")

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ProtocolError: Bytes are left over.
        """
        if self._at != len(self._data):
            raise ProtocolError(Breach.MALFORMED, "bytes are left over after a message")


class Codec(Protocol):
    """How one field travels."""

    def write(self, value: Any) -> bytes:
        """Bytes of ``value``."""

    def read(self, reader: Reader) -> Any:
        """The value at the front of ``reader``."""


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of ``width`` bytes, big-endian."""

    width: int

    def write(self, value: int) -> bytes:
        """See :class:`Codec`."""
        return value.to_bytes(self.width, "big")

    def read(self, reader: Reader) -> int:
        """See :class:`Codec`."""
        return reader.number(self.width)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly ``length`` bytes, such as a key or a digest."""

    length: int

    def write(self, value: bytes) -> bytes:
        """See :class:`Codec`."""
        if len(value) != self.length:
            raise ProtocolError(Breach.MALFORMED, f"a field of {len(value)} bytes instead of {self.length}")
        return value

    def read(self, reader: Reader) -> bytes:
        """See :class:`Codec`."""
        return reader.take(self.length)


@dataclass(frozen=True, slots=True)
class Blob:
    """At most ``limit`` bytes, behind their count."""

    limit: int

    def write(self, value: bytes) -> bytes:
        """See :class:`Codec`."""
        if len(value) > self.limit:
            raise ProtocolError(Breach.MALFORMED, f"a field of {len(value)} bytes, over its limit of {self.limit}")
        return len(value).to_bytes(4, "big") + value

    def read(self, reader: Reader) -> bytes:
        """See :class:`Codec`."""
        length = reader.number(4)
        if length > self.limit:
            raise ProtocolError(Breach.MALFORMED, f"a field of {length} bytes, over its limit of {self.limit}")
        return reader.take(length)


@dataclass(frozen=True, slots=True)
class Buffer:
    """As :class:`Blob`, but of bytes that are written to in place."""

    limit: int

    def write(self, value: bytearray) -> bytes:
        """See :class:`Codec`."""
        return Blob(self.limit).write(bytes(value))

    def read(self, reader: Reader) -> bytearray:
        """See :class:`Codec`."""
        return bytearray(Blob(self.limit).read(reader))


@dataclass(frozen=True, slots=True)
class Text:
    """At most ``limit`` bytes of UTF-8, behind their count."""

    limit: int

    def write(self, value: str) -> bytes:
        """See :class:`Codec`."""
        return Blob(self.limit).write(value.encode())

    def read(self, reader: Reader) -> str:
        """See :class:`Codec`."""
        try:
            return Blob(self.limit).read(reader).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(Breach.MALFORMED, "a name is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class Many:
    """A tuple of up to ``limit`` items, behind their count."""

    item: Codec
    limit: int = MAX_ITEMS

    def write(self, value: tuple[Any, ...]) -> bytes:
        """See :class:`Codec`."""
        if len(value) > self.limit:
            raise ProtocolError(Breach.MALFORMED, f"a list of {len(value)} items, over its limit of {self.limit}")
        count = len(value).to_bytes(4, "big")
        if isinstance(self.item, Number):  # a thousand survivor sets of a thousand positions: in one piece
            return count + struct.pack(f">{len(value)}{_FORMS[self.item.width]}", *value)
        return count + b"".join(self.item.write(item) for item in value)

    def read(self, reader: Reader) -> tuple[Any, ...]:
        """See :class:`Codec`."""
        count = reader.number(4)
        if count > self.limit:
            raise ProtocolError(Breach.MALFORMED, f"a list of {count} items, over its limit of {self.limit}")
        if isinstance(self.item, Number):
            data = reader.take(self.item.width * count)
            return struct.unpack(f">{count}{_FORMS[self.item.width]}", data)
        return tuple(self.item.read(reader) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Record:
    """A dataclass inside another one."""

    kind: type

    def write(self, value: Any) -> bytes:
        """See :class:`Codec`."""
        return write_fields(value)

    def read(self, reader: Reader) -> Any:
        """See :class:`Codec`."""
        return read_fields(self.kind, reader)


U16 = Number(2)
U32 = Number(4)
Digest = Annotated[bytes, Fixed(32)]


@lru_cache(maxsize=64)
def _codecs_of(kind: Any) -> tuple[tuple[str, Codec], ...]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for item in fields(kind):
        hint = hints[item.name]
        assert get_origin(hint) is Annotated, f"{kind.__name__}.{item.name} does not say how it travels"
        found.append((item.name, get_args(hint)[1]))
    return tuple(found)


def write_fields(value: Any) -> bytes:
    """The fields of a dataclass, one after the other."""
    return b"".join(codec.write(getattr(value, name)) for name, codec in _codecs_of(type(value)))  # type: ignore[arg-type]


def read_fields(kind: type[T], reader: Reader) -> T:
    """A dataclass of ``kind`` from the front of ``reader``.

    Raises:
        ProtocolError: The bytes are not one.
    """
    return kind(**{name: codec.read(reader) for name, codec in _codecs_of(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The kinds that may stand in one place, each with its number; ``version`` is the first byte of each.

    Attributes:
        version: 0..255; anything else is refused.
        kinds: number (0..255) -> dataclass.
    """

    version: int
    kinds: dict[int, type]

    def encode(self, value: object) -> bytes:
        """``value`` as version, number and fields."""
        number = next(number for number, kind in self.kinds.items() if kind is type(value))
        return bytes((self.version, number)) + write_fields(value)

    def decode(self, data: bytes) -> Any:
        """The value in ``data``, all of it.

        Raises:
            ProtocolError: Another version, an unknown number, or not exactly the bytes of one value.
        """
        reader = Reader(data)
        version, number = reader.number(1), reader.number(1)
        if version != self.version:
            raise ProtocolError(
                Breach.MALFORMED,
                f"secure aggregation of version {version}",
                remedy=f"install a release that speaks version {self.version}",
            )
        if number not in self.kinds:
            raise ProtocolError(Breach.MALFORMED, f"message {number} is not known")
        value: Any = read_fields(self.kinds[number], reader)
        reader.finish()
        return value
