"""Shamir's secret sharing of 32-byte secrets over F_65537, many secrets at once. Pure; authenticates nothing.

A secret is 16 limbs of 16 bits (big-endian), each the constant term of a polynomial of degree t - 1 whose other
coefficients, from the first power up, are uniform in the field. A share is its 16 values as big-endian 32-bit words.
Shares of all limbs of all secrets come from one float64 matrix product, exact because t * 65536^2 < 2^53 for every t
below 2^21. Source: Shamir 1979.
"""

from __future__ import annotations

import secrets as os_random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, ProtocolError

PRIME = 65537
LIMBS = 16
SHARE_BYTES = 4 * LIMBS

Field = npt.NDArray[np.int64]


def split(secrets: tuple[bytes, ...], threshold: int, points: Sequence[int]) -> Field:
    """Shares of some secrets.

    Args:
        secrets: 32 bytes each.
        threshold: Shares that give a secret back; fewer tell nothing. 1 to the number of points.
        points: Where the polynomials are evaluated, one a holder: 1..65536, all different.

    Returns:
        ``int64[len(secrets), len(points), 16]`` with entries in 0..65536.
    """
    assert 1 <= threshold <= len(points) == len(set(points))
    assert 1 <= min(points) <= max(points) < PRIME
    limbs = np.frombuffer(b"".join(secrets), dtype=">u2").astype(np.int64)  # [secrets * 16]
    coefficients = np.vstack([limbs[None, :], uniform((threshold - 1, len(limbs)))])  # [t, secrets * 16]
    powers = np.ones((len(points), threshold), dtype=np.int64)
    for column in range(1, threshold):
        powers[:, column] = powers[:, column - 1] * np.asarray(points, dtype=np.int64) % PRIME
    product = powers.astype(np.float64) @ coefficients.astype(np.float64)  # exact
    shares = np.fmod(product, PRIME).astype(np.int64)  # [points, secrets * 16]
    return shares.reshape(len(points), len(secrets), LIMBS).transpose(1, 0, 2)


def uniform(shape: tuple[int, int]) -> Field:
    """Field elements from the operating system, unbiased: words past the last whole multiple are drawn again."""
    count = shape[0] * shape[1]
    limit = (1 << 32) // PRIME * PRIME
    words = np.frombuffer(os_random.token_bytes(4 * count), dtype="<u4").astype(np.int64)
    while (past := np.flatnonzero(words >= limit)).size:
        words[past] = np.frombuffer(os_random.token_bytes(4 * past.size), dtype="<u4")
    return (words % PRIME).reshape(shape)


def recover(points: Field, shares: Field) -> list[bytes | None]:
    """The secrets of exactly as many shares as their threshold.

    Args:
        points: ``int64[T, t]``, where each of T secrets' shares were taken, all different in a row.
        shares: ``int64[T, t, 16]``, entries in 0..65536.

    Returns:
        T secrets; None where the shares give no 32 bytes, which proves that one of them is wrong.
    """
    limbs = evaluate(points, shares, np.zeros((len(points), 1), dtype=np.int64))[:, 0]  # [T, 16]
    return [None if row.max() >= 1 << 16 else row.astype(">u2").tobytes() for row in limbs]


def evaluate(points: Field, shares: Field, at: Field) -> Field:
    """The polynomials through ``shares``, by Lagrange's formula.

    Args:
        points: ``int64[T, t]``.
        shares: ``int64[T, t, 16]``.
        at: ``int64[T, m]``, where to evaluate them.

    Returns:
        ``int64[T, m, 16]``.
    """
    count = points.shape[1]
    denominators = np.ones_like(points)
    for j in range(count):
        difference = (points - points[:, j : j + 1]) % PRIME
        difference[:, j] = 1
        denominators = denominators * difference % PRIME
    inverses = inverse(denominators)  # [T, t]
    result = np.zeros((*at.shape, LIMBS), dtype=np.int64)
    for i in range(count):
        weight = np.broadcast_to(inverses[:, i : i + 1], at.shape)
        for j in range(count):
            if j != i:
                weight = weight * ((at - points[:, j : j + 1]) % PRIME) % PRIME
        result = (result + weight[:, :, None] * shares[:, i : i + 1, :]) % PRIME
    return result


def inverse(values: Field) -> Field:
    """Inverses in the field: the power p - 2 (Fermat)."""
    result, base, exponent = np.ones_like(values), values % PRIME, PRIME - 2
    while exponent:
        if exponent & 1:
            result = result * base % PRIME
        base = base * base % PRIME
        exponent >>= 1
    return result


def share_to_bytes(share: Field) -> bytes:
    """One holder's share of one secret, ``int64[16]``, as 64 bytes."""
    return share.astype(">u4").tobytes()


def share_from_bytes(data: bytes) -> Field:
    """The share in 64 bytes, ``int64[16]``.

    Raises:
        ProtocolError: A limb is not in the field.
    """
    if len(data) != SHARE_BYTES or (share := np.frombuffer(data, dtype=">u4").astype(np.int64)).max() >= PRIME:
        raise ProtocolError(Breach.SHARE, "a share is not in the field")
    return share
