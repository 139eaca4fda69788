"""Attacks 12 and 14 of the threat model: members that lie, about shares or with their vectors.

Each is shown both ways: the liar is found, or its group fails and no other; and with the check taken away, a wrong sum
passes for a right one.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest

from secagg_attackers import STEPS, LyingRound, graph_in, names_at, run_through, with_fixed_coin
from secure_round import SecureRound, names_of, other_terms, random_vectors, terms_of
from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg import client, recovery, server, shamir
from testudo_common.secagg.groups import partition
from testudo_common.secagg.messages import SEALED_BYTES, Directory, RevealedShare, Sealed, SharedKeys, UnmaskingShares
from testudo_common.secagg.quantize import Contribution, Layout, decode, encode
from testudo_common.secagg.recovery import Holding, recover_secrets

COHORT = names_of(12)

# 12. Flipped, missing, duplicate, out-of-range shares.

NAMES = names_of(5)  # a threshold of 4
PLACES = partition(bytes(32), NAMES, 5)[0]  # of with_fixed_coin
Shares = tuple[RevealedShare, ...]
Lie = Callable[[Shares], Shares | None]


def lying_round(
    monkeypatch: pytest.MonkeyPatch, lie: Lie, *liars: int, names: list[str] = NAMES, dropout: float = 0.05
) -> LyingRound:
    """``liars``: places of those who say ``lie`` of their shares; the rest is honest."""
    with_fixed_coin(monkeypatch)

    def lied(message: Any) -> Any:
        if not isinstance(message, UnmaskingShares):
            return message
        shares = lie(message.shares)
        return None if shares is None else UnmaskingShares(shares)

    places = partition(bytes(32), names, len(names))[0]
    lies = {places[place]: lied for place in liars}
    return LyingRound(terms_of(names, dropout=dropout), random_vectors(names), lies=lies)


def changed(share: RevealedShare, change: Callable[[np.ndarray], np.ndarray]) -> RevealedShare:
    limbs = change(shamir.share_from_bytes(share.share))
    return RevealedShare(share.position, shamir.share_to_bytes(limbs))


def flipped(shares: Shares) -> Shares:
    return tuple(changed(share, lambda limbs: (limbs + np.eye(1, 16, dtype=np.int64)[0]) % 65537) for share in shares)


def out_of_range(shares: Shares) -> Shares:
    return tuple(RevealedShare(share.position, b"\xff" * 64) for share in shares)


def another_multiple(shares: Shares) -> Shares:
    """Right modulo the prime, but not in the field: so there is one way only to reveal a share."""
    return tuple(changed(share, lambda limbs: limbs + 65537) for share in shares)


def assert_exact(round_: SecureRound, liars: Collection[str] = (), faults: Collection[str] = ()) -> None:
    """The sum is right; who revealed wrong shares of everybody's secrets is named, and who did not reveal them all."""
    (found,) = round_.run()
    assert isinstance(found, server.Sum), found
    assert found.survivors == tuple(NAMES)
    assert found.liars == tuple(sorted(liars))
    assert found.disputes == tuple((owner, liar) for owner in NAMES for liar in sorted(liars))
    assert [(fault.client_id, fault.breach) for fault in found.faults] == [(name, Breach.SHARE) for name in faults]
    np.testing.assert_array_equal(found.total, round_.plain_sum(NAMES))


@pytest.mark.parametrize("lie", [flipped, out_of_range, another_multiple])
@pytest.mark.parametrize("liar", [0, 1, 2, 3])
def test_wrong_shares_are_found_and_their_holder_named(monkeypatch: pytest.MonkeyPatch, lie: Lie, liar: int) -> None:
    assert_exact(lying_round(monkeypatch, lie, liar), [PLACES[liar]])


@pytest.mark.parametrize("lie", [flipped, out_of_range])
def test_wrong_shares_that_are_to_spare_are_not_looked_at(monkeypatch: pytest.MonkeyPatch, lie: Lie) -> None:
    assert_exact(lying_round(monkeypatch, lie, 4))


def test_a_liar_of_a_sparse_graph_is_named_by_its_own_neighbours() -> None:
    """It holds shares of few of the owners; that these contradict it is enough."""
    names = names_of(66)
    round_ = LyingRound(terms_of(names), random_vectors(names), lies={})
    run_through(round_, "advertise")
    members = names_at(round_.groups[0])
    graph = graph_in(round_.terms, len(names))
    assert graph.degree < len(names) // 2

    def lie(message: Any) -> Any:
        return UnmaskingShares(flipped(message.shares)) if isinstance(message, UnmaskingShares) else message

    round_.lies[members[0]] = lie
    for step in STEPS[2:]:
        getattr(round_, step)()
    (found,) = round_.sums
    assert isinstance(found, server.Sum), found
    assert found.liars == (members[0],)
    assert found.disputes == tuple(sorted((members[owner], members[0]) for owner in graph.holders(0)))
    np.testing.assert_array_equal(found.total, round_.plain_sum(names))


