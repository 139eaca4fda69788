"""Discrete Gaussian noise: its distribution against the exact one, its key and bounds, and who is left to carry it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import noise
from testudo_common.secagg.noise import MOST_DEVIATION, SumNoise, discrete_gaussian, draw, longest
from testudo_common.secagg.quantize import Contribution, Layout, decode, encode
from testudo_common.secagg.terms import Parameters

KEY = bytes(range(32))
LAYOUT = Layout(50, 1.0, 16, count_bounds=(3, 2), count_steps=(1, 64))
PARAMETERS = Parameters(
    group_size=20,
    min_cohort=20,
    min_group=4,
    corruption=0.1,
    dropout=0.2,
    max_left_out=0.0,
    layout=Layout(10, 1.0, 16),
    noise=SumNoise(10_000.0),
)


def exact(sigma: float, last: int) -> npt.NDArray[np.float64]:
    """``P(x)`` for x in -last..last, from 50 digits."""
    getcontext().prec = 50
    weights = [(-((Decimal(k) / Decimal(sigma)) ** 2) / 2).exp() for k in range(int(40 * sigma) + 2)]
    total = weights[0] + 2 * sum(weights[1:])
    return np.array([float(weights[abs(k)] / total) for k in range(-last, last + 1)])


@pytest.mark.parametrize("sigma", [0.4, 1.0, 4.0, 25.3])
def test_frequencies_are_those_of_the_exact_distribution(sigma: float) -> None:
    count, last = 200_000, max(1, int(3.5 * sigma))
    drawn = discrete_gaussian(sigma, count, KEY)
    expected = exact(sigma, last) * count
    found = np.bincount(np.clip(drawn, -last - 1, last + 1) + last + 1, minlength=2 * last + 3)
    beyond = np.array([(count - expected.sum()) / 2])
    assert stats.chisquare(found, np.concatenate([beyond, expected, beyond])).pvalue > 1e-3


def test_another_distribution_would_be_seen() -> None:
    """Rounded Gaussians of the same variance differ at a small sigma: the test above can fail."""
    count, sigma, last = 200_000, 0.4, 1
    drawn = np.rint(np.random.default_rng(0).normal(scale=sigma, size=count)).astype(np.int64)
    expected = exact(sigma, last) * count
    found = np.bincount(np.clip(drawn, -2, 2) + 2, minlength=5)
    beyond = np.array([(count - expected.sum()) / 2])
    assert stats.chisquare(found, np.concatenate([beyond, expected, beyond])).pvalue < 1e-6


@pytest.mark.parametrize("sigma", [1.0, 4.0, 4096.0, MOST_DEVIATION])
def test_moments_and_tails_of_a_gaussian(sigma: float) -> None:
    count = 100_000
    drawn = discrete_gaussian(sigma, count, KEY).astype(np.float64) / sigma
    assert abs(drawn.mean()) < 5 / math.sqrt(count)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / count)
    assert 3.5 < np.abs(drawn).max() < 7
    assert (
        stats.kstest(drawn + (np.random.default_rng(1).random(count) - 0.5) / sigma, "norm").pvalue > 1e-3 or sigma < 2
    )


@pytest.mark.parametrize("sigma", [0.7, 4.0, 57.1])
def test_thresholds_keep_their_precision_in_the_tail(sigma: float) -> None:
    """Each step's probability to 2^-44 of itself, until far beyond what a float64 near 1 could tell."""
    first, more = noise._thresholds(sigma)
    reached = [int(high) << 40 | int(low) for high, low in zip(first, more, strict=True)]  # the last k first
    assert reached == sorted(reached)
    steps = np.diff([0, *reached]).astype(object)[::-1]  # of k = 1, 2, ...
    probabilities = exact(sigma, len(steps))[len(steps) + 1 :]
    for step, wanted in zip(steps, probabilities, strict=True):
        if wanted > 2.0**-62:
            assert float(step) / 2.0**103 == pytest.approx(2 * wanted, rel=2.0**-44)
    assert probabilities[-1] < 2.0**-90


def test_where_63_bits_do_not_decide_the_rest_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first, more = noise._thresholds(4.0)
    place = 20
    assert 0 < more[place] < (1 << 40) - 1
    word = np.uint64(int(first[place]) << 1)

    def words(second: int) -> Any:
        def stream(_key: bytes, _dtype: str, count: int) -> Iterator[npt.NDArray[np.uint64]]:
            yield np.full(count, word)
            yield np.full(count, np.uint64(second << 24))

        return stream

    monkeypatch.setattr(noise, "key_stream", words(int(more[place]) - 1))
    (under,) = discrete_gaussian(4.0, 1, KEY)
    monkeypatch.setattr(noise, "key_stream", words(int(more[place])))
    (at,) = discrete_gaussian(4.0, 1, KEY)
    assert (under, at) == (len(first) - place, len(first) - place - 1)


