"""Attacks 6 and 7 of the threat model: who is grouped with whom, and who is grouped twice.

Each is shown both ways: it fails; and with the check that stops it taken away, it gives the victim's vector.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from itertools import chain, combinations, count
from typing import Any

import numpy as np
import pytest

from secagg_attackers import (
    alone_with,
    breaches,
    draw_groups,
    isolated,
    names_at,
    redirect,
    round_of,
    run_through,
    without,
)
from secure_round import SecureRound, identity_of, names_of, other_terms, random_vectors, terms_of
from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg import client, server
from testudo_common.secagg.bindings import commitments_digest, sign_advertisement
from testudo_common.secagg.messages import (
    Advertisement,
    CommitmentEntry,
    CommitmentList,
    Confirmations,
    Deliveries,
    Directory,
    DirectoryEntry,
    Sealed,
    SurvivorSet,
)
from testudo_common.secagg.primitives import digest, number
from testudo_common.secagg.terms import Terms

COHORT = names_of(12)
VICTIM, *FRIENDS = COHORT[:4]


def advertised(cohort: Collection[str] = COHORT, **changed: Any) -> SecureRound:
    """A cohort in groups of about 4, at the moment when the server knows all nonces."""
    terms = terms_of(cohort, **{"group_size": 4, "min_group": 4, **changed})
    return run_through(SecureRound(terms, random_vectors(cohort)), "advertise")


def finish(round_: SecureRound) -> SecureRound:
    for step in ("share_keys", "mask", "confirm", "unmask"):
        getattr(round_, step)()
    return round_


# 6. A partition that does not match the coin.


def choose_a_nonce(round_: SecureRound) -> None:
    """A friend reveals another nonce than it committed to: the one that leaves the victim alone with friends."""
    commitments, entries = round_.cohort.commitments, list(round_.given[VICTIM].entries)
    place = next(index for index, entry in enumerate(entries) if entry.client_id == FRIENDS[0])
    own = entries[place].advertisement
    for trial in count():
        chosen = replace(own, nonce=digest("chosen", number(trial)))
        entries[place] = DirectoryEntry(FRIENDS[0], chosen)
        if alone_with(draw_groups(round_.terms, commitments, Directory(tuple(entries))), VICTIM, FRIENDS):
            break
    fields = {name: getattr(chosen, name) for name in ("channel_key", "mask_key", "seed_digest", "nonce")}
    key, listed = identity_of(FRIENDS[0]).signing_key, commitments_digest(commitments)
    signed = sign_advertisement(key, round_.terms.round_context, listed, **fields)
    entries[place] = DirectoryEntry(FRIENDS[0], signed)
    state = round_.states[FRIENDS[0]]
    assert isinstance(state, client.Advertised)
    round_.states[FRIENDS[0]] = replace(state, advertisement=signed)
    redirect(round_, Directory(tuple(entries)))


def test_a_nonce_chosen_late_is_refused() -> None:
    round_ = advertised()
    choose_a_nonce(round_)
    round_.share_keys()
    assert breaches(round_) == dict.fromkeys(COHORT, Breach.COMMITMENT)
    assert {error.client_id for error in round_.refused.values() if isinstance(error, PeerError)} == {FRIENDS[0]}


def test_a_nonce_chosen_late_unchecked_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "nonces_open_their_commitments")
    round_ = advertised()
    choose_a_nonce(round_)
    np.testing.assert_array_equal(isolated(finish(round_), VICTIM, FRIENDS), round_.vectors[VICTIM])


def leave_all_others_out(round_: SecureRound) -> None:
    """Once nonces are known, the victim and its group's fill of friends are all that is left."""
    entries = round_.given[VICTIM].entries
    redirect(round_, Directory(tuple(entry for entry in entries if entry.client_id in {VICTIM, *FRIENDS})))


def test_leaving_too_many_out_is_refused() -> None:
    round_ = advertised(max_left_out=0.5)
    leave_all_others_out(round_)
    round_.share_keys()
    assert breaches(round_) == dict.fromkeys([VICTIM, *FRIENDS], Breach.LEFT_OUT)


