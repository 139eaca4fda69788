"""Masks: the key streams that hide a vector in Z_2^32, added and taken away in place. Knows no members.

A mask is AES-256 in counter mode from block 0 under a key that is used once, read as little-endian words
(NIST SP 800-38A). Several masks are applied block by block, so that a block of the vector stays in the cache while
all of them pass over it, and memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.uint32]
BLOCK_WORDS = 1 << 16
_WORD_BYTES = 4
_AES_BLOCK_BYTES = 16
_ZEROS = memoryview(bytes(BLOCK_WORDS * _WORD_BYTES))
_CONTEXTS_AT_ONCE = 256


def apply_masks(vector: Words, added: Iterable[bytes], subtracted: Iterable[bytes]) -> None:
    """Add and subtract masks modulo 2^32, in place.

    Args:
        vector: ``uint32[size]``, contiguous and writeable.
        added: 32-byte keys of masks to add.
        subtracted: 32-byte keys of masks to subtract.
    """
    keys: list[tuple[bytes, Any]] = [(key, np.add) for key in added]
    keys += [(key, np.subtract) for key in subtracted]
    for start in range(0, len(keys), _CONTEXTS_AT_ONCE):
        _apply(vector, keys[start : start + _CONTEXTS_AT_ONCE])


def _apply(vector: Words, keys: list[tuple[bytes, Any]]) -> None:
    streams = [(_cipher(key), operation) for key, operation in keys]
    buffer = _buffer(len(_ZEROS))
    stream = np.frombuffer(buffer, dtype="<u4", count=BLOCK_WORDS)
    for start in range(0, len(vector), BLOCK_WORDS):
        block = vector[start : start + BLOCK_WORDS]
        words = stream[: len(block)]
        for encryptor, operation in streams:
            encryptor.update_into(_ZEROS[: len(block) * _WORD_BYTES], buffer)
            operation(block, words, out=block)


def key_stream(key: bytes, dtype: str, count: int) -> Iterator[npt.NDArray[Any]]:
    """The key stream of ``key`` as arrays of ``count`` numbers; each is overwritten by the next.

    Args:
        key: 32 bytes, used once.
        dtype: Of unsigned whole numbers, such as ``<u2``.
        count: Numbers an array; at most 256 KiB of them.
    """
    length = np.dtype(dtype).itemsize * count
    encryptor, buffer = _cipher(key), _buffer(length)
    numbers = np.frombuffer(buffer, dtype=dtype, count=count)
    while True:
        encryptor.update_into(_ZEROS[:length], buffer)
        yield numbers


def _cipher(key: bytes) -> Any:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(_AES_BLOCK_BYTES))).encryptor()


def _buffer(length: int) -> bytearray:
    return bytearray(length + _AES_BLOCK_BYTES - 1)  # update_into asks for so much room