def test_a_key_gives_one_noise_and_another_key_another() -> None:
    one, again, other = (discrete_gaussian(9.0, 20_000, key) for key in (KEY, KEY, bytes(32)))
    assert one.tobytes() == again.tobytes()
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.05
    assert discrete_gaussian(9.0, 0, KEY).shape == (0,)


def test_values_and_counts_have_noise_of_their_own() -> None:
    of_values, of_counts = draw(SumNoise(50.0, (50.0, 0.0, 50.0, 9.0)), 4, KEY)
    assert of_counts[1] == 0
    assert of_values.tolist() != of_counts.tolist()
    nothing, of_counts = draw(SumNoise(0.0, (1000.0,) * 4), 4, KEY)
    assert not nothing.any()
    assert len(set(of_counts.tolist())) == 4


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, MOST_DEVIATION * 1.01, math.inf])
def test_deviation_out_of_range(sigma: float) -> None:
    with pytest.raises(ProtocolError, match="cannot be drawn"):
        discrete_gaussian(sigma, 3, KEY)


@pytest.mark.parametrize("share", [SumNoise(3.99), SumNoise(0.0, (5.0, 1.0)), SumNoise(math.nan)])
def test_share_too_small_to_add_up_to_a_gaussian(share: SumNoise) -> None:
    with pytest.raises(ProtocolError, match="under 4"):
        draw(share, 5, KEY)


def test_share_too_large_to_be_drawn() -> None:
    with pytest.raises(ProtocolError, match="Lower secure_aggregation"):
        draw(SumNoise(2.0**18), 5, KEY)


def test_norm_bound_is_seldom_passed_and_not_loose() -> None:
    norms = [np.linalg.norm(discrete_gaussian(100.0, 500, bytes([i] * 32)).astype(float)) for i in range(200)]
    assert max(norms) < longest(100.0, 500) < 1.4 * float(np.mean(norms))


# --- in a vector, and in a sum of them


def summed(layout: Layout, share: SumNoise, count: int, seed: int) -> tuple[npt.NDArray[np.uint32], Any]:
    rng = np.random.default_rng(seed)
    total = np.zeros(layout.size, dtype=np.uint32)
    updates = rng.normal(size=(count, layout.values)).astype(np.float32)
    updates /= np.linalg.norm(updates, axis=1, keepdims=True)
    for update in updates:
        counts = np.array([rng.integers(bound + 1) for bound in layout.count_bounds], dtype=np.int64)
        total += encode(layout, Contribution(update, 1, counts), rng.bytes(32), share, rng.bytes(32))
    return total, updates


@given(
    st.integers(1, 30), st.sampled_from([4.0, 300.0, 30_000.0]), st.sampled_from([0.0, 4.0, 900.0]), st.integers(0, 9)
)
@settings(max_examples=40, deadline=None)
def test_a_noisy_sum_is_read_within_its_noise(count: int, values: float, counts: float, seed: int) -> None:
    share = SumNoise(values, (counts, counts))
    total, updates = summed(LAYOUT, share, count, seed)
    opened = decode(LAYOUT, total, count, share)
    off = 9 * values * math.sqrt(count) / (LAYOUT.scale * count) + 1.001 / LAYOUT.scale
    np.testing.assert_allclose(opened.mean, updates.astype(np.float64).mean(axis=0), rtol=0, atol=off)
    for found, bound, steps in zip(opened.counts, LAYOUT.count_bounds, LAYOUT.count_steps, strict=True):
        reach = 9 * counts * math.sqrt(count) / steps + 0.5
        assert -reach <= found <= bound * count + reach


def test_noise_is_added_to_what_is_encoded_without() -> None:
    share, update = SumNoise(40.0, (7.0, 0.0)), np.full(50, 0.1, dtype=np.float32)
    given_ = Contribution(update, 1, np.array([3, 1]))
    plain, noisy = encode(LAYOUT, given_, KEY), encode(LAYOUT, given_, KEY, share, bytes(32))
    of_values, of_counts = draw(share, 50, bytes(32))
    difference = (noisy - plain).view(np.int32)
    assert difference.tolist() == [*of_values.tolist(), *of_counts.tolist()]


def test_noise_without_a_key_is_a_mistake_of_ours() -> None:
    with pytest.raises(ProtocolError, match="without a key"):
        encode(LAYOUT, Contribution(np.zeros(50, np.float32), 1, np.array([0, 0])), KEY, SumNoise(40.0))