MALFORMED: dict[str, Lie] = {
    "missing": lambda shares: shares[1:],
    "duplicate": lambda shares: (shares[0], *shares),
    "none": lambda _: (),
    "out of order": lambda shares: shares[::-1],
    "of a stranger": lambda shares: (*shares[:-1], RevealedShare(99, shares[-1].share)),
}
malformed = pytest.mark.parametrize("lie", MALFORMED.values(), ids=MALFORMED)


@malformed
def test_who_sends_other_shares_than_asked_for_is_named(monkeypatch: pytest.MonkeyPatch, lie: Lie) -> None:
    """Its reply is none. Taking it would gain a liar nothing: what is missing is not needed, what is wrong is found."""
    assert_exact(lying_round(monkeypatch, lie, 0), faults=[PLACES[0]])


@pytest.mark.parametrize(
    ("lie", "breach"), [(flipped, Breach.SHARE), (out_of_range, Breach.SHARE), (lambda shares: None, Breach.TOO_FEW)]
)
def test_less_good_shares_than_the_threshold_end_the_group(
    monkeypatch: pytest.MonkeyPatch, lie: Lie, breach: Breach
) -> None:
    (fault,) = lying_round(monkeypatch, lie, 0, 2).run()
    assert isinstance(fault, ProtocolError)
    assert fault.breach is breach


def test_a_wrong_share_of_a_dropped_members_key_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong share alone does not tell who of the two it was, holder or dealer: nobody is called a liar."""
    names = names_of(6)
    places = partition(bytes(32), names, 6)[0]

    def lie(shares: Shares) -> Shares:
        return tuple(flipped((share,))[0] if share.position == 5 else share for share in shares)

    (found,) = lying_round(monkeypatch, lie, 1, names=names, dropout=0.4).run({"mask": places[5:]})
    assert isinstance(found, server.Sum)
    assert found.disputes == ((places[5], places[1]),)
    assert not found.liars
    np.testing.assert_array_equal(found.total, sum(random_vectors(names)[name] for name in places[:5]))


def take_proofs_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovered secret is compared with neither H(b) nor the public mask key.

    Draws are seeded: of wrong secrets, one in some hundred has a limb of 65536, and is noticed as no secret at all.
    """
    monkeypatch.setattr(secrets, "token_bytes", random.Random(0).randbytes)
    for proof in ("_is_seed_of", "_is_mask_key_of"):
        monkeypatch.setattr(server, proof, lambda _: lambda _: True)


def test_unproved_shares_give_a_wrong_sum_that_nobody_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    take_proofs_away(monkeypatch)
    round_ = lying_round(monkeypatch, flipped, 0)
    (found,) = round_.run()
    assert isinstance(found, server.Sum)
    assert (found.liars, found.disputes, found.faults) == ((), (), ())
    assert not (found.total == round_.plain_sum(NAMES)).any()


@pytest.mark.parametrize("lie", [out_of_range, another_multiple])
def test_shares_out_of_the_field_are_found_without_a_proof(monkeypatch: pytest.MonkeyPatch, lie: Lie) -> None:
    take_proofs_away(monkeypatch)
    assert_exact(lying_round(monkeypatch, lie, 0), [PLACES[0]])


def replaying(monkeypatch: pytest.MonkeyPatch) -> LyingRound:
    """Attack 4, by a client: the shares that it reveals are those of another round."""
    with_fixed_coin(monkeypatch)
    terms = terms_of(NAMES)
    old = run_through(SecureRound(other_terms(terms, round_number=2), random_vectors(NAMES)), "unmask")
    before = old.sent[PLACES[0]].message
    assert isinstance(before, UnmaskingShares)
    return lying_round(monkeypatch, lambda _: before.shares, 0)


def test_shares_of_another_round_are_found_and_their_holder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_exact(replaying(monkeypatch), [PLACES[0]])


def test_unproved_shares_of_another_round_give_a_wrong_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    take_proofs_away(monkeypatch)
    round_ = replaying(monkeypatch)
    (found,) = round_.run()
    assert isinstance(found, server.Sum)
    assert not (found.total == round_.plain_sum(NAMES)).any()


