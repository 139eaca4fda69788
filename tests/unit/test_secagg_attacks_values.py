"""Attacks 9, 10 and 15 of the threat model: extreme values, values that are none, and values where none belong.

Each is shown both ways: it fails; and with the check that stops it taken away, it works.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from secagg_attackers import STEPS, run_through, without
from secure_round import Integers, SecureRound, identity_of, names_of, random_vectors, terms_of
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import client
from testudo_common.secagg.client import Identity
from testudo_common.secagg.codec import Fixed, Many, Number, Reader, Record
from testudo_common.secagg.messages import MESSAGES, MaskedInput, ToServer
from testudo_common.secagg.quantize import Contribution, Layout, decode, encode

# 9. Extremes at the clip.

LARGEST = [(20, 2048, 1), (20, 8, 256), (16, 64, 512), (16, 4, 8192), (24, 128, 1)]  # bits, n, w: n * w at its most
largest = pytest.mark.parametrize(("bits", "members", "weight"), LARGEST)


def at_the_clip(layout: Layout, sign: float, key: int = 0) -> Integers:
    """One client's vector: everything it has in one coordinate, and as heavy as can be."""
    update = np.array([sign * layout.max_norm], dtype=np.float32)
    return encode(layout, Contribution(update, layout.max_weight), key.to_bytes(32, "big"))


@largest
@pytest.mark.parametrize("sign", [1, -1])
def test_extremes_of_the_largest_group_are_exact(bits: int, members: int, weight: int, sign: int) -> None:
    layout = Layout(1, 1.0, bits, weight)
    layout.check_budget(members)
    total = np.zeros(layout.size, dtype=np.uint32)
    for key in range(members):
        total += at_the_clip(layout, sign, key)
    assert int(total.view(np.int32)[0]) == sign * members * weight * layout.largest
    opened = decode(layout, total, members)
    assert opened.weight == members * weight
    np.testing.assert_array_equal(opened.mean, np.array([sign], dtype=np.float32))


@pytest.mark.parametrize("sign", [1, -1])
def test_extremes_are_exact_through_a_whole_round(sign: int) -> None:
    layout, names = Layout(1, 0.5, 16, 4096), names_of(8)
    round_ = SecureRound(terms_of(names, layout=layout), {name: at_the_clip(layout, sign) for name in names})
    round_.terms.parameters.check(len(names))
    (found,) = round_.run()
    assert not isinstance(found, ProtocolError)
    np.testing.assert_array_equal(decode(layout, found.total, 8).mean, np.array([sign * 0.5], dtype=np.float32))


@largest
def test_one_member_more_is_refused_at_load(bits: int, members: int, weight: int) -> None:
    parameters = terms_of(names_of(3), group_size=members + 1, layout=Layout(1, 1.0, bits, weight)).parameters
    parameters.check(cohort_size=members)
    with pytest.raises(ProtocolError) as caught:
        parameters.check(cohort_size=members + 1)
    assert caught.value.breach is Breach.RANGE


def test_one_more_weight_is_refused_at_load() -> None:
    with pytest.raises(ProtocolError) as caught:
        Layout(1, 1.0, 16, 513).check_budget(64)
    assert caught.value.breach is Breach.RANGE


def test_counts_that_could_wrap_are_refused_at_load() -> None:
    Layout(1, 1.0, 16, count_bounds=((1 << 29) - 1,)).check_budget(4)
    with pytest.raises(ProtocolError) as caught:
        Layout(1, 1.0, 16, count_bounds=(1 << 29,)).check_budget(4)
    assert caught.value.breach is Breach.RANGE


