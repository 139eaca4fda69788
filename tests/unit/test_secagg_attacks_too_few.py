"""Attack 5 of the threat model: sums over too few, said so openly or brought about behind the victim's back.

Each is shown both ways: it fails; and with the check that stops it taken away, it gives the victim's vector.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg_attackers import (
    Loot,
    all_but,
    breaches,
    graph_in,
    isolated,
    masked_inputs,
    names_at,
    plain,
    round_of,
    run_through,
    secret_of,
    show,
    without,
)
from secure_round import SecureRound, names_of, other_terms, random_vectors, terms_of
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.messages import Deliveries

# 5. One survivor; one less than min_group.


def one_survivor(round_: SecureRound) -> tuple[Loot, np.ndarray, Any]:
    """Everybody is told that the member at position 0 alone survived."""
    run_through(round_, "mask")
    masked, state = masked_inputs(round_), round_.groups[0]
    views = dict.fromkeys(names_at(state), (0,))
    show(round_, views)
    round_.confirm()
    round_.unmask()
    return Loot().take_revealed(round_, state, views), masked[names_at(state)[0]], state


def test_one_survivor_is_refused() -> None:
    round_ = round_of(5)
    loot, _, state = one_survivor(round_)
    first, *others = names_at(state)
    assert breaches(round_) == {first: Breach.TOO_FEW, **dict.fromkeys(others, Breach.SURVIVORS)}
    assert loot == Loot()


@pytest.mark.parametrize("rule", ["survivors_can_hide_each_other", "enough_saw_the_same_survivors"])
def test_one_survivor_is_refused_by_either_layer(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    without(monkeypatch, rule)
    round_ = round_of(5)
    loot, _, _ = one_survivor(round_)
    assert len(round_.refused) == 5
    assert loot == Loot()


def test_one_survivor_unchecked_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "survivors_can_hide_each_other", "enough_saw_the_same_survivors")
    round_ = round_of(5)
    loot, masked, state = one_survivor(round_)
    mask_keys = {place: secret_of(loot.mask_keys[place], 4) for place in range(1, 5)}
    assert list(loot.seeds) == [0], "who is told that it dropped out reveals no share of its own seed"
    stolen = plain(masked, state, 0, secret_of(loot.seeds[0], 4), mask_keys)
    np.testing.assert_array_equal(stolen, round_.vectors[names_at(state)[0]])


def three_of_four(monkeypatch: pytest.MonkeyPatch, *unchecked: str) -> tuple[SecureRound, str, Collection[str]]:
    """A server that would open sums of 3 where clients ask for 4, and has two friends among the 3."""
    without(monkeypatch, *unchecked)
    names = names_of(4)
    strict = terms_of(names, min_group=4)
    lax = other_terms(strict, parameters=replace(strict.parameters, min_group=3))
    round_ = SecureRound(lax, random_vectors(names), terms_seen_by=dict.fromkeys(names, strict))
    round_.run(dropouts={"mask": names[3:]})
    return round_, names[0], names[1:3]


def test_one_survivor_less_than_min_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the threshold, 3 of 4, would let it pass."""
    round_, victim, friends = three_of_four(monkeypatch)
    assert breaches(round_) == dict.fromkeys([victim, *friends], Breach.TOO_FEW)


def test_one_survivor_less_than_min_group_unchecked_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    round_, victim, friends = three_of_four(monkeypatch, "survivors_can_hide_each_other")
    np.testing.assert_array_equal(isolated(round_, victim, friends), round_.vectors[victim])


def test_the_honest_server_does_not_open_too_few_either() -> None:
    names = names_of(4)
    (fault,) = SecureRound(terms_of(names, min_group=4), random_vectors(names)).run({"mask": names[3:]})
    assert isinstance(fault, ProtocolError)
    assert fault.breach is Breach.TOO_FEW


# 5. Fewer than min_group, by a victim that is shown fewer sharers than the others are.


