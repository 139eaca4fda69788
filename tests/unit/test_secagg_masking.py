"""Masks against NIST's counter mode, built here from single blocks; and that they go as they came."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testudo_common.secagg import masking
from testudo_common.secagg.masking import BLOCK_WORDS, Words, apply_masks, key_stream

keys = st.binary(min_size=32, max_size=32)
key_lists = st.lists(keys, max_size=4)
vectors = arrays(np.uint32, st.integers(0, 40))


def counter_mode(key: bytes, first: int, length: int) -> bytes:
    """The key stream of NIST SP 800-38A, section 6.5: each counter encrypted as a block of its own."""
    ecb = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    blocks = (ecb.update((first + i).to_bytes(16, "big")) for i in range(-(-length // 16)))
    return b"".join(blocks)[:length]


NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")


def test_the_test_s_own_counter_mode() -> None:
    """NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt)."""
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = counter_mode(NIST_KEY, 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF, 64)
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == cipher


def mask_of(key: bytes, size: int) -> Words:
    """A mask as the module describes it: counter mode from block 0, little-endian words."""
    return np.frombuffer(counter_mode(key, 0, 4 * size), dtype="<u4").astype(np.uint32)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000, BLOCK_WORDS - 1, BLOCK_WORDS, BLOCK_WORDS + 1])
def test_a_mask_is_the_key_stream_from_block_zero(size: int) -> None:
    vector = np.zeros(size, dtype=np.uint32)
    apply_masks(vector, [NIST_KEY], [])
    np.testing.assert_array_equal(vector, mask_of(NIST_KEY, size))


@given(vectors, key_lists, key_lists)
@settings(max_examples=50, deadline=None)
def test_masks_add_up_modulo_two_to_the_32(vector: Words, added: list[bytes], subtracted: list[bytes]) -> None:
    size = len(vector)
    expected = [int(word) for word in vector]
    for sign, names in ((1, added), (-1, subtracted)):
        for key in names:
            expected = [value + sign * int(word) for value, word in zip(expected, mask_of(key, size), strict=True)]
    apply_masks(vector, added, subtracted)
    assert vector.tolist() == [value % 2**32 for value in expected]


@given(vectors, key_lists, key_lists)
@settings(max_examples=50, deadline=None)
def test_what_was_added_and_is_subtracted_is_gone(vector: Words, added: list[bytes], subtracted: list[bytes]) -> None:
    before = vector.copy()
    apply_masks(vector, iter(added), iter(subtracted))
    apply_masks(vector, iter(subtracted), iter(added))
    np.testing.assert_array_equal(vector, before)


def test_a_pair_s_mask_leaves_their_sum_alone() -> None:
    one, other = np.full(100, 7, dtype=np.uint32), np.full(100, 2**32 - 3, dtype=np.uint32)
    apply_masks(one, [NIST_KEY], [])
    apply_masks(other, [], [NIST_KEY])
    assert np.mean(one == 7) < 0.05
    np.testing.assert_array_equal(one + other, np.full(100, 4, dtype=np.uint32))


def many_keys(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


@pytest.mark.parametrize("block_words", [4, 64, 1 << 12, 1 << 20])
@pytest.mark.parametrize("contexts", [1, 2, 1000])
def test_the_size_of_a_block_does_not_matter(block_words: int, contexts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.arange(1000, dtype=np.uint32)
    found = expected.copy()
    apply_masks(expected, many_keys(3), many_keys(5)[3:])
    monkeypatch.setattr(masking, "BLOCK_WORDS", block_words)
    monkeypatch.setattr(masking, "_ZEROS", memoryview(bytes(4 * block_words)))
    monkeypatch.setattr(masking, "_CONTEXTS_AT_ONCE", contexts)
    apply_masks(found, many_keys(3), many_keys(5)[3:])
    np.testing.assert_array_equal(found, expected)


def test_more_masks_than_are_expanded_at_once() -> None:
    count = masking._CONTEXTS_AT_ONCE + 9
    vector = np.zeros(5, dtype=np.uint32)
    apply_masks(vector, many_keys(count), [])
    total = sum(mask_of(key, 5).astype(object) for key in many_keys(count))
    assert vector.tolist() == [value % 2**32 for value in total]


def peak_bytes(work: Callable[[], None]) -> int:
    """The most memory that was held at once during ``work``, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_masks_nor_with_the_vector() -> None:
    def work(masks: int, size: int) -> Callable[[], None]:
        names, vector = many_keys(masks), np.zeros(size, dtype=np.uint32)
        return lambda: apply_masks(vector, names, [])

    work(2, 10)()
    one_block = 4 * BLOCK_WORDS
    few, many = peak_bytes(work(2, BLOCK_WORDS)), peak_bytes(work(500, BLOCK_WORDS))
    assert one_block <= few < 1.2 * one_block
    assert many < few + one_block, "500 masks of one block each were not held at once"
    assert peak_bytes(work(2, 8 * BLOCK_WORDS)) < 1.2 * one_block


@pytest.mark.parametrize(("dtype", "count"), [("<u2", 10), ("<u4", 4), (">u4", 5), ("u1", 33), ("<u2", 1 << 13)])
def test_key_stream(dtype: str, count: int) -> None:
    """Arrays follow each other without a gap."""
    arrays_of_it = [numbers.copy() for numbers in islice(key_stream(NIST_KEY, dtype, count), 3)]
    assert [len(numbers) for numbers in arrays_of_it] == [count] * 3
    found = b"".join(numbers.tobytes() for numbers in arrays_of_it)
    assert found == counter_mode(NIST_KEY, 0, len(found))


def test_key_stream_is_overwritten() -> None:
    """As its description says: whoever keeps an array must copy it."""
    stream = key_stream(NIST_KEY, "<u2", 8)
    first = next(stream)
    kept = first.copy()
    assert next(stream) is first
    assert not np.array_equal(first, kept)
