"""Attacks 1, 2 and 13 of the threat model: who survived, and who is told so.

Each is shown both ways: it fails; and with the check that stops it taken away, it gives the victim's vector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from secagg_attackers import (
    Loot,
    all_but,
    breaches,
    graph_in,
    masked_inputs,
    names_at,
    plain,
    round_of,
    run_through,
    secret_of,
    show,
    without,
)
from secure_round import SecureRound, names_of, random_vectors, terms_of
from testudo_common.errors import Breach
from testudo_common.secagg import client, client_checks, server
from testudo_common.secagg.bindings import confirmation_tag, survivors_digest
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.messages import Confirmations, ConfirmationTag

# 1. Both kinds of share for one victim.


SPARING = {"min_group": 5, "dropout": 0.4}  # 10 members at a threshold of 6, the least that is ever taken


def half_and_half(round_: SecureRound) -> tuple[Loot, np.ndarray, Any]:
    """To the victim, at position 0, and to half of the others it survived; to the rest it dropped out."""
    run_through(round_, "mask")
    masked, state = masked_inputs(round_), round_.groups[0]
    names = names_at(state)
    half = len(names) // 2
    views = {name: all_but(len(names), *([] if place < half else [0])) for place, name in enumerate(names)}
    show(round_, views)
    round_.confirm()
    round_.unmask()
    return Loot().take_revealed(round_, state, views), masked[names[0]], state


def test_split_views_give_neither_kind_of_share() -> None:
    round_ = round_of(6)
    loot, _, _ = half_and_half(round_)
    assert set(breaches(round_).values()) == {Breach.CONFIRMATION}
    assert len(round_.refused) == 6
    assert loot == Loot()


def test_split_views_do_not_reach_the_threshold_of_both_kinds_even_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is a layer of its own: ``2 t > members + corrupt`` at the least."""
    without(monkeypatch, "enough_saw_the_same_survivors")
    round_ = round_of(6, dropout=0.4)
    loot, _, _ = half_and_half(round_)
    threshold = graph_in(round_.terms, 6).threshold
    assert threshold == 4
    assert len(loot.seeds[0]) < threshold
    assert len(loot.mask_keys[0]) < threshold


def test_split_views_of_a_sparse_graph_do_not_reach_the_threshold_of_both_kinds() -> None:
    """Here a neighbourhood far from the border agrees and reveals, but nobody's shares of both kinds suffice."""
    round_ = round_of(66)
    loot, _, _ = half_and_half(round_)
    graph = graph_of(66, 0.05, 0.05)
    assert graph.degree < 65
    assert round_.sent
    assert set(breaches(round_).values()) == {Breach.CONFIRMATION}
    assert list(loot.mask_keys) == [0]
    assert len(loot.mask_keys[0]) < graph.threshold


