"""Flat vectors: digests see every bit, clipping never exceeds, faults are named."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testudo_common.vectors import Vector, clip_to_norm, fault_of_vector, vector_digest

finite = arrays(np.float32, st.integers(1, 20), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def test_digest_known_answer() -> None:
    """By the definition, from struct and hashlib alone."""
    expected = hashlib.sha256(struct.pack("<Q3f", 3, 1.5, -0.0, float("inf"))).hexdigest()
    assert vector_digest(np.array([1.5, -0.0, np.inf], dtype=np.float32)) == expected


@given(arrays(np.uint32, st.integers(1, 20)), st.data())
@settings(max_examples=50, deadline=None)
def test_digest_depends_on_every_bit(bits: np.ndarray, data: st.DataObject) -> None:
    changed = bits.copy()
    changed[data.draw(st.integers(0, len(bits) - 1))] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert vector_digest(changed.view(np.float32)) != vector_digest(bits.view(np.float32))


def test_digest_depends_on_the_length_and_the_order() -> None:
    vectors = [np.zeros(size, dtype=np.float32) for size in range(5)]
    assert len({vector_digest(vector) for vector in vectors}) == 5
    ascending = np.arange(4, dtype=np.float32)
    assert vector_digest(ascending) != vector_digest(ascending[::-1])


def test_digest_does_not_depend_on_the_memory_layout() -> None:
    vector = np.arange(10, dtype=np.float32)
    assert vector_digest(vector[::2]) == vector_digest(vector[::2].copy())
    assert vector_digest(vector.astype(">f4")) == vector_digest(vector)


def length_of(vector: Vector) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


@given(finite, st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_clipping(vector: Vector, max_norm: float) -> None:
    before = vector.copy()
    clipped = clip_to_norm(vector, max_norm)
    assert clipped.dtype == np.float32
    assert clipped is not vector
    np.testing.assert_array_equal(vector, before)
    # float32 rounds each coordinate by at most 2^-24 of itself, or half of the smallest number there is
    assert length_of(clipped) <= max_norm * (1 + 2**-23)
    if length_of(vector) <= max_norm:
        np.testing.assert_array_equal(clipped, vector)
    else:
        assert length_of(clipped) >= max_norm * (1 - 2**-23) - 1e-40
        direction = vector.astype(np.float64) / length_of(vector)
        np.testing.assert_allclose(clipped, max_norm * direction, rtol=1e-6, atol=1e-40)


def test_clipping_of_a_vector_whose_square_overflows_float32() -> None:
    clipped = clip_to_norm(np.full(4, 3e38, dtype=np.float32), 2.0)
    np.testing.assert_array_equal(clipped, np.ones(4, dtype=np.float32))


def test_zero_vector_is_left_alone() -> None:
    np.testing.assert_array_equal(clip_to_norm(np.zeros(3, dtype=np.float32), 1.0), np.zeros(3))


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        ([1.0, 2.0], "not a float32 array"),
        (None, "not a float32 array"),
        (np.zeros(2), "not a float32 array"),
        (np.zeros(2, dtype=">f4"), "not a float32 array"),
        (np.array(["a", "b"], dtype=object), "not a float32 array"),
        (np.zeros(3, dtype=np.float32), "shape (3,) instead of (2,)"),
        (np.zeros((2, 1), dtype=np.float32), "shape (2, 1) instead of (2,)"),
        (np.array(1, dtype=np.float32), "shape () instead of (2,)"),
        (np.array([0, np.nan], dtype=np.float32), "not finite"),
        (np.array([np.inf, 0], dtype=np.float32), "not finite"),
        (np.array([0, -np.inf], dtype=np.float32), "not finite"),
        (np.array([3e38, -0.0], dtype=np.float32), None),
    ],
)
def test_fault(vector: object, fault: str | None) -> None:
    assert fault_of_vector(vector, 2) == fault
