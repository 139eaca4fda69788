"""From revealed shares to the secrets they belong to, and to those who lied. Knows no masks and no messages.

Secrets are recovered all at once from the first shares of each. A secret that does not prove right was given a wrong
share: then holders are left out, one, two, ... at a time, until it does, and everybody whose share is not on the
polynomial found is a liar. That is a search, and it has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import shamir

MAX_TRIES = 4096
_TRIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Holding:
    """The shares of one secret.

    Attributes:
        owner: Position of the member whose secret it is.
        shares: Holder's position -> share, 64 bytes.
        proves: Whether 32 bytes are the secret: compares with what the owner advertised.
    """

    owner: int
    shares: Mapping[int, bytes] = field(repr=False, compare=False)
    proves: Callable[[bytes], bool] = field(repr=False, compare=False)


def recover_secrets(
    holdings: Sequence[Holding], threshold: int, names: Sequence[str]
) -> tuple[dict[int, bytes], set[int]]:
    """The secrets of all holdings.

    Args:
        holdings: One for each secret.
        threshold: t, shares that give a secret back.
        names: Position -> client id, for errors.

    Returns:
        Owner's position -> secret of 32 bytes, and the positions of holders whose share of one proved wrong.

    Raises:
        ProtocolError: There are fewer than t shares of a secret, or no t of them found within the bound prove right.
    """
    for holding in holdings:
        if len(holding.shares) < threshold:
            raise ProtocolError(
                Breach.TOO_FEW,
                f"{len(holding.shares)} shares of a secret of {names[holding.owner]!r}, and {threshold} are needed",
            )
    if not holdings:
        return {}, set()
    firsts = [sorted(holding.shares)[:threshold] for holding in holdings]
    joined = b"".join(holding.shares[p] for holding, first in zip(holdings, firsts, strict=True) for p in first)
    shares = np.frombuffer(joined, dtype=">u4").astype(np.int64).reshape(len(holdings), threshold, shamir.LIMBS)
    candidates = shamir.recover(np.array(firsts, dtype=np.int64) + 1, shares % shamir.PRIME)
    secrets: dict[int, bytes] = {}
    liars: set[int] = set()
    for holding, candidate in zip(holdings, candidates, strict=True):
        if candidate is not None and holding.proves(candidate):
            secrets[holding.owner] = candidate
            continue
        secret, wrong = _search(holding, threshold, names[holding.owner])
        secrets[holding.owner] = secret
        liars |= wrong
    return secrets, liars


def _search(holding: Holding, threshold: int, owner: str) -> tuple[bytes, set[int]]:
    """The secret, and who lied, by leaving out ever more holders."""
    shares: dict[int, shamir.Field] = {}
    wrong: set[int] = set()
    for place, data in sorted(holding.shares.items()):
        try:
            shares[place] = shamir.share_from_bytes(data)
        except ProtocolError:
            wrong.add(place)
    tries = islice(_subsets(list(shares), threshold), MAX_TRIES)
    while batch := list(islice(tries, _TRIES_AT_ONCE)):
        points = np.array(batch, dtype=np.int64) + 1
        found = shamir.recover(points, np.stack([[shares[place] for place in subset] for subset in batch]))
        for subset, candidate in zip(batch, found, strict=True):
            if candidate is not None and holding.proves(candidate):
                return candidate, wrong | _off_the_polynomial(shares, subset)
    raise ProtocolError(
        Breach.SHARE,
        f"the shares of a secret of {owner!r} do not give it back",
        remedy="Too many holders lied, or the owner dealt wrong shares; the group cannot be opened",
    )


def _subsets(places: list[int], threshold: int) -> Iterator[tuple[int, ...]]:
    """Holders to try: the first t, then t of the first t + 1 that were not tried, and so on."""
    for count in range(threshold, len(places) + 1):
        *early, last = places[:count]
        for rest in combinations(early, threshold - 1):
            yield (*rest, last)


def _off_the_polynomial(shares: Mapping[int, shamir.Field], good: tuple[int, ...]) -> set[int]:
    points = np.array([good], dtype=np.int64) + 1
    others = [place for place in shares if place not in good]
    if not others:
        return set()
    right = shamir.evaluate(
        points, np.stack([[shares[place] for place in good]]), np.array([others], dtype=np.int64) + 1
    )[0]
    return {place for place, share in zip(others, right, strict=True) if not np.array_equal(share, shares[place])}