def holding_with_liars(members: int, threshold: int, liars: int) -> Holding:
    secret = bytes(range(32))
    dealt = shamir.split((secret,), threshold, range(1, members + 1))[0]
    dealt[:liars] = (dealt[:liars] + 1) % 65537
    shares = {place: shamir.share_to_bytes(share) for place, share in enumerate(dealt)}
    return Holding(0, shares, lambda found: found == secret)


@pytest.mark.parametrize("liars", [2, 4, 14])
def test_liars_up_to_half_of_the_spare_shares_are_found(monkeypatch: pytest.MonkeyPatch, liars: int) -> None:
    """Of 64 members at a threshold of 35. Draws are seeded: one combination of limbs in 65537 hides a wrong share."""
    monkeypatch.setattr(secrets, "token_bytes", random.Random(0).randbytes)
    secrets_found, disputes = recover_secrets([holding_with_liars(64, 35, liars)], 35, names_of(64))
    assert secrets_found == {0: bytes(range(32))}
    assert disputes == {(0, liar) for liar in range(liars)}


def test_four_liars_undecoded_hide_in_too_many_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``places_in_error``: the search would need C(39, 35) tries, though 60 of 64 shares are good."""
    monkeypatch.setattr(recovery, "places_in_error", lambda points, *_: np.zeros(len(points), dtype=np.bool_))
    with pytest.raises(ProtocolError) as caught:
        recover_secrets([holding_with_liars(64, 35, 4)], 35, names_of(64))
    assert caught.value.breach is Breach.SHARE


# 14. A malicious client stays inside its group.

LAYOUT = Layout(50, 1.0, 16)
POISONER = COHORT[-1]


def poisoned(vector: np.ndarray, *, group_size: int = 4) -> SecureRound:
    """Twelve clients with honest updates, but for the last one's vector."""
    rng = np.random.default_rng(0)
    updates = {name: rng.normal(size=LAYOUT.values).astype(np.float32) for name in COHORT}
    vectors = {name: encode(LAYOUT, Contribution(update), bytes(32)) for name, update in updates.items()}
    vectors[POISONER] = vector
    round_ = SecureRound(terms_of(COHORT, group_size=group_size, min_group=4, layout=LAYOUT), vectors)
    round_.run()
    return round_


GARBAGE = random_vectors([POISONER], LAYOUT.size)[POISONER]
OVER_NORM = np.full(LAYOUT.size, LAYOUT.largest, dtype=np.uint32)  # each coordinate at the clip: norm 7


@pytest.mark.parametrize(("vector", "breach"), [(GARBAGE, Breach.RANGE), (OVER_NORM, Breach.NORM)])
def test_a_poisoners_group_fails_its_check_and_the_others_are_exact(vector: np.ndarray, breach: Breach) -> None:
    round_ = poisoned(vector)
    for found in round_.sums:
        assert isinstance(found, server.Sum)
        if POISONER in found.survivors:
            with pytest.raises(ProtocolError) as caught:
                decode(LAYOUT, found.total, len(found.survivors))
            assert caught.value.breach is breach
        else:
            np.testing.assert_array_equal(found.total, round_.plain_sum(found.survivors))
            decode(LAYOUT, found.total, len(found.survivors))


@pytest.mark.parametrize("vector", [GARBAGE, OVER_NORM])
def test_without_groups_a_poisoner_spoils_the_round(vector: np.ndarray) -> None:
    """One group of everybody: what failed one of three sums above fails the only one there is."""
    if vector is OVER_NORM:
        vector = vector * np.uint32(3)  # the others hide it better
    round_ = poisoned(vector, group_size=len(COHORT))
    (found,) = round_.sums
    assert isinstance(found, server.Sum)
    with pytest.raises(ProtocolError):
        decode(LAYOUT, found.total, len(found.survivors))


@pytest.mark.parametrize(("vector", "least"), [(GARBAGE, 1000.0), (OVER_NORM, 1.3)])
def test_without_the_checks_a_poisoners_mean_is_as_long_as_it_likes(vector: np.ndarray, least: float) -> None:
    """What ``decode`` would hand on if it compared nothing."""
    round_ = poisoned(vector)
    (found,) = (found for found in round_.sums if isinstance(found, server.Sum) and POISONER in found.survivors)
    mean = found.total.view(np.int32) / (LAYOUT.scale * len(found.survivors))
    assert np.linalg.norm(mean) > least