def test_an_unchecked_budget_wraps_and_passes_every_check_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at +1 open to a mean just under 0: without ``check_budget`` nothing else notices."""
    monkeypatch.setattr(Layout, "check_budget", lambda *_: None)
    layout, members = Layout(1, 1.0, 20), 8192
    terms_of(names_of(3), group_size=members, layout=layout).parameters.check(members)
    opened = decode(layout, at_the_clip(layout, 1.0) * np.uint32(members), members)
    assert -1e-5 < opened.mean[0] < 0


# 10. Values that are none.

LAYOUT = Layout(8, 1.0, 16)


def with_one(value: float) -> np.ndarray:
    update = np.full(8, 0.1, dtype=np.float32)
    update[5] = value
    return update


NO_UPDATES: dict[str, Any] = {
    "NaN": with_one(math.nan),
    "infinity": with_one(math.inf),
    "minus infinity": with_one(-math.inf),
    "float64": np.zeros(8),
    "float16": np.zeros(8, dtype=np.float16),
    "int32": np.zeros(8, dtype=np.int32),
    "a list": [0.0] * 8,
    "empty": np.zeros(0, dtype=np.float32),
    "too short": np.zeros(7, dtype=np.float32),
    "too long": np.zeros(9, dtype=np.float32),
    "a matrix": np.zeros((1, 8), dtype=np.float32),
}


@pytest.mark.parametrize("update", NO_UPDATES.values(), ids=NO_UPDATES)
def test_what_is_no_update_is_not_encoded(update: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode(LAYOUT, Contribution(update), bytes(32))
    assert caught.value.breach is Breach.VALUES


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_value_that_is_none_unchecked_silences_the_whole_update(
    monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Without the finite check: what goes into the sum is zero everywhere, and looks as if it were an update."""
    monkeypatch.setattr(math, "isfinite", lambda _: True)
    with np.errstate(all="ignore"):
        assert not encode(LAYOUT, Contribution(with_one(value)), bytes(32)).any()


@pytest.mark.parametrize(
    ("layout", "update"),
    [
        (Layout(1, 1.0, 16), [0.25]),
        (Layout(3, 2.0**-130, 16), [2.0**-131, -(2.0**-132), 2.0**-149]),
        (Layout(3, 1.0, 16), [0.0, -0.0, 2.0**-149]),
    ],
    ids=["one coordinate", "denormals", "zeros"],
)
def test_small_and_few_values_are_legal_and_exact(layout: Layout, update: list[float]) -> None:
    names, given = names_of(4), np.array(update, dtype=np.float32)
    vectors = {name: encode(layout, Contribution(given), bytes([key] * 32)) for key, name in enumerate(names)}
    round_ = SecureRound(terms_of(names, layout=layout), vectors)
    (found,) = round_.run()
    assert not isinstance(found, ProtocolError)
    np.testing.assert_array_equal(found.total, round_.plain_sum(names))
    np.testing.assert_allclose(decode(layout, found.total, 4).mean, given, rtol=0, atol=1.001 / layout.scale)


def read_only() -> np.ndarray:
    vector = np.zeros(8, dtype=np.uint32)
    vector.flags.writeable = False
    return vector


NO_VECTORS: dict[str, np.ndarray] = {
    "int32": np.zeros(8, dtype=np.int32),
    "int64": np.zeros(8, dtype=np.int64),
    "uint64": np.zeros(8, dtype=np.uint64),
    "float32": np.zeros(8, dtype=np.float32),
    "float64": np.zeros(8),
    "another byte order": np.zeros(8, dtype=np.dtype(np.uint32).newbyteorder()),
    "empty": np.zeros(0, dtype=np.uint32),
    "too short": np.zeros(7, dtype=np.uint32),
    "too long": np.zeros(9, dtype=np.uint32),
    "a matrix": np.zeros((1, 8), dtype=np.uint32),
    "every second word": np.zeros(16, dtype=np.uint32)[::2],
    "backwards": np.zeros(8, dtype=np.uint32)[::-1],
    "read-only": read_only(),
}


def about_to_mask() -> tuple[SecureRound, Identity, Any, Any]:
    names = names_of(4)
    round_ = run_through(SecureRound(terms_of(names), random_vectors(names)), "share_keys")
    return round_, identity_of(names[0]), round_.states[names[0]], round_.given[names[0]]


@pytest.mark.parametrize("vector", NO_VECTORS.values(), ids=NO_VECTORS)
def test_what_is_no_vector_is_not_masked(vector: np.ndarray) -> None:
    round_, identity, state, message = about_to_mask()
    with pytest.raises(ProtocolError) as caught:
        client.step(round_.terms, identity, state, message, vector)
    assert caught.value.breach is Breach.VALUES
    assert not vector.any()