@pytest.mark.parametrize("members", [6, 66])
def test_split_views_with_a_threshold_of_half_give_the_victims_vector(
    monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    """Without graph_of's bound. The confirmations ask for a threshold too, and hold nothing where that is too low."""
    degree = graph_of(members, 0.05, 0.05).degree
    half = (degree + 1) // 2
    for side in (client, server):
        monkeypatch.setattr(side, "graph_of", lambda *_: Graph(members, degree, half))
    round_ = round_of(members)
    loot, masked, state = half_and_half(round_)
    assert not round_.refused
    seed, mask_key = secret_of(loot.seeds[0], half), secret_of(loot.mask_keys[0], half)
    near = Graph(members, degree, half).neighbours(0)
    np.testing.assert_array_equal(plain(masked, state, 0, seed, mask_key, near), round_.vectors[names_at(state)[0]])


def ask_twice(round_: SecureRound, *, restored: bool) -> tuple[Loot, np.ndarray, Any]:
    """Everybody is told that all survived, and afterwards that the one at position 0 dropped out."""
    run_through(round_, "mask")
    masked, state, groups, states = masked_inputs(round_), round_.groups[0], round_.groups, dict(round_.states)
    names, loot = names_at(state), Loot()
    for gone in ([], [0]):
        views = {name: all_but(len(names), *gone) for place, name in enumerate(names) if place not in gone}
        round_.groups = groups
        if restored:
            round_.states = dict(states)
        show(round_, views)
        round_.confirm()
        round_.unmask()
        loot.take_revealed(round_, state, views)
    return loot, masked[names[0]], state


def test_a_second_survivor_set_is_out_of_turn() -> None:
    round_ = round_of(5)
    loot, _, _ = ask_twice(round_, restored=False)
    assert set(breaches(round_).values()) == {Breach.OUT_OF_TURN}
    assert not loot.mask_keys


def test_a_state_used_twice_gives_both_kinds_of_share() -> None:
    """No check of the protocol's is left out: who holds the state must keep the next one before the reply leaves."""
    round_ = round_of(5)
    loot, masked, state = ask_twice(round_, restored=True)
    assert not round_.refused
    seed, mask_key = secret_of(loot.seeds[0], 4), secret_of(loot.mask_keys[0], 4)
    np.testing.assert_array_equal(plain(masked, state, 0, seed, mask_key), round_.vectors[names_at(state)[0]])


@pytest.mark.parametrize("listed", [(0, 0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 0), (1, 0, 2, 3, 4)])
def test_a_survivor_listed_twice_or_out_of_order_is_malformed(listed: tuple[int, ...]) -> None:
    """A set cannot say of one member that it both survived and dropped: there is one list, and it only rises.

    Nothing is gained without the check, since what is revealed depends on the set alone; the tags are another matter,
    see ``test_one_tag_counted_many_times``.
    """
    round_ = run_through(round_of(5), "mask")
    show(round_, dict.fromkeys(round_.clients, listed))
    round_.confirm()
    assert set(breaches(round_).values()) == {Breach.MALFORMED}
    assert not round_.sent


# 2. Different survivor sets to different clients.


def confirmed_by_friends(
    round_: SecureRound, state: Any, friends: Collection[int], views: Mapping[str, tuple[int, ...]], copies: int = 1
) -> None:
    """The step ``confirm``, in which friends of the server confirm to everybody whatever it was shown."""
    names = names_at(state)
    knowing = {friend: round_.states[names[friend]] for friend in friends}
    round_.confirm(without=[names[friend] for friend in friends])
    for name, given in round_.given.items():
        place, tags = names.index(name), list(given.tags)
        for friend, knows in knowing.items():
            key = next(item.confirming for item in knows.held if item.position == place)  # type: ignore[union-attr]
            tag = confirmation_tag(key, survivors_digest(state.context, views[name]), friend, place)
            tags += [ConfirmationTag(friend, tag)] * copies
        round_.given[name] = Confirmations(tuple(sorted(tags, key=lambda item: item.position)))


def two_views(round_: SecureRound, friends: int) -> tuple[Loot, np.ndarray, Any]:
    """To half of the honest members the one at position 0 survived, to the others it dropped out."""
    run_through(round_, "mask")
    masked, state = masked_inputs(round_), round_.groups[0]
    names = names_at(state)
    honest = all_but(len(names), *range(1, 1 + friends))
    views = {names[place]: all_but(len(names), 0) for place in honest[len(honest) // 2 :]}
    views |= {names[place]: all_but(len(names)) for place in (*honest[: len(honest) // 2], *range(1, 1 + friends))}
    show(round_, views)
    confirmed_by_friends(round_, state, range(1, 1 + friends), views)
    round_.unmask()
    loot = Loot().take_revealed(round_, state, views)
    for friend in range(1, 1 + friends):
        loot.take_held(round_.states[names[friend]])
    return loot, masked[names[0]], state


@pytest.mark.parametrize("dropout", [0.05, 0.2, 0.3, 0.4])
def test_as_many_colluders_as_a_graph_withstands_get_one_kind_of_share(dropout: float) -> None:
    round_ = round_of(10, dropout=dropout)
    graph = graph_in(round_.terms, 10)
    loot, _, _ = two_views(round_, graph.colluders)
    assert Breach.CONFIRMATION in breaches(round_).values()
    assert min(len(loot.seeds[0]), len(loot.mask_keys[0])) < graph.threshold


@pytest.mark.parametrize("dropout", [0.05, 0.2, 0.3, 0.4])
def test_one_colluder_more_than_a_graph_withstands_gets_both(dropout: float) -> None:
    """Where the guarantee ends, every check in force; the same bound as when a victim is shown other sharers."""
    round_ = round_of(10, dropout=dropout)
    graph = graph_in(round_.terms, 10)
    loot, masked, state = two_views(round_, graph.colluders + 1)
    assert not round_.refused
    seed, mask_key = (secret_of(kind[0], graph.threshold) for kind in (loot.seeds, loot.mask_keys))
    np.testing.assert_array_equal(plain(masked, state, 0, seed, mask_key), round_.vectors[names_at(state)[0]])


def seven_views(round_: SecureRound, *, copies: int = 1) -> tuple[Loot, np.ndarray, dict[int, bytes], Any]:
    """Each of seven is told that four of the other six dropped out, in a ring: everybody's mask key is given away.

    The victim is at position 0, and two friends of the server, one more than a threshold of 6 withstands, at 1 and 2.
    They confirm to everybody whatever it was shown; the server hands on so many copies of that.
    """
    run_through(round_, "share_keys")
    names, ring = names_at(round_.groups[0]), list(range(3, 10))
    mask_keys = {place: round_.states[names[place]].mask_secret for place in (1, 2)}  # type: ignore[union-attr]
    round_.mask()
    masked, state, loot = masked_inputs(round_), round_.groups[0], Loot()
    views = dict.fromkeys(names, all_but(10))
    for index, place in enumerate(ring):
        views[names[place]] = all_but(10, *(ring[(index + step) % 7] for step in range(1, 5)))
    show(round_, views)
    confirmed_by_friends(round_, state, (1, 2), views, copies)
    round_.unmask()
    loot.take_revealed(round_, state, views)
    for friend in (1, 2):
        loot.take_held(round_.states[names[friend]])
    return loot, masked[names[0]], mask_keys, state


def assert_isolated(round_: SecureRound, *, copies: int = 1) -> None:
    loot, masked, mask_keys, state = seven_views(round_, copies=copies)
    mask_keys |= {place: secret_of(loot.mask_keys[place], 6) for place in range(3, 10)}
    stolen = plain(masked, state, 0, secret_of(loot.seeds[0], 6), mask_keys)
    np.testing.assert_array_equal(stolen, round_.vectors[names_at(state)[0]])


def test_different_survivors_are_not_confirmed() -> None:
    round_ = round_of(10, **SPARING)
    loot, _, _, _ = seven_views(round_)
    assert list(breaches(round_).values()) == [Breach.CONFIRMATION] * 8
    assert max(len(shares) for shares in loot.mask_keys.values()) == 2, "what the friends held, and no other's"


def test_different_survivors_unconfirmed_isolate_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threshold and ``min_group`` hold all the while, and no secret is revealed in both kinds."""
    without(monkeypatch, "enough_saw_the_same_survivors")
    assert_isolated(round_of(10, **SPARING))


def test_one_tag_repeated_is_malformed() -> None:
    round_ = round_of(10, **SPARING)
    seven_views(round_, copies=5)
    assert list(breaches(round_).values()) == [Breach.MALFORMED] * 8


def test_one_tag_counted_many_times_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``_is_rising``: duplicates in one message do what two messages could not."""
    monkeypatch.setattr(client_checks, "_is_rising", lambda _: None)
    assert_isolated(round_of(10, **SPARING), copies=5)


# 13. Dropouts: one case here, all subsets in tests/property.


def test_a_dropout_at_each_step_leaves_the_exact_sum() -> None:
    names = names_of(9)
    steps = ("advertise", "share_keys", "mask")
    round_ = SecureRound(terms_of(names, min_group=4, dropout=0.25), random_vectors(names))
    (found,) = round_.run({step: [name] for step, name in zip(steps, names, strict=False)})
    assert isinstance(found, server.Sum)
    assert found.survivors == tuple(names[3:])
    np.testing.assert_array_equal(found.total, round_.plain_sum(names[3:]))
