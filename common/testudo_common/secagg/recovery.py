"""From revealed shares to the secrets they belong to, and to the shares that were wrong. Knows no masks, no messages.

Secrets are recovered all at once from t shares each. A secret that does not prove right was given a wrong share. Which
ones are wrong is decoded as errors of a Reed-Solomon code, up to half of the spare shares (Welch and Berlekamp 1986);
past that, subsets of t are tried, within a bound. Holders of wrong shares are then left out for the other secrets, and
in the end every share is compared with what its secret's polynomial says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import shamir
from testudo_common.secagg.decoding import places_in_error

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
) -> tuple[dict[int, bytes], set[tuple[int, int]]]:
    """The secrets of all holdings.

    Args:
        holdings: One for each secret.
        threshold: t, shares that give a secret back.
        names: Position -> client id, for errors.

    Returns:
        Owner's position -> secret of 32 bytes; and (owner, holder) of each share that was found to be wrong.

    Raises:
        ProtocolError: There are fewer than t shares of a secret, or no t of them found within the bound prove right.
    """
    for holding in holdings:
        if len(holding.shares) < threshold:
            raise ProtocolError(
                Breach.TOO_FEW,
                f"{len(holding.shares)} shares of a secret of {names[holding.owner]!r}, and {threshold} are needed",
            )
    secrets: dict[int, bytes] = {}
    right: dict[int, tuple[int, ...]] = {}  # owner -> t holders whose shares give the secret back
    avoided: set[int] = set()
    left = list(holdings)
    while left:
        for owner, (secret, subset) in _first_shares(left, threshold, avoided).items():
            secrets[owner], right[owner] = secret, subset
        left = [holding for holding in left if holding.owner not in secrets]
        if left:
            owner = left[0].owner
            secrets[owner], right[owner] = _decode(left[0], threshold, names[owner])
            avoided |= {holder for _, holder in _disputes(left[:1], right)}
            del left[0]
    return secrets, _disputes(holdings, right) if avoided else set()


def _first_shares(
    holdings: Sequence[Holding], threshold: int, avoided: set[int]
) -> dict[int, tuple[bytes, tuple[int, ...]]]:
    """Owner -> secret and holders, of those that the first t shares give back; holders to be avoided come last."""
    firsts = [sorted(holding.shares, key=lambda p: (p in avoided, p))[:threshold] for holding in holdings]
    shares = np.stack([_words(holding, tuple(first)) for holding, first in zip(holdings, firsts, strict=True)])
    in_field = shares.max(axis=(1, 2)) < shamir.PRIME
    candidates = shamir.recover(np.array(firsts, dtype=np.int64) + 1, shares % shamir.PRIME)
    return {
        holding.owner: (candidate, tuple(first))
        for holding, first, candidate, fits in zip(holdings, firsts, candidates, in_field, strict=True)
        if fits and candidate is not None and holding.proves(candidate)
    }


def _decode(holding: Holding, threshold: int, owner: str) -> tuple[bytes, tuple[int, ...]]:
    """The secret, and t holders whose shares of it are right."""
    shares: dict[int, shamir.Field] = {}
    for place, data in sorted(holding.shares.items()):
        with contextlib.suppress(ProtocolError):  # not in the field, and so wrong
            shares[place] = shamir.share_from_bytes(data)
    tries = islice(_subsets(shares, threshold), MAX_TRIES) if len(shares) >= threshold else iter(())
    while batch := list(islice(tries, _TRIES_AT_ONCE)):
        points = np.array(batch, dtype=np.int64) + 1
        found = shamir.recover(points, np.stack([[shares[place] for place in subset] for subset in batch]))
        for subset, candidate in zip(batch, found, strict=True):
            if candidate is not None and holding.proves(candidate):
                return candidate, subset
    raise ProtocolError(
        Breach.SHARE,
        f"the shares of a secret of {owner!r} do not give it back",
        remedy="Too many holders lied, or the owner dealt wrong shares; the group cannot be opened",
    )


def _subsets(shares: Mapping[int, shamir.Field], threshold: int) -> Iterator[tuple[int, ...]]:
    """Holders to try: t that decoding finds right; then the first t, t of the first t + 1, and so on."""
    places = list(shares)
    points, values = np.array(places, dtype=np.int64) + 1, np.stack([shares[place] for place in places])
    errors = places_in_error(points, values, threshold)
    right = [place for place, error in zip(places, errors, strict=True) if not error]
    if len(right) >= threshold:
        yield tuple(right[:threshold])
    for count in range(threshold, len(places) + 1):
        *early, last = places[:count]
        for rest in combinations(early, threshold - 1):
            yield (*rest, last)


def _disputes(holdings: Sequence[Holding], right: Mapping[int, tuple[int, ...]]) -> set[tuple[int, int]]:
    """(owner, holder) of every share that is not on its secret's polynomial, as t of the others say.

    Holders that collude can shift their shares so that the secret stays right and the polynomial does not; then others
    are off it.
    """
    others = [sorted(set(holding.shares) - set(right[holding.owner])) for holding in holdings]
    widest = max(map(len, others))
    if widest == 0:
        return set()
    good = [right[holding.owner] for holding in holdings]
    points = np.array(good, dtype=np.int64) + 1
    shares = np.stack([_words(holding, subset) for holding, subset in zip(holdings, good, strict=True)])
    padded = np.array([[*rest, *[subset[0]] * (widest - len(rest))] for rest, subset in zip(others, good, strict=True)])
    expected = shamir.evaluate(points, shares, padded + 1)  # [holdings, widest, 16]
    return {
        (holding.owner, holder)
        for holding, rest, row in zip(holdings, others, expected, strict=True)
        for holder, words in zip(rest, row, strict=False)
        if holding.shares[holder] != shamir.share_to_bytes(words)
    }


def _words(holding: Holding, places: tuple[int, ...]) -> shamir.Field:
    joined = b"".join(holding.shares[place] for place in places)
    return np.frombuffer(joined, dtype=">u4").astype(np.int64).reshape(len(places), shamir.LIMBS)