def test_a_masked_input_for_another_group_is_not_awaited() -> None:
    round_ = run_through(SecureRound(terms_of(COHORT, group_size=4), random_vectors(COHORT)), "share_keys")
    own = next(group for group in round_.groups if POISONER in names_at(group))
    for group in round_.groups:
        if group is own:
            continue
        before = bytes(group.total)
        with pytest.raises(PeerError) as caught:
            server.accept(group, POISONER, GARBAGE[:8])
        assert caught.value.client_id == POISONER
        assert bytes(group.total) == before


def test_a_sender_of_sealed_garbage_ends_its_own_group_only() -> None:
    """Its neighbours cannot open what it sent, and stop before they mask; each knows whose it was."""

    def lie(message: Any) -> Any:
        if not isinstance(message, SharedKeys):
            return message
        return SharedKeys(tuple(Sealed(item.position, bytes(SEALED_BYTES)) for item in message.ciphertexts))

    round_ = LyingRound(terms_of(COHORT, group_size=4), random_vectors(COHORT), lies={POISONER: lie})
    run_through(round_, "advertise")
    own = next(set(names_at(group)) for group in round_.groups if POISONER in names_at(group))
    for step in ("share_keys", "mask", "confirm", "unmask"):
        getattr(round_, step)()
    assert {name: error.breach for name, error in round_.refused.items()} == dict.fromkeys(
        own - {POISONER}, Breach.SHARE
    )
    assert {error.client_id for error in round_.refused.values() if isinstance(error, PeerError)} == {POISONER}
    opened = [found for found in round_.sums if isinstance(found, server.Sum)]
    assert {name for found in opened for name in found.survivors} == set(COHORT) - own
    for found in opened:
        np.testing.assert_array_equal(found.total, round_.plain_sum(found.survivors))


def deal_wrong_shares(
    monkeypatch: pytest.MonkeyPatch, dealers: Collection[str], holders: Collection[int] | None = None
) -> None:
    """``dealers`` give others wrong shares of their secrets: all of them, or those at the places ``holders``."""
    deal, split = client.share_keys, client.shamir.split

    def wrong(dealt: Any, threshold: int, points: Any) -> Any:
        shares = split(dealt, threshold, points)
        for index, point in enumerate(points):
            if holders is None or point - 1 in holders:
                shares[:, index] = (shares[:, index] + 1 + index * index) % 65537
        return shares

    def share_keys(terms: Any, state: client.Advertised, message: Directory) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if state.client_id in dealers:
                patch.setattr(client.shamir, "split", wrong)
            return deal(terms, state, message)

    monkeypatch.setattr(client, "share_keys", share_keys)


def test_a_dealer_of_wrong_shares_ends_its_own_group_only(monkeypatch: pytest.MonkeyPatch) -> None:
    deal_wrong_shares(monkeypatch, [POISONER])
    round_ = SecureRound(terms_of(COHORT, group_size=4), random_vectors(COHORT))
    round_.run()
    faults = [found for found in round_.sums if isinstance(found, ProtocolError)]
    assert [fault.breach for fault in faults] == [Breach.SHARE]
    others = [found for found in round_.sums if isinstance(found, server.Sum)]
    assert len(others) == 2
    for found in others:
        assert POISONER not in found.survivors
        np.testing.assert_array_equal(found.total, round_.plain_sum(found.survivors))


def test_unproved_shares_of_a_wrong_dealer_give_a_wrong_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    take_proofs_away(monkeypatch)
    deal_wrong_shares(monkeypatch, [POISONER])
    round_ = SecureRound(terms_of(COHORT, group_size=4), random_vectors(COHORT))
    round_.run()
    (found,) = (found for found in round_.sums if isinstance(found, server.Sum) and POISONER in found.survivors)
    assert not (found.total == round_.plain_sum(found.survivors)).any()


@pytest.mark.parametrize(("dealers", "framed"), [(1, False), (2, False), (3, True)])
def test_half_of_the_owners_do_not_frame_a_holder(monkeypatch: pytest.MonkeyPatch, dealers: int, framed: bool) -> None:
    """Each deals the first of five a wrong share. With whom it is in dispute is told; a liar is it from three on."""
    with_fixed_coin(monkeypatch)
    deal_wrong_shares(monkeypatch, PLACES[2 : 2 + dealers], holders=[0])
    round_ = SecureRound(terms_of(NAMES), random_vectors(NAMES))
    (found,) = round_.run()
    assert isinstance(found, server.Sum)
    assert found.disputes == tuple((owner, PLACES[0]) for owner in sorted(PLACES[2 : 2 + dealers]))
    assert found.liars == ((PLACES[0],) if framed else ())
    np.testing.assert_array_equal(found.total, round_.plain_sum(NAMES))
