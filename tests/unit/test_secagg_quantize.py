"""Quantising: the mean of a sum of encoded updates is the mean of the clipped ones, and nothing else opens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import quantize
from testudo_common.secagg.masking import Words
from testudo_common.secagg.quantize import Contribution, Layout, Opened, _round, decode, encode, value_bits_for

Update = npt.NDArray[np.float32]
KEY = bytes(range(32))
STEPS = 1 << 16


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def sum_of(layout: Layout, contributions: Sequence[Contribution], first_key: int = 0) -> Words:
    """The sum modulo 2^32 of what clients with keys of their own send."""
    total = np.zeros(layout.size, dtype=np.uint32)
    for number, contribution in enumerate(contributions):
        total += encode(layout, contribution, key_of(first_key + number))
    return total


def opened(layout: Layout, contributions: Sequence[Contribution]) -> Opened:
    return decode(layout, sum_of(layout, contributions), len(contributions))


def clipped(update: Update, max_norm: float) -> npt.NDArray[np.float64]:
    exact = update.astype(np.float64)
    norm = math.sqrt(math.fsum(value * value for value in exact.tolist()))
    return exact if norm <= max_norm else exact * (max_norm / norm)


def signed(vector: Words) -> npt.NDArray[np.int32]:
    return vector.view(np.int32)


def test_layout() -> None:
    plain, full = Layout(10, 2.0, 16), Layout(10, 2.0, 16, max_weight=5, count_bounds=(3, 4))
    assert (plain.size, plain.weighted) == (10, False)
    assert (full.size, full.weighted) == (13, True)
    assert plain.largest == 32767
    assert plain.scale == 32767 / 2


@pytest.mark.parametrize(
    "senseless",
    [
        {"values": 0},
        {"values": -1},
        {"max_norm": 0.0},
        {"max_norm": -1.0},
        {"max_norm": math.inf},
        {"max_norm": math.nan},
        {"value_bits": 1},
        {"value_bits": 25},
        {"max_weight": 0},
        {"count_bounds": (3, -1)},
    ],
    ids=str,
)
def test_a_layout_that_makes_no_sense(senseless: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        Layout(**{"values": 1, "max_norm": 1.0, "value_bits": 16, **senseless})
    assert caught.value.breach is Breach.VALUES


# The mean.


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Layout, list[Contribution]]:
    """A layout within its budget, and clients' contributions; many are longer than they may be."""
    clients, values = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    max_weight = draw(st.sampled_from([1, 2, 100]))
    bounds = tuple(draw(st.lists(st.integers(0, 1000), max_size=2)))
    bits = draw(st.integers(2, value_bits_for(clients, max_weight)))
    layout = Layout(values, draw(st.sampled_from([1e-3, 1.0, 7.5, 1e4])), bits, max_weight, bounds)
    layout.check_budget(clients)
    elements = st.floats(-(2.0**20), 2.0**20, width=32) | st.floats(-1, 1, width=32)
    contributions = [
        Contribution(
            draw(arrays(np.float32, values, elements=elements)),
            draw(st.integers(1, max_weight)),
            np.array([draw(st.integers(0, bound)) for bound in bounds], dtype=np.int64) if bounds else None,
        )
        for _ in range(clients)
    ]
    return layout, contributions


@given(rounds())
@settings(max_examples=150, deadline=None)
def test_quantise_and_sum_commute(case: tuple[Layout, list[Contribution]]) -> None:
    layout, contributions = case
    result = opened(layout, contributions)
    weight = sum(contribution.weight for contribution in contributions)
    expected = sum(c.weight * clipped(c.update, layout.max_norm) for c in contributions) / weight
    one_step = len(contributions) / (layout.scale * weight)  # each client is one step off at most, before weighting
    assert result.mean.dtype == np.float32
    np.testing.assert_allclose(result.mean, expected, rtol=2**-22, atol=one_step * (1 + 2**-15))
    assert one_step <= (1 + 1e-9) / layout.scale
    assert result.weight == weight
    counts = np.sum([c.counts for c in contributions], axis=0) if layout.count_bounds else []
    np.testing.assert_array_equal(result.counts, counts)