def test_raw_floats_unchecked_are_read_off_behind_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``vector_has_the_agreed_shape``: masks are whole numbers, and hide no fraction."""
    without(monkeypatch, "vector_has_the_agreed_shape")
    round_, identity, state, message = about_to_mask()
    update = np.random.default_rng(0).uniform(-0.4, 0.4, 8)
    _, reply = client.step(round_.terms, identity, state, message, update.copy())  # type: ignore[arg-type]
    assert reply.vector is not None
    np.testing.assert_allclose(reply.vector - np.round(reply.vector), update, atol=1e-4)


# 15. Messages carry only the fields of their schema.


def said_in(vectors: dict[str, Integers]) -> list[tuple[str, str, int, int]]:
    """Step, kind, bytes and words of each message either way of a round."""
    round_, found = SecureRound(terms_of(list(vectors)), vectors), []
    for step in STEPS:
        getattr(round_, step)()
        for name in round_.clients:
            reply, given = round_.sent[name], round_.given[name]
            words = 0 if reply.vector is None else reply.vector.size
            found.append((step, type(reply.message).__name__, len(MESSAGES.encode(reply.message)), words))
            found.append((step, type(given).__name__, len(MESSAGES.encode(given)), 0))
    return found


def test_the_length_of_a_message_follows_from_public_numbers() -> None:
    """Whatever the vectors hold; m members, and names of 9 bytes."""
    names, m = names_of(5), 5
    lengths = {(kind, length, words) for _, kind, length, words in said_in(random_vectors(names))}
    assert lengths == {
        ("Commitment", 2 + 32, 0),
        ("CommitmentList", 2 + 4 + m * (4 + 9 + 32), 0),
        ("Advertisement", 2 + 4 * 32 + 64, 0),
        ("Directory", 2 + 4 + m * (4 + 9 + 4 * 32 + 64), 0),
        ("SharedKeys", 2 + 4 + (m - 1) * (2 + 144), 0),
        ("Deliveries", 2 + 4 + 2 * m + 4 + (m - 1) * (2 + 144), 0),
        ("MaskedInput", 2, 8),
        ("SurvivorSet", 2 + 4 + 2 * m, 0),
        ("Confirmation", 2 + 4 + (m - 1) * (2 + 16), 0),
        ("Confirmations", 2 + 4 + (m - 1) * (2 + 16), 0),
        ("UnmaskingShares", 2 + 4 + m * (2 + 64), 0),
    }
    assert said_in(random_vectors(names)) == said_in({name: np.zeros(8, dtype=np.uint32) for name in names})


def leaves(kind: type) -> Iterator[tuple[str, Any]]:
    """Name and codec of each field that a message of ``kind`` can hold, however deep."""
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        codec = get_args(hints[item.name])[1]
        codec = codec.item if isinstance(codec, Many) else codec
        yield from leaves(codec.kind) if isinstance(codec, Record) else [(item.name, codec)]


@pytest.mark.parametrize("kind", get_args(ToServer), ids=lambda kind: kind.__name__)
def test_a_clients_message_has_no_place_for_a_loss_or_a_count(kind: type) -> None:
    """Keys, digests, tags, shares and ciphertexts of fixed length, and positions; nothing else, and no text."""
    for name, codec in leaves(kind):
        assert isinstance(codec, Fixed) or (name, codec) == ("position", Number(2)), name


ENCODED = MESSAGES.encode(MaskedInput())


@pytest.mark.parametrize(
    "data",
    [ENCODED + struct.pack(">f", 0.5), ENCODED + b"\0", ENCODED[:1], b"", bytes((1, 99)), bytes((2, ENCODED[1]))],
    ids=["a loss behind it", "one byte more", "one byte less", "nothing", "unknown kind", "another version"],
)
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        MESSAGES.decode(data)
    assert caught.value.breach is Breach.MALFORMED


def test_a_loss_behind_a_message_unchecked_travels_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``Reader.finish``."""
    monkeypatch.setattr(Reader, "finish", lambda _: None)
    assert MESSAGES.decode(ENCODED + struct.pack(">f", 0.5)) == MaskedInput()
