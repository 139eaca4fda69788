"""The bytes of secure aggregation: known ones, what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.client import CLIENT_STATES
from testudo_common.secagg.codec import (
    U16,
    U32,
    Blob,
    Buffer,
    Catalogue,
    Fixed,
    Many,
    Number,
    Reader,
    Record,
    Text,
    _codecs_of,
    read_fields,
    write_fields,
)
from testudo_common.secagg.messages import (
    MESSAGES,
    SEALED_BYTES,
    VERSION,
    Advertisement,
    CommitmentEntry,
    CommitmentList,
    MaskedInput,
    RevealedShare,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.server import SERVER_STATES


@dataclass(frozen=True, slots=True)
class Pet:
    number: Annotated[int, U16]
    name: Annotated[str, Text(8)]


@dataclass(frozen=True, slots=True)
class Owner:
    pets: Annotated[tuple[Pet, ...], Many(Record(Pet), 3)]
    favourite: Annotated[Pet, Record(Pet)]
    key: Annotated[bytes, Fixed(2)]
    note: Annotated[bytes, Blob(4)]
    total: Annotated[bytearray, Buffer(4)]
    year: Annotated[int, U32]


ADA, BOB = Pet(7, "ada"), Pet(0x0102, "")
OWNER = Owner((ADA, BOB), BOB, b"\xaa\xbb", b"hi", bytearray(b"xyz"), 1979)
ADA_BYTES = bytes.fromhex("0007 00000003 616461")
BOB_BYTES = bytes.fromhex("0102 00000000")
OWNER_BYTES = b"".join(
    (
        bytes.fromhex("00000002"),
        ADA_BYTES,
        BOB_BYTES,
        BOB_BYTES,
        bytes.fromhex("aabb 00000002 6869 00000003 78797a 000007bb"),
    )
)
KINDS = Catalogue(4, {9: Pet, 11: Owner})


def test_known_bytes() -> None:
    """Written by hand from the module's description; the first is its own example."""
    assert write_fields(ADA) == ADA_BYTES
    assert write_fields(OWNER) == OWNER_BYTES
    assert KINDS.encode(ADA) == b"\x04\x09" + ADA_BYTES
    assert KINDS.encode(OWNER) == b"\x04\x0b" + OWNER_BYTES


def test_known_bytes_of_a_message() -> None:
    """The example of messages.py."""
    assert MESSAGES.encode(SurvivorSet((0, 2, 3))) == bytes.fromhex("01 07 00000003 0000 0002 0003")


def test_what_is_written_is_read() -> None:
    again = KINDS.decode(KINDS.encode(OWNER))
    assert again == OWNER
    assert isinstance(again.total, bytearray)
    assert read_fields(Pet, Reader(ADA_BYTES)) == ADA


def test_a_buffer_that_was_read_can_be_written_to() -> None:
    again = KINDS.decode(KINDS.encode(OWNER))
    again.total[0] = 0
    assert OWNER.total == b"xyz"


@given(st.integers(1, 8), st.data())
@settings(max_examples=50, deadline=None)
def test_numbers(width: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, 256**width - 1))
    written = Number(width).write(value)
    assert len(written) == width
    assert Number(width).read(Reader(written)) == value


# name of the fault -> (bytes, words of the error)
NEGATIVE: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "too early"),
    "a version alone": (b"\x04", "too early"),
    "version 0": (b"\x00\x09" + ADA_BYTES, "version 0"),
    "version one too high": (b"\x05\x09" + ADA_BYTES, "install a release that speaks version 4"),
    "a kind that nobody has": (b"\x04\x08" + ADA_BYTES, "message 8 is not known"),
    "fields of another kind": (b"\x04\x0b" + ADA_BYTES, "over its limit of 3"),
    "no fields": (b"\x04\x09", "too early"),
    "truncated": (b"\x04\x09" + ADA_BYTES[:-1], "too early"),
    "trailing byte": (b"\x04\x09" + ADA_BYTES + b"\x00", "left over"),
    "text longer than its limit": (b"\x04\x09\x00\x07\x00\x00\x00\x09" + b"a" * 9, "9 bytes, over its limit of 8"),
    "text of 4 GiB": (b"\x04\x09\x00\x07\xff\xff\xff\xff", "over its limit of 8"),
    "text not UTF-8": (b"\x04\x09\x00\x07\x00\x00\x00\x01\xff", "not UTF-8"),
    "text of half a surrogate pair": (b"\x04\x09\x00\x07\x00\x00\x00\x03\xed\xa0\x80", "not UTF-8"),
    "list longer than its limit": (b"\x04\x0b\x00\x00\x00\x04" + 4 * BOB_BYTES, "list of 4 items"),
    "list of 4 Gi items": (b"\x04\x0b\xff\xff\xff\xff", "over its limit of 3"),
    "list shorter than its count": (b"\x04\x0b\x00\x00\x00\x03" + BOB_BYTES, "too early"),
    "blob longer than its limit": (
        b"\x04\x0b" + OWNER_BYTES.replace(b"\x00\x00\x00\x02hi", b"\x00\x00\x00\x05hi..."),
        "5 bytes, over its limit of 4",
    ),
    "buffer longer than its limit": (
        b"\x04\x0b" + OWNER_BYTES.replace(b"\x00\x00\x00\x03xyz", b"\x00\x00\x00\x05xyz.."),
        "5 bytes, over its limit of 4",
    ),
}