@given(rounds(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_each_client_sends_its_own_numbers(case: tuple[Layout, list[Contribution]], random: Any) -> None:
    """Within their bounds, with weight and counts in their places, and the update left as it was."""
    layout, contributions = case
    for contribution in contributions:
        before = contribution.update.copy()
        vector = encode(layout, contribution, random.randbytes(32))
        np.testing.assert_array_equal(contribution.update, before)
        assert vector.dtype == np.uint32
        assert vector.shape == (layout.size,)
        numbers = signed(vector)[: layout.values]
        assert np.abs(numbers.astype(np.int64)).max() <= layout.largest * contribution.weight
        rest = ([contribution.weight] if layout.weighted else []) + list(
            contribution.counts if contribution.counts is not None else []
        )
        assert vector[layout.values :].tolist() == rest


def test_a_client_that_weighs_more_counts_more() -> None:
    layout = Layout(1, 1.0, 20, max_weight=3)
    one, other = np.array([0.5], dtype=np.float32), np.array([-0.5], dtype=np.float32)
    result = opened(layout, [Contribution(one, 3), Contribution(other, 1)])
    assert abs(result.mean[0] - 0.25) < 1e-5
    assert result.weight == 4


def test_without_weights_the_number_of_survivors_is_the_weight() -> None:
    result = opened(Layout(2, 1.0, 16), [Contribution(np.zeros(2, dtype=np.float32))] * 5)
    assert result.weight == 5
    assert result.mean.tolist() == [0, 0]
    assert result.counts.shape == (0,)


# Clipping.


@pytest.mark.parametrize("length", [0.5, 1.0, 1.0001, 3.0, 1e30])
def test_updates_are_clipped_to_their_norm(length: float) -> None:
    direction = np.array([3, -4], dtype=np.float64) / 5
    result = opened(Layout(2, 1.0, 24), [Contribution((direction * length).astype(np.float32))])
    np.testing.assert_allclose(result.mean, direction * min(length, 1.0), atol=1e-6)


def test_an_update_whose_square_overflows_float32() -> None:
    result = opened(Layout(4, 2.0, 20), [Contribution(np.full(4, 3e38, dtype=np.float32))])
    np.testing.assert_allclose(result.mean, np.ones(4), atol=1e-5)


def test_a_long_update_is_clipped_as_a_whole() -> None:
    """Longer than one chunk: the norm is that of all of it."""
    layout = Layout(3 * quantize._CHUNK + 5, 1.0, 24)
    result = opened(layout, [Contribution(np.ones(layout.values, dtype=np.float32))])
    np.testing.assert_allclose(result.mean, np.full(layout.values, layout.values**-0.5), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 16, 20, 24])
@pytest.mark.parametrize("max_norm", [1e-3, 0.1, 1.0, 1e4])
def test_the_largest_values_are_exact(bits: int, max_norm: float) -> None:
    """A coordinate of ``max_norm`` is Q whatever the rounding, and never one more."""
    layout = Layout(3, float(np.float32(max_norm)), bits)
    for number in range(10):
        for sign in (1, -1):
            update = np.array([0, sign * layout.max_norm, 0], dtype=np.float32)
            assert signed(encode(layout, Contribution(update), key_of(number))).tolist() == [
                0,
                sign * layout.largest,
                0,
            ]
            huge = np.array([0, sign * 3e38, 0], dtype=np.float32)
            found = signed(encode(layout, Contribution(huge), key_of(number))).tolist()
            assert sign * found[1] in (layout.largest, layout.largest - 1)


def test_coordinates_are_clipped_on_their_own_too() -> None:
    """Where the norm lets one pass, by the error of a float, the coordinate does not."""
    into = np.zeros(4, dtype=np.uint32)
    _round(np.array([2, -2, 0.5, -0.5], dtype=np.float32), 100.0, 50, KEY, into)
    assert signed(into).tolist() == [50, -50, 50, -50]


# Rounding.


@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 0.999, -0.999, 12.7, -12.7])
def test_rounding_is_unbiased_over_all_steps(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all 65536 steps the numbers sum to exactly 65536 times the value, but for one 65536th of a number."""

    def every_step(_key: bytes, dtype: str, count: int) -> Iterator[npt.NDArray[Any]]:
        yield from np.arange(STEPS, dtype=dtype).reshape(-1, count)

    monkeypatch.setattr(quantize, "key_stream", every_step)
    into = np.zeros(STEPS, dtype=np.uint32)
    update = np.full(STEPS, value, dtype=np.float32)
    _round(update, 1.0, 1000, KEY, into)
    exact = float(update[0]) * STEPS
    assert int(signed(into).sum()) == int(exact)
    assert set(signed(into).tolist()) <= {math.floor(value), math.ceil(value)}


def test_rounding_is_unbiased_under_real_keys() -> None:
    """Statistically, with fixed keys: five standard errors of the mean of 2^18 roundings."""
    layout = Layout(STEPS, 1000.0, 16)
    update = np.random.default_rng(0).uniform(-1, 1, STEPS).astype(np.float32)
    errors = [
        signed(encode(layout, Contribution(update), key_of(number))) - update.astype(np.float64) * layout.scale
        for number in range(4)
    ]
    assert max(np.abs(error).max() for error in errors) <= 1
    assert abs(np.mean(errors)) < 5 * 0.5 / math.sqrt(4 * STEPS)
    correlations = np.corrcoef(errors)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(STEPS), "one client's errors tell nothing of another's"


def test_the_key_alone_decides_the_rounding() -> None:
    layout = Layout(1000, 1.0, 8)
    contribution = Contribution(np.full(1000, 0.01, dtype=np.float32))
    first = encode(layout, contribution, KEY)
    np.testing.assert_array_equal(encode(layout, contribution, KEY), first)
    assert not np.array_equal(encode(layout, contribution, key_of(1)), first)


def test_the_size_of_a_chunk_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(1000, 1.0, 20)
    contribution = Contribution(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    expected = encode(layout, contribution, KEY)
    mean = decode(layout, expected, 1).mean
    for chunk in (8, 1000, 999, 1 << 16):
        monkeypatch.setattr(quantize, "_CHUNK", chunk)
        np.testing.assert_array_equal(encode(layout, contribution, KEY), expected)
        np.testing.assert_array_equal(decode(layout, expected, 1).mean, mean)


def test_the_memory_layout_of_an_update_does_not_matter() -> None:
    layout, update = Layout(50, 1.0, 20), np.random.default_rng(0).normal(size=100).astype(np.float32)
    one, other = Contribution(update[::2]), Contribution(update[::2].copy())
    np.testing.assert_array_equal(encode(layout, one, KEY), encode(layout, other, KEY))


def test_denormals_are_numbers() -> None:
    update = np.array([1e-45, -1e-45], dtype=np.float32)
    assert signed(encode(Layout(2, 1.0, 16), Contribution(update), KEY)).tolist() == [0, 0]


# What is refused before it is masked.

LAYOUT = Layout(2, 1.0, 16)
WEIGHTED = Layout(2, 1.0, 16, max_weight=3)
COUNTED = Layout(2, 1.0, 16, count_bounds=(3, 4))
FINE = np.array([0.5, -0.5], dtype=np.float32)


def with_value(value: float) -> Contribution:
    return Contribution(np.array([0.5, value], dtype=np.float32))


def with_counts(*counts: int, dtype: Any = np.int64) -> Contribution:
    return Contribution(FINE, counts=np.array(counts, dtype=dtype))


# name of the fault -> (layout, contribution, words of the error)
UNFIT: dict[str, tuple[Layout, Contribution, str]] = {
    "NaN": (LAYOUT, with_value(np.nan), "not finite"),
    "infinity": (LAYOUT, with_value(np.inf), "not finite"),
    "minus infinity": (LAYOUT, with_value(-np.inf), "not finite"),
    "two infinities": (LAYOUT, Contribution(np.array([np.inf, -np.inf], dtype=np.float32)), "not finite"),
    "a list": (LAYOUT, Contribution([0.5, 0.5]), r"float32\[2\]"),  # type: ignore[arg-type]
    "nothing": (LAYOUT, Contribution(None), r"float32\[2\]"),  # type: ignore[arg-type]
    "float64": (LAYOUT, Contribution(FINE.astype(np.float64)), r"float32\[2\]"),  # type: ignore[arg-type]
    "big-endian": (LAYOUT, Contribution(FINE.astype(">f4")), r"float32\[2\]"),
    "empty": (LAYOUT, Contribution(FINE[:0]), r"float32\[2\]"),
    "one value too few": (LAYOUT, Contribution(FINE[:1]), r"float32\[2\]"),
    "one value too many": (LAYOUT, Contribution(np.zeros(3, dtype=np.float32)), r"float32\[2\]"),
    "two dimensions": (LAYOUT, Contribution(FINE[np.newaxis]), r"float32\[2\]"),
    "weight 0": (WEIGHTED, Contribution(FINE, 0), "weight must be 1 to 3"),
    "weight -1": (WEIGHTED, Contribution(FINE, -1), "weight must be 1 to 3"),
    "weight over its bound": (WEIGHTED, Contribution(FINE, 4), "weight must be 1 to 3"),
    "a weight where all weigh the same": (LAYOUT, Contribution(FINE, 2), "weight must be 1 to 1"),
    "counts missing": (COUNTED, Contribution(FINE), r"int64\[2\]"),
    "one count too few": (COUNTED, with_counts(1), r"int64\[2\]"),
    "counts as float": (COUNTED, with_counts(1, 1, dtype=np.float64), r"int64\[2\]"),
    "a negative count": (COUNTED, with_counts(1, -1), "out of its bounds"),
    "a count over its bound": (COUNTED, with_counts(4, 4), "out of its bounds"),
    "counts in a round that has none": (LAYOUT, with_counts(1, 1), "counts in a round that has none"),
}


@pytest.mark.parametrize(("layout", "contribution", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_what_cannot_be_sent(layout: Layout, contribution: Contribution, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        encode(layout, contribution, KEY)
    assert caught.value.breach is Breach.VALUES


def test_an_infinity_in_the_last_chunk() -> None:
    update = np.zeros(quantize._CHUNK + 1, dtype=np.float32)
    update[-1] = np.inf
    with pytest.raises(ProtocolError, match="not finite"):
        encode(Layout(len(update), 1.0, 16), Contribution(update), KEY)


# What is refused when it is opened. Three survivors.

FULL = Layout(2, 1.0, 8, max_weight=2, count_bounds=(5,))


def total_of(first: int = 0, second: int = 0, weight: int = 4, count: int = 15) -> Words:
    return np.array([first % 2**32, second % 2**32, weight % 2**32, count % 2**32], dtype=np.uint32)


Q = FULL.largest
REFUSED: dict[str, tuple[Words, Breach]] = {
    "a number over its range": (total_of(4 * Q + 1), Breach.RANGE),
    "a number under its range": (total_of(-4 * Q - 1), Breach.RANGE),
    "the second number out of its range": (total_of(second=4 * Q + 1), Breach.RANGE),
    "the largest int32": (total_of(2**31 - 1), Breach.RANGE),
    "the smallest int32": (total_of(-(2**31)), Breach.RANGE),
    "less weight than survivors": (total_of(weight=2), Breach.RANGE),
    "more weight than survivors may have": (total_of(weight=7), Breach.RANGE),
    "negative weight": (total_of(weight=-1), Breach.RANGE),
    "a count over its bound": (total_of(count=16), Breach.RANGE),
    "a negative count": (total_of(count=-1), Breach.RANGE),
    "all numbers in range, and longer together": (total_of(4 * Q, 4 * Q), Breach.NORM),
}


@pytest.mark.parametrize(("total", "breach"), REFUSED.values(), ids=REFUSED.keys())
def test_what_honest_clients_cannot_have_sent(total: Words, breach: Breach) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(FULL, total, 3)
    assert caught.value.breach is breach


@pytest.mark.parametrize(
    "total",
    [
        total_of(4 * Q),
        total_of(-4 * Q),
        total_of(second=4 * Q),
        total_of(weight=3),
        total_of(weight=6),
        total_of(count=0),
    ],
)
def test_what_they_just_can_have_sent(total: Words) -> None:
    assert decode(FULL, total, 3).weight == total[2]


def test_a_number_out_of_range_in_the_last_chunk() -> None:
    layout = Layout(quantize._CHUNK + 1, 1.0, 8)
    total = np.zeros(layout.size, dtype=np.uint32)
    total[-1] = 3 * layout.largest + 1
    with pytest.raises(ProtocolError, match="out of range"):
        decode(layout, total, 3)


def test_what_a_garbled_mask_leaves_is_refused() -> None:
    layout = Layout(1000, 1.0, 20)
    for seed in range(20):
        total = np.random.default_rng(seed).integers(0, 2**32, layout.size, dtype=np.uint32)
        with pytest.raises(ProtocolError) as caught:
            decode(layout, total, 2048)
        assert caught.value.breach is Breach.RANGE


@pytest.mark.parametrize("step", [0, 65535], ids=["all down", "all up"])
@pytest.mark.parametrize("bits", [2, 8, 20])
def test_the_norm_check_lets_every_rounding_of_honest_clients_pass(
    step: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(_key: bytes, dtype: str, count: int) -> Iterator[npt.NDArray[Any]]:
        return repeat(np.full(count, step, dtype=dtype))

    monkeypatch.setattr(quantize, "key_stream", always)
    layout = Layout(50, 2.0, bits, max_weight=3)
    for sign in (1, -1):
        update = np.full(50, sign, dtype=np.float32)  # clipped
        result = opened(layout, [Contribution(update, weight) for weight in (1, 1, 1)])
        assert result.weight == 3


def test_values_are_not_printed() -> None:
    contribution = Contribution(np.array([0.123], dtype=np.float32), counts=np.array([77]))
    assert repr(contribution) == "Contribution(weight=1)"
    assert repr(opened(Layout(1, 1.0, 16), [Contribution(contribution.update)])) == "Opened(weight=1)"


# The budget.


@pytest.mark.parametrize("bits", range(2, 25))
def test_the_largest_sum_does_not_wrap_and_one_more_is_refused(bits: int) -> None:
    """value bits + ceil(log2(members * weight)) + 1 <= 32."""
    most = 2 ** (31 - bits)
    for members, weight in ((most, 1), (1, most), (most // 2, 2)):
        layout = Layout(1, 1.0, bits, max_weight=weight)
        layout.check_budget(members)
        assert members * weight * layout.largest < 2**31
    for members, weight in ((most + 1, 1), (most, 2)):
        layout = Layout(1, 1.0, bits, max_weight=weight)
        with pytest.raises(ProtocolError, match="there are 32") as caught:
            layout.check_budget(members)
        assert caught.value.breach is Breach.RANGE
        assert f"to {value_bits_for(members, weight)} or less" in str(caught.value)
        assert value_bits_for(members, weight) == bits - 1


@pytest.mark.parametrize(
    ("members", "max_weight", "bits"),
    [
        (1, 1, 24),
        (128, 1, 24),
        (129, 1, 23),
        (2048, 1, 20),
        (64, 32, 20),
        (2049, 1, 19),
        (32768, 1, 16),
        (3, 10923, 15),
    ],
)
def test_value_bits(members: int, max_weight: int, bits: int) -> None:
    """Two of them are SECAGG.md's: 20 bits up to 2048, 16 up to 32768."""
    assert value_bits_for(members, max_weight) == bits


def test_extremes_of_the_largest_group_are_exact() -> None:
    """Everybody at the clip, everybody at the largest weight: 32 clients of weight 64 with 20 bits."""
    layout = Layout(2, 1.0, 20, max_weight=64)
    layout.check_budget(32)
    for sign in (1, -1):
        update = np.array([sign, 0], dtype=np.float32)
        total = sum_of(layout, [Contribution(update, 64)] * 32)
        assert signed(total).tolist() == [sign * 2048 * layout.largest, 0, 2048]
        assert decode(layout, total, 32).mean.tolist() == [sign, 0]


def test_sums_of_counts_do_not_wrap_either() -> None:
    Layout(1, 1.0, 8, count_bounds=(1, 2**31 - 1)).check_budget(1)
    Layout(1, 1.0, 8, count_bounds=(2**20,)).check_budget(2**11 - 1)
    for bound, members in ((2**31, 1), (2**20, 2**11)):
        with pytest.raises(ProtocolError, match=f"a count of up to {bound} does not fit") as caught:
            Layout(1, 1.0, 8, count_bounds=(1, bound)).check_budget(members)
        assert caught.value.breach is Breach.RANGE