def test_leaving_too_many_out_unchecked_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "few_are_left_out")
    round_ = advertised(max_left_out=0.5)
    leave_all_others_out(round_)
    np.testing.assert_array_equal(isolated(finish(round_), VICTIM, FRIENDS), round_.vectors[VICTIM])


def test_naming_more_than_committed_does_not_stretch_the_cap() -> None:
    """Commitments are not signed, so a server can list clients that never came: each counts as left out itself."""
    names = names_of(24)
    round_ = SecureRound(terms_of(names, group_size=4, max_left_out=0.5), random_vectors(names))
    round_.commit(without=names[12:])
    invented = tuple(CommitmentEntry(name, bytes(32)) for name in names[12:])
    listed = CommitmentList((*round_.cohort.commitments, *invented))
    round_.cohort = server.Advertising(listed.entries)
    round_.given = dict.fromkeys(names[:12], listed)
    round_.advertise()
    leave_all_others_out(round_)
    round_.share_keys()
    assert breaches(round_) == dict.fromkeys([VICTIM, *FRIENDS], Breach.LEFT_OUT)


def choose_whom_to_leave_out(max_left_out: float) -> SecureRound:
    """The server tries whom to leave out, six of 24 at most, until the victim is alone with its friends.

    Only these four are shown that directory. All others see the honest one, in which the victim seems to fall silent
    and the friends take part a second time; nobody of them refuses anything.
    """
    names = names_of(24)
    round_ = advertised(names, max_left_out=max_left_out)
    commitments, entries = round_.cohort.commitments, round_.given[VICTIM].entries
    others = [name for name in names if name not in {VICTIM, *FRIENDS}]
    for out in chain(combinations(others, 4), combinations(others, 6)):
        directory = Directory(tuple(entry for entry in entries if entry.client_id not in out))
        if alone_with(draw_groups(round_.terms, commitments, directory), VICTIM, FRIENDS):
            break
    aside = SecureRound(round_.terms, {name: round_.vectors[name] for name in (VICTIM, *FRIENDS)})
    aside.cohort, aside.states = round_.cohort, {name: round_.states[name] for name in aside.clients}
    redirect(aside, directory)
    aside.given = dict.fromkeys(aside.clients, directory)
    finish(aside)
    for step in ("share_keys", "mask", "confirm", "unmask"):
        getattr(round_, step)(without=[VICTIM])
    assert not round_.refused
    return aside


def test_with_nobody_left_out_there_is_no_group_to_choose() -> None:
    """At 0, which is a plan's default: whoever committed is there, and the coin falls once."""
    assert breaches(choose_whom_to_leave_out(0.0)) == dict.fromkeys([VICTIM, *FRIENDS], Breach.LEFT_OUT)


@pytest.mark.parametrize(("max_left_out", "unchecked"), [(0.25, ()), (0.0, ("few_are_left_out",))])
def test_whom_to_leave_out_chooses_the_group(
    monkeypatch: pytest.MonkeyPatch, max_left_out: float, unchecked: tuple[str, ...]
) -> None:
    """What a plan with more than 0 pays: up to 6 of 20 left out are 60460 partitions to choose from."""
    without(monkeypatch, *unchecked)
    aside = choose_whom_to_leave_out(max_left_out)
    assert not aside.refused
    np.testing.assert_array_equal(isolated(aside, VICTIM, FRIENDS), aside.vectors[VICTIM])


def ask_only(clients: Collection[str], min_cohort: int) -> SecureRound:
    """The plan says groups of 10 and the roster holds 40; the server says that these were there today.

    It would go on with any cohort; the clients keep to the plan.
    """
    terms = terms_of(names_of(40), group_size=10, min_group=4, min_cohort=min_cohort)
    lax = other_terms(terms, parameters=replace(terms.parameters, min_cohort=4))
    round_ = SecureRound(lax, random_vectors(clients), terms_seen_by=dict.fromkeys(clients, terms))
    round_.commit()
    with suppress(ProtocolError):  # where nobody advertises, there is nothing to go on with
        round_.advertise()
    return finish(round_)


def test_a_cohort_of_the_victim_and_friends_is_refused() -> None:
    """Before a nonce is revealed."""
    round_ = ask_only(COHORT[:4], min_cohort=20)
    assert breaches(round_) == dict.fromkeys([VICTIM, *FRIENDS], Breach.TOO_FEW)
    assert not round_.sent