@pytest.mark.parametrize(("data", "words"), NEGATIVE.values(), ids=NEGATIVE.keys())
def test_bad_bytes(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        KINDS.decode(data)
    assert caught.value.breach is Breach.MALFORMED


@pytest.mark.parametrize(
    ("codec", "value", "words"),
    [
        (Fixed(2), b"abc", "3 bytes instead of 2"),
        (Fixed(2), b"a", "1 bytes instead of 2"),
        (Blob(2), b"abc", "3 bytes, over its limit of 2"),
        (Buffer(2), bytearray(b"abc"), "3 bytes, over its limit of 2"),
        (Text(2), "äb", "3 bytes, over its limit of 2"),
        (Many(U16, 2), (1, 2, 3), "3 items, over its limit of 2"),
    ],
    ids=["fixed too long", "fixed too short", "blob too long", "buffer too long", "text too long", "list too long"],
)
def test_what_could_not_be_read_is_not_written(codec: Any, value: Any, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        codec.write(value)
    assert caught.value.breach is Breach.MALFORMED


def test_limits_are_inclusive() -> None:
    for codec, value in ((Blob(2), b"ab"), (Text(3), "äb"), (Many(U16, 2), (1, 2))):
        assert codec.read(Reader(codec.write(value))) == value


def test_a_field_that_does_not_say_how_it_travels() -> None:
    @dataclass(frozen=True)
    class Silent:
        number: int

    with pytest.raises(AssertionError, match=r"Silent\.number"):
        write_fields(Silent(1))


CATALOGUES = [MESSAGES, CLIENT_STATES, SERVER_STATES]


def codec_strategy(codec: Any) -> st.SearchStrategy[Any]:
    """Values that a codec can write."""
    if isinstance(codec, Many):
        return st.lists(codec_strategy(codec.item), max_size=3).map(tuple)
    if isinstance(codec, Record):
        return kind_strategy(codec.kind)
    match codec:
        case Number(width):
            return st.integers(0, 256**width - 1)
        case Fixed(length):
            return st.binary(min_size=length, max_size=length)
        case Text(limit):
            return st.text(max_size=min(limit // 4, 10))
    assert isinstance(codec, Buffer)
    return st.binary(max_size=40).map(bytearray)


def kind_strategy(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: codec_strategy(codec) for name, codec in _codecs_of(kind)})


def same(one: Any, other: Any) -> bool:
    """Equal in every field, those too that take no part in ``==``."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            same(getattr(one, item.name), getattr(other, item.name)) for item in fields(one)
        )
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("kind", [kind for catalogue in CATALOGUES for kind in catalogue.kinds.values()])
def test_every_message_and_state_comes_back(kind: type) -> None:
    catalogue = next(catalogue for catalogue in CATALOGUES if kind in catalogue.kinds.values())

    @given(kind_strategy(kind))
    @settings(max_examples=15, deadline=None)
    def comes_back(value: Any) -> None:
        data = catalogue.encode(value)
        assert data[0] == VERSION
        assert catalogue.kinds[data[1]] is kind
        assert same(catalogue.decode(data), value)
        assert catalogue.encode(catalogue.decode(data)) == data

    comes_back()


@given(st.sampled_from(CATALOGUES), st.integers(0, 12), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_or_mean_exactly_themselves(catalogue: Catalogue, kind: int, noise: bytes) -> None:
    data = bytes((VERSION, kind)) + noise
    try:
        value = catalogue.decode(data)
    except ProtocolError:
        return
    assert catalogue.encode(value) == data


@given(st.sampled_from(sorted(MESSAGES.kinds)), st.data())
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_is_refused_or_seen(number: int, data: st.DataObject) -> None:
    message = data.draw(kind_strategy(MESSAGES.kinds[number]))
    written = bytearray(MESSAGES.encode(message))
    written[data.draw(st.integers(0, len(written) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert not same(MESSAGES.decode(bytes(written)), message)
    except ProtocolError as error:
        assert error.breach is Breach.MALFORMED


def test_messages_have_numbers_of_their_own() -> None:
    """A number that means something else is a new version."""
    assert VERSION == 1
    assert {number: kind.__name__ for number, kind in MESSAGES.kinds.items()} == {
        1: "Commitment",
        2: "CommitmentList",
        3: "Advertisement",
        4: "Directory",
        5: "SharedKeys",
        6: "Deliveries",
        7: "SurvivorSet",
        8: "MaskedInput",
        9: "Confirmation",
        10: "Confirmations",
        11: "UnmaskingShares",
    }


def test_sizes_of_messages() -> None:
    """By the description: 4 bytes of count, 2 of position, 32 of digest or key, 64 of share or signature."""
    key = bytes(32)
    assert len(MESSAGES.encode(MaskedInput())) == 2
    assert len(MESSAGES.encode(Advertisement(key, key, key, key, bytes(64)))) == 2 + 4 * 32 + 64
    assert len(MESSAGES.encode(CommitmentList((CommitmentEntry("ada", key),)))) == 2 + 4 + (4 + 3 + 32)
    assert len(MESSAGES.encode(UnmaskingShares((RevealedShare(1, bytes(64)),)))) == 2 + 4 + (2 + 64)
    assert SEALED_BYTES == 2 * 64 + 16
    assert len(MESSAGES.encode(SharedKeys(()))) == 2 + 4


def test_the_largest_position() -> None:
    assert MESSAGES.decode(MESSAGES.encode(SurvivorSet((65535,)))) == SurvivorSet((65535,))