def thin_out(round_: SecureRound, friends: int, *, honest: int) -> tuple[np.ndarray, str]:
    """The victim masks with the server's friends and few honest members; these drop out, as far as others are told.

    The victim, at position 0, is of no more use once it masked. Friends are at 1 and up, and after them the honest
    members that it masks with, whose mask keys the rest then reveals, as it reveals the victim's seed.
    """
    run_through(round_, "share_keys")
    names = names_at(round_.groups[0])
    threshold = graph_in(round_.terms, len(names)).threshold
    near = range(1, 1 + friends + honest)
    mask_keys = {place: round_.states[names[place]].mask_secret for place in near[:friends]}  # type: ignore[union-attr]
    told = round_.given[names[0]].ciphertexts
    round_.given[names[0]] = Deliveries((0, *near), tuple(item for item in told if item.position in near))
    round_.mask()
    if names[0] in round_.refused:
        raise round_.refused[names[0]]
    masked, state, loot = masked_inputs(round_)[names[0]], round_.groups[0], Loot()
    for place in near[:friends]:
        loot.take_held(round_.states[names[place]])
    dropped = near[friends:]
    views = {names[place]: all_but(len(names), *dropped) for place in all_but(len(names), 0, *dropped)}
    show(round_, views)
    round_.confirm()
    round_.unmask()
    for refusal in round_.refused.values():
        raise refusal
    loot.take_revealed(round_, state, views)
    mask_keys |= {place: secret_of(loot.mask_keys[place], threshold) for place in dropped}
    seed = secret_of(loot.seeds[0], threshold)
    return plain(masked, state, 0, seed, mask_keys, near), names[0]


def test_a_victim_shown_too_few_sharers_does_not_mask() -> None:
    with pytest.raises(ProtocolError) as caught:
        thin_out(round_of(10), 0, honest=0)
    assert caught.value.breach is Breach.TOO_FEW


def test_a_victim_that_masks_with_nobody_is_opened_by_all_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``enough_shared_their_keys``: the server needs no friend, and the others see an honest round."""
    without(monkeypatch, "enough_shared_their_keys")
    round_ = round_of(10)
    stolen, victim = thin_out(round_, 0, honest=0)
    np.testing.assert_array_equal(stolen, round_.vectors[victim])


bounds = pytest.mark.parametrize(("dropout", "colluders"), [(0.05, 7), (0.2, 5), (0.3, 3), (0.4, 1)], ids=str)


@bounds
def test_as_many_colluders_as_a_graph_withstands_isolate_nobody(dropout: float, colluders: int) -> None:
    """However many others it masks with: it refuses, or too few are left to confirm that those dropped out."""
    assert graph_in(round_of(10, dropout=dropout).terms, 10).colluders == colluders
    for honest in range(10 - colluders):
        with pytest.raises(ProtocolError) as caught:
            thin_out(round_of(10, dropout=dropout), colluders, honest=honest)
        assert caught.value.breach in {Breach.TOO_FEW, Breach.CONFIRMATION}


@bounds
def test_one_colluder_more_than_a_graph_withstands_isolates_a_member(dropout: float, colluders: int) -> None:
    """Where the guarantee ends, every check in force: ``2 t - members`` colluders in the group as drawn.

    Nobody can tell that the victim was shown other sharers, since it is not asked again.
    """
    round_ = round_of(10, dropout=dropout)
    threshold = graph_in(round_.terms, 10).threshold
    assert colluders + 1 == 2 * threshold - 10
    stolen, victim = thin_out(round_, colluders + 1, honest=threshold - colluders - 2)
    np.testing.assert_array_equal(stolen, round_.vectors[victim])


def test_a_least_cohort_withstands_what_a_group_of_its_own_size_does() -> None:
    """Groups of 10 withstand five, but clients go along with a cohort of five, and that withstands two."""
    terms = round_of(10, dropout=0.2).terms
    assert [graph_in(terms, members).colluders for members in (10, 5)] == [5, 2]
    with pytest.raises(ProtocolError):
        thin_out(round_of(5, group_size=10, min_cohort=5, dropout=0.2), 2, honest=1)
    round_ = round_of(5, group_size=10, min_cohort=5, dropout=0.2)
    stolen, victim = thin_out(round_, 3, honest=0)
    np.testing.assert_array_equal(stolen, round_.vectors[victim])