def test_a_cohort_of_the_victim_and_friends_unchecked_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "cohort_is_large_enough")
    round_ = ask_only(COHORT[:4], min_cohort=20)
    np.testing.assert_array_equal(isolated(round_, VICTIM, FRIENDS), round_.vectors[VICTIM])


def test_where_the_server_has_min_cohort_friends_it_needs_no_coin() -> None:
    """Every check is in force: ``min_cohort`` withstands a number of friends on the whole roster, not a share of them.

    Whom to ask is the server's choice, and nobody's to check. Here it asks the victim and ten friends; three fewer,
    one more than such a group withstands, would do (test_secagg_attacks_too_few.py).
    """
    friends = COHORT[1:11]
    round_ = ask_only(COHORT[:11], min_cohort=11)
    assert not round_.refused
    np.testing.assert_array_equal(isolated(round_, VICTIM, friends), round_.vectors[VICTIM])


def thin_out_by_the_directory(monkeypatch: pytest.MonkeyPatch, *unchecked: str) -> SecureRound:
    """Half of the cohort may be left out, and so the server leaves the victim with less than ``min_group``."""
    without(monkeypatch, *unchecked)
    names = COHORT[:6]
    strict = terms_of(names, min_group=4, min_cohort=4, max_left_out=0.5)
    lax = other_terms(strict, parameters=replace(strict.parameters, min_group=3))
    round_ = SecureRound(lax, random_vectors(names), terms_seen_by=dict.fromkeys(names, strict))
    run_through(round_, "advertise")
    redirect(round_, Directory(round_.given[VICTIM].entries[:3]))
    return finish(round_)


