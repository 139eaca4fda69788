"""What secure aggregation cannot do without, done plainly with the same libraries: the limits ours is held against.

The sums that they are made of stand in secagg.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from testudo_common.secagg.graph import Graph
from testudo_common.secagg.masking import Words
from testudo_common.secagg.shamir import LIMBS, PRIME, SHARE_BYTES

_CHUNK = 1 << 15  # coordinates
_ZEROS = memoryview(bytes(1 << 18))
_STREAM = bytearray(len(_ZEROS) + 15)


def client_limit(graph: Graph, size: int) -> Callable[[], None]:
    """A client's formula, to be timed."""
    update = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    secret, peer = os.urandom(32), X25519PrivateKey.generate().public_key().public_bytes_raw()
    signer = Ed25519PrivateKey.generate()
    signing_key, verifying_key = signer.private_bytes_raw(), signer.public_key().public_bytes_raw()
    message, shares = os.urandom(32), os.urandom(2 * SHARE_BYTES)

    def work() -> None:
        vector = _quantised(update)
        signature = Ed25519PrivateKey.from_private_bytes(signing_key).sign(message)
        for _ in range(graph.members):
            Ed25519PublicKey.from_public_bytes(verifying_key).verify(signature, message)
        channel, mask = X25519PrivateKey.from_private_bytes(secret), X25519PrivateKey.from_private_bytes(secret)
        for _ in range(graph.degree):
            cipher = AESGCM(_agreed(channel, peer))
            cipher.decrypt(message[:12], cipher.encrypt(message[:12], shares, message), message)
            _mask(vector, _agreed(mask, peer))
        _mask(vector, secret)

    return work


def server_limit(graph: Graph, size: int, *, dropped: int) -> Callable[[], None]:
    """The server's formula, to be timed; for a complete graph, where all secrets have the same holders."""
    assert graph.degree == graph.members - 1
    secret, peer = os.urandom(32), X25519PrivateKey.generate().public_key().public_bytes_raw()
    signer, message = Ed25519PrivateKey.generate(), os.urandom(32)
    signature, verifying_key = signer.sign(message), signer.public_key().public_bytes_raw()
    vector, survivors = np.ones(size, dtype=np.uint32), graph.members - dropped
    shares = np.random.default_rng(0).integers(PRIME, size=(graph.threshold, graph.members * LIMBS))

    def work() -> None:
        total = np.zeros(size, dtype=np.uint32)
        for _ in range(graph.members):
            Ed25519PublicKey.from_public_bytes(verifying_key).verify(signature, message)
        for _ in range(survivors):
            np.add(total, vector, out=total)
        _constant_terms(list(range(1, graph.threshold + 1)), shares)
        for _ in range(survivors):
            _mask(total, secret)
        for _ in range(dropped):
            key = X25519PrivateKey.from_private_bytes(secret)
            for _ in range(survivors):
                _mask(total, _agreed(key, peer))

    return work


def _agreed(key: X25519PrivateKey, peer: bytes) -> bytes:
    shared = key.exchange(X25519PublicKey.from_public_bytes(peer))
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=peer).derive(shared)


def _mask(vector: Words, key: bytes) -> None:
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(_STREAM, dtype="<u4", count=len(_ZEROS) // 4)
    for start in range(0, len(vector), len(words)):
        block = vector[start : start + len(words)]
        stream.update_into(_ZEROS[: block.nbytes], _STREAM)
        np.add(block, words[: len(block)], out=block)


def _quantised(update: npt.NDArray[np.float32]) -> Words:
    """16 bits of value and 16 of chance are one int32, so that a pass in float32 is enough."""
    stream = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    chance = np.frombuffer(_STREAM, dtype="<u2", count=_CHUNK)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(update), _CHUNK)]
    norm = math.sqrt(sum(float(np.dot(update[chunk], update[chunk])) for chunk in chunks))
    largest = np.float32(((1 << 15) - 1) << 16)
    factor = np.float32(largest / max(norm, math.sqrt(len(update))))
    vector = np.empty(len(update), dtype=np.int32)
    for chunk in chunks:
        fine, into = update[chunk] * factor, vector[chunk]
        np.clip(fine, -largest, largest, out=fine)
        into[:] = fine
        stream.update_into(_ZEROS[: 2 * len(fine)], _STREAM)
        into += chance[: len(fine)]
        into >>= 16
    return vector.view(np.uint32)


def _constant_terms(points: list[int], shares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``int64[m]``, of the polynomials that have ``shares``, ``int64[t, m]``, at ``points``; Lagrange's formula."""
    weights = [
        math.prod(other * pow(other - point, -1, PRIME) for other in points if other != point) % PRIME
        for point in points
    ]
    return np.array(weights) @ shares % PRIME