@pytest.mark.parametrize("share", [SumNoise(40.0), SumNoise(30_000.0, (100.0, 100.0))])
def test_what_a_garbled_mask_leaves_is_found(share: SumNoise) -> None:
    for seed in range(20):
        garbled = np.random.default_rng(seed).integers(2**32, size=LAYOUT.size, dtype=np.uint32)
        with pytest.raises(ProtocolError) as caught:
            decode(LAYOUT, garbled, 20, share)
        assert caught.value.breach is Breach.RANGE


def test_a_longer_mean_than_noise_explains_is_found() -> None:
    share, layout = SumNoise(100.0), Layout(500, 1.0, 16)
    total = np.zeros(500, dtype=np.uint32)
    total[:500] = 20 * layout.largest // 10  # each coordinate a tenth of S: within range, and 2.2 S long
    with pytest.raises(ProtocolError) as caught:
        decode(layout, total, 20, share)
    assert caught.value.breach is Breach.NORM


def test_longest_is_longer_than_any_clipped_and_rounded_vector() -> None:
    for seed in range(30):
        layout = Layout(40, 1.0, 5)
        update = np.random.default_rng(seed).normal(size=40).astype(np.float32)
        words = encode(layout, Contribution(update), bytes([seed] * 32)).view(np.int32).astype(float)
        assert np.linalg.norm(words) <= layout.longest
    assert Layout(1, 1.0, 16).longest > 32768


# --- budget


def test_a_sum_with_its_noise_must_fit() -> None:
    layout = Layout(1, 1.0, 24)
    layout.check_budget(128, SumNoise(1000.0))
    with pytest.raises(ProtocolError, match="with its noise does not fit"):
        layout.check_budget(128, SumNoise(1e8))
    counting = Layout(1, 1.0, 16, 1, (1 << 20,), (1 << 10,))
    with pytest.raises(ProtocolError, match="a count of up to 1048576"):
        counting.check_budget(4, SumNoise(0.0, (10.0,)))


def test_steps_of_counts_are_one_each_unless_stated() -> None:
    assert Layout(1, 1.0, 16, 1, (3, 4)).count_steps == (1, 1)
    for steps in ((1,), (1, 0)):
        with pytest.raises(ProtocolError):
            Layout(1, 1.0, 16, 1, (3, 4), steps)


# --- who must be left


@given(st.integers(3, 200), st.floats(0, 0.45), st.floats(0, 0.45), st.integers(3, 10))
def test_honest_survivors(members: int, corruption: float, dropout: float, min_group: int) -> None:
    parameters = replace(PARAMETERS, corruption=corruption, dropout=dropout, min_group=min_group)
    least, honest = parameters.least_survivors(members), parameters.honest_survivors(members)
    assert least >= min_group
    assert members - least <= dropout * members + 1e-6, "no more may drop out than the plan says"
    assert least - honest >= max(1, corruption * members - 1e-6)
    assert honest > least - max(1, corruption * members) - 1
    assert replace(parameters, noise=None).least_survivors(members) == min_group
    if honest >= 1:
        share = parameters.noise_share(members)
        assert share is not None
        assert share.values * math.sqrt(honest) == pytest.approx(10_000.0)
    else:
        with pytest.raises(ProtocolError, match="nobody's noise is sure"):
            parameters.noise_share(members)


def test_no_float_dust_in_the_number_of_dropouts() -> None:
    assert replace(PARAMETERS, dropout=0.1).least_survivors(30) == 27
    assert replace(PARAMETERS, dropout=0.3).least_survivors(10) == 7


def test_check_looks_at_groups_of_every_size() -> None:
    PARAMETERS.check(20)
    with pytest.raises(ProtocolError, match="over 131072"):
        replace(PARAMETERS, noise=SumNoise(1e6)).check(20)
    with pytest.raises(ProtocolError, match="under 4"):
        replace(PARAMETERS, noise=SumNoise(14.0)).check(20)
    replace(PARAMETERS, min_group=3, corruption=0.0, noise=SumNoise(2e5)).check(20)
    with pytest.raises(ProtocolError, match="over 131072"):  # of 3 clients, one or two carry all of it
        replace(PARAMETERS, min_group=3, min_cohort=3, corruption=0.0, noise=SumNoise(2e5)).check(20)
    with pytest.raises(ProtocolError, match="nobody's noise is sure"):
        replace(PARAMETERS, min_cohort=4, corruption=0.45, dropout=0.45, min_group=4).check_noise(20)