@pytest.mark.parametrize("rule", ["nothing", "cohort_is_large_enough", "group_can_hide_its_members"])
def test_a_directory_too_small_for_a_group_is_refused(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """By either layer, before keys are shared."""
    round_ = thin_out_by_the_directory(monkeypatch, *([] if rule == "nothing" else [rule]))
    assert breaches(round_) == dict.fromkeys(COHORT[:3], Breach.TOO_FEW)
    assert not round_.sent


def test_a_directory_too_small_for_a_group_unchecked_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ("enough_shared_their_keys", "survivors_can_hide_each_other")
    round_ = thin_out_by_the_directory(monkeypatch, "cohort_is_large_enough", "group_can_hide_its_members", *rules)
    np.testing.assert_array_equal(isolated(round_, VICTIM, COHORT[1:3]), round_.vectors[VICTIM])


def test_the_honest_server_begins_nothing_with_too_few() -> None:
    names = COHORT[:5]
    for gone in ({"commit": names[:1]}, {"advertise": names[:1]}):
        with pytest.raises(ProtocolError) as caught:
            SecureRound(terms_of(names, min_cohort=5), random_vectors(names)).run(gone)
        assert caught.value.breach is Breach.TOO_FEW


def test_the_honest_server_begins_again_where_one_is_missing() -> None:
    names = COHORT[:5]
    with pytest.raises(ProtocolError) as caught:
        SecureRound(terms_of(names, max_left_out=0.0), random_vectors(names)).run({"advertise": names[:1]})
    assert caught.value.breach is Breach.LEFT_OUT


def test_another_commitment_in_place_of_ones_own_is_refused() -> None:
    """Before the client's nonce is revealed."""
    with pytest.raises(ProtocolError) as caught:
        directory_after_a_swap()
    assert caught.value.breach is Breach.COMMITMENT


def test_a_swapped_commitment_is_refused_by_the_directory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing is gained by the swap alone; with neither check, test_a_nonce_chosen_late_unchecked goes through."""
    without(monkeypatch, "own_commitment_is_listed")
    terms, state, directory = directory_after_a_swap()
    with pytest.raises(PeerError) as caught:
        client.step(terms, identity_of(VICTIM), state, directory)
    assert caught.value.breach is Breach.COMMITMENT


def directory_after_a_swap() -> tuple[Terms, client.ClientState, Directory]:
    terms = terms_of(COHORT, group_size=4)
    state, _ = client.commit(terms, identity_of(VICTIM))
    listed = CommitmentList(tuple(CommitmentEntry(name, bytes(32)) for name in COHORT))
    following, reply = client.step(terms, identity_of(VICTIM), state, listed)
    assert isinstance(reply.message, Advertisement)
    return terms, following, Directory((DirectoryEntry(VICTIM, reply.message),))


def server_chosen(coin: bytes, clients: Any, group_size: int) -> tuple[tuple[str, ...], ...]:
    """The partition that the server would like."""
    rest = [name for name in COHORT if name not in {VICTIM, *FRIENDS}]
    return ((VICTIM, *FRIENDS), tuple(rest[:4]), tuple(rest[4:]))


def test_a_partition_of_the_servers_own_does_not_open() -> None:
    """No message names a group; a server that has one in mind can only deliver its ciphertexts, made for another."""
    round_ = advertised()
    round_.share_keys()
    group = next(names for names in map(names_at, round_.groups) if VICTIM in names)
    strangers = [name for name in COHORT if name not in group][:3]
    places = [place for place in range(4) if place != group.index(VICTIM)]
    sealed = [round_.sent[name].message.ciphertexts[0].ciphertext for name in strangers]  # type: ignore[union-attr]
    round_.given = {VICTIM: Deliveries((0, 1, 2, 3), tuple(map(Sealed, places, sealed)))}
    round_.mask()
    assert breaches(round_) == {VICTIM: Breach.SHARE}


def test_a_partition_that_clients_obey_isolates_the_victim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the clients' own ``partition``."""
    for side in (client, server):
        monkeypatch.setattr(side, "partition", server_chosen)
    round_ = finish(advertised())
    np.testing.assert_array_equal(isolated(round_, VICTIM, FRIENDS), round_.vectors[VICTIM])


# 7. The same update grouped twice.

OUT_OF_PLACE = [CommitmentList(()), Directory(()), Deliveries((), ()), SurvivorSet(()), Confirmations(())]


@pytest.mark.parametrize(("last", "awaited"), [("mask", SurvivorSet), ("confirm", Confirmations), ("unmask", None)])
def test_once_masked_nothing_is_masked_again(last: str, awaited: type | None) -> None:
    round_ = run_through(round_of(4), last)
    for message in OUT_OF_PLACE:
        if type(message) is awaited:
            continue
        name, vector = round_.clients[0], np.zeros(8, dtype=np.uint32)
        with pytest.raises(ProtocolError) as caught:
            client.step(round_.terms, identity_of(name), round_.states[name], message, vector)
        assert caught.value.breach is Breach.OUT_OF_TURN
        assert not vector.any()


def test_the_vector_is_used_up_by_masking() -> None:
    round_ = run_through(round_of(4), "share_keys")
    name = round_.clients[0]
    vector = round_.vectors[name].copy()
    _, reply = client.step(round_.terms, identity_of(name), round_.states[name], round_.given[name], vector)
    assert reply.vector is vector
    assert not (vector == round_.vectors[name]).any()


def test_a_vector_grouped_twice_is_the_difference_of_two_sums() -> None:
    """Both sums are over four and more, both rounds are honest to the letter; the caller masked the same updates."""
    names = names_of(5)
    terms, vectors = terms_of(names, min_group=4), random_vectors(names)
    (first,) = SecureRound(terms, vectors).run()
    (second,) = SecureRound(other_terms(terms, attempt=1), vectors).run({"commit": names[:1]})
    assert isinstance(first, server.Sum)
    assert isinstance(second, server.Sum)
    np.testing.assert_array_equal(first.total - second.total, vectors[names[0]])


def test_a_state_that_masks_twice_is_a_pad_used_twice() -> None:
    """A state restored after its reply had left: the difference of two updates, with nothing unmasked."""
    round_ = run_through(round_of(4), "share_keys")
    name = round_.clients[0]
    one, other = random_vectors(["one", "other"]).values()
    sent = [
        client.step(round_.terms, identity_of(name), round_.states[name], round_.given[name], vector.copy())[1].vector
        for vector in (one, other)
    ]
    np.testing.assert_array_equal(sent[0] - sent[1], one - other)  # type: ignore[operator]
