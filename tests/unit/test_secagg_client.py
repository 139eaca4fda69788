"""The client's side, step by step: only the message awaited is taken, and no rule is broken without a word.

A refused step leaves the state as it was: the genuine message is taken afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from recorded_round import STEPS, recorded
from secure_round import Integers, identity_of, other_terms
from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg import client, client_checks
from testudo_common.secagg.bindings import commitments_digest, confirmation_tag, sign_advertisement, survivors_digest
from testudo_common.secagg.client import ClientState, Finished
from testudo_common.secagg.messages import (
    Advertisement,
    CommitmentEntry,
    Confirmations,
    ConfirmationTag,
    Deliveries,
    Directory,
    DirectoryEntry,
    Sealed,
    SurvivorSet,
)
from testudo_common.secagg.terms import Terms

RECORD = recorded(6)  # five of them are needed
VICTIM = RECORD.name(2)


def vector_of(name: str) -> Integers:
    return RECORD.vectors[name].copy()


def step(state: Any, message: Any, vector: Integers | None = None, terms: Terms = RECORD.terms) -> Any:
    return client.step(terms, identity_of(VICTIM), state, message, vector)


def check_goes_on(name: str, state: ClientState) -> None:
    """The genuine message is taken in ``state``."""
    told = RECORD.steps[name].told[VICTIM]
    following, reply = step(state, told, vector_of(VICTIM))
    assert type(following) is type(STATES[STEPS.index(name)])
    assert type(reply.message) is type(RECORD.steps[name].replies[VICTIM].message)


STATES: list[ClientState] = [RECORD.steps[name].states[VICTIM] for name in STEPS[1:]] + [RECORD.last_states[VICTIM]]
TOLD = [RECORD.steps[name].told[VICTIM] for name in STEPS[1:]]


# Turns.


@pytest.mark.parametrize("state", STATES, ids=[type(state).__name__ for state in STATES])
def test_a_message_out_of_turn(state: ClientState) -> None:
    """Every kind of message but the one awaited, a client's own kinds among them."""
    awaited = type(TOLD[STATES.index(state)]) if not isinstance(state, Finished) else None
    own = [RECORD.steps[name].replies[VICTIM].message for name in STEPS]
    for message in (*TOLD, *own, None):
        if type(message) is awaited:
            continue
        vector = vector_of(VICTIM)
        with pytest.raises(ProtocolError, match=f"after {type(state).__name__}") as caught:
            step(state, message, vector)
        assert caught.value.breach is Breach.OUT_OF_TURN
        np.testing.assert_array_equal(vector, RECORD.vectors[VICTIM])
    if awaited is not None:
        check_goes_on(STEPS[1 + STATES.index(state)], state)


def test_nothing_to_mask() -> None:
    state = RECORD.steps["mask"].states[VICTIM]
    with pytest.raises(ProtocolError, match="nothing to mask") as caught:
        step(state, RECORD.steps["mask"].told[VICTIM])
    assert caught.value.breach is Breach.OUT_OF_TURN
    check_goes_on("mask", state)


def test_a_vector_is_masked_in_place() -> None:
    vector = vector_of(VICTIM)
    _, reply = step(RECORD.steps["mask"].states[VICTIM], RECORD.steps["mask"].told[VICTIM], vector)
    assert reply.vector is vector
    assert (vector != RECORD.vectors[VICTIM]).all()


def unwriteable(vector: Integers) -> Integers:
    vector.setflags(write=False)
    return vector


WORDS = RECORD.vectors[VICTIM]
UNFIT: dict[str, Any] = {
    "signed": WORDS.astype(np.int32),
    "64 bits": WORDS.astype(np.uint64),
    "float": WORDS.astype(np.float32),
    "big-endian": WORDS.astype(">u4"),
    "too short": WORDS[:-1].copy(),
    "too long": np.append(WORDS, WORDS[:1]),
    "empty": WORDS[:0].copy(),
    "two dimensions": WORDS.copy()[np.newaxis],
    "not contiguous": np.repeat(WORDS, 2)[::2],
    "not to be written to": unwriteable(WORDS.copy()),
}


@pytest.mark.parametrize("vector", UNFIT.values(), ids=UNFIT.keys())
def test_a_vector_that_cannot_be_masked(vector: Any) -> None:
    state, before = RECORD.steps["mask"].states[VICTIM], vector.copy()
    with pytest.raises(ProtocolError) as caught:
        step(state, RECORD.steps["mask"].told[VICTIM], vector)
    assert caught.value.breach is Breach.VALUES
    np.testing.assert_array_equal(vector, before)
    check_goes_on("mask", state)


# Rules. Each fault is one change of the genuine message.

Change = Callable[[Any], Any]


def entries(change: Callable[[list[Any]], list[Any]]) -> Change:
    return lambda message: replace(message, entries=tuple(change(list(message.entries))))


def own(listed: list[Any]) -> int:
    return [entry.client_id for entry in listed].index(VICTIM)


def without_own(listed: list[Any]) -> list[Any]:
    return [entry for entry in listed if entry.client_id != VICTIM]


def only(count: int) -> Callable[[list[Any]], list[Any]]:
    """The victim and some others."""
    return lambda listed: sorted(
        [listed[own(listed)], *without_own(listed)[: count - 1]], key=lambda entry: entry.client_id
    )


def twice(listed: list[Any]) -> list[Any]:
    return sorted([*listed, listed[own(listed)]], key=lambda entry: entry.client_id)


def reversed_list(listed: list[Any]) -> list[Any]:
    return listed[::-1]


def with_stranger(listed: list[CommitmentEntry]) -> list[CommitmentEntry]:
    return [*listed, CommitmentEntry("stranger", bytes(32))]


def with_own_commitment_changed(listed: list[CommitmentEntry]) -> list[CommitmentEntry]:
    return [replace(entry, commitment=bytes(32)) if entry.client_id == VICTIM else entry for entry in listed]


def advertising(place: int, **changed: bytes) -> Callable[[list[DirectoryEntry]], list[DirectoryEntry]]:
    """Another's advertisement with some of its fields changed, and not signed again."""

    def change(listed: list[DirectoryEntry]) -> list[DirectoryEntry]:
        other = without_own(listed)[place]
        shown = replace(other.advertisement, **changed)
        return [replace(entry, advertisement=shown) if entry is other else entry for entry in listed]

    return change


def signed_with(copy: str, of: str) -> Callable[[list[DirectoryEntry]], list[DirectoryEntry]]:
    """Another client advertises, under its own good signature, something that the victim advertises."""

    def change(listed: list[DirectoryEntry]) -> list[DirectoryEntry]:
        mine, other = listed[own(listed)].advertisement, without_own(listed)[0]
        kept = {item.name: getattr(other.advertisement, item.name) for item in fields(Advertisement)}
        del kept["signature"]
        shown = sign_advertisement(
            identity_of(other.client_id).signing_key,
            RECORD.terms.round_context,
            commitments_digest(RECORD.steps["advertise"].told[VICTIM].entries),
            **{**kept, copy: getattr(mine, of)},
        )
        return [replace(entry, advertisement=shown) if entry is other else entry for entry in listed]

    return change


def with_uncommitted(listed: list[DirectoryEntry]) -> list[DirectoryEntry]:
    return [*listed, replace(listed[0], client_id="stranger")]


def with_own_keys_changed(listed: list[DirectoryEntry]) -> list[DirectoryEntry]:
    other = without_own(listed)[0].advertisement
    return [replace(entry, advertisement=other) if entry.client_id == VICTIM else entry for entry in listed]


def delivered(sharers: tuple[int, ...], senders: tuple[int, ...] | None = None) -> Change:
    """Other sharers, and ciphertexts of others; of all sharers but the victim itself unless ``senders`` says whose."""

    def change(message: Deliveries) -> Deliveries:
        sent = {item.position: item.ciphertext for item in message.ciphertexts}
        wanted = [place for place in sharers if place != 2] if senders is None else senders
        return Deliveries(sharers, tuple(Sealed(place, sent.get(place, bytes(144))) for place in wanted))

    return change


def with_ciphertexts_swapped(message: Deliveries) -> Deliveries:
    first, second, *rest = message.ciphertexts
    swapped = (replace(first, ciphertext=second.ciphertext), replace(second, ciphertext=first.ciphertext))
    return replace(message, ciphertexts=(*swapped, *rest))


def with_a_bit_flipped(message: Deliveries) -> Deliveries:
    *rest, last = message.ciphertexts
    flipped = bytes((last.ciphertext[0] ^ 1,)) + last.ciphertext[1:]
    return replace(message, ciphertexts=(*rest, replace(last, ciphertext=flipped)))


def surviving(*positions: int) -> Change:
    return lambda message: SurvivorSet(positions)


def tagged(*places: int) -> Change:
    """The genuine tags of the senders at some places of the message."""
    return lambda message: Confirmations(tuple(message.tags[place] for place in places))


def with_tags_swapped(message: Confirmations) -> Confirmations:
    first, second, *rest = message.tags
    return Confirmations((replace(first, tag=second.tag), replace(second, tag=first.tag), *rest))


FAULTS: dict[str, tuple[str, Change, Breach]] = {
    # CommitmentList
    "its commitment is not listed": ("advertise", entries(without_own), Breach.COMMITMENT),
    "its commitment is another": ("advertise", entries(with_own_commitment_changed), Breach.COMMITMENT),
    "its commitment is listed twice": ("advertise", entries(twice), Breach.MALFORMED),
    "commitments in falling order": ("advertise", entries(reversed_list), Breach.MALFORMED),
    "no commitments": ("advertise", entries(lambda listed: []), Breach.COMMITMENT),
    "a commitment of a stranger": ("advertise", entries(with_stranger), Breach.NOT_ON_ROSTER),
    "a cohort of two": ("advertise", entries(only(2)), Breach.TOO_FEW),
    # Directory
    "its keys are not listed": ("share_keys", entries(without_own), Breach.KEY),
    "its keys are another's": ("share_keys", entries(with_own_keys_changed), Breach.KEY),
    "its keys are listed twice": ("share_keys", entries(twice), Breach.MALFORMED),
    "a directory in falling order": ("share_keys", entries(reversed_list), Breach.MALFORMED),
    "a nonce that was not committed to": ("share_keys", entries(advertising(0, nonce=bytes(32))), Breach.COMMITMENT),
    "keys of somebody who had not committed": ("share_keys", entries(with_uncommitted), Breach.COMMITMENT),
    "more than half are left out": ("share_keys", entries(only(2)), Breach.LEFT_OUT),
    "a substituted channel key": ("share_keys", entries(advertising(1, channel_key=bytes(32))), Breach.SIGNATURE),
    "a substituted mask key": ("share_keys", entries(advertising(2, mask_key=bytes(32))), Breach.SIGNATURE),
    "a substituted seed digest": ("share_keys", entries(advertising(3, seed_digest=bytes(32))), Breach.SIGNATURE),
    "an unsigned advertisement": (
        "share_keys",
        entries(advertising(4, signature=bytes(64))),
        Breach.SIGNATURE,
    ),
    "a twin's channel key": ("share_keys", entries(signed_with("channel_key", "channel_key")), Breach.KEY),
    "a twin's mask key": ("share_keys", entries(signed_with("mask_key", "mask_key")), Breach.KEY),
    "a twin's seed": ("share_keys", entries(signed_with("seed_digest", "seed_digest")), Breach.KEY),
    "its mask key as a channel key": (
        "share_keys",
        entries(signed_with("channel_key", "mask_key")),
        Breach.KEY,
    ),
    # Deliveries; the victim is at position 2
    "it is not among the sharers": ("mask", delivered((0, 1, 3, 4, 5)), Breach.MEMBERS),
    "a sharer beyond the group": ("mask", delivered((0, 1, 2, 3, 4, 5, 6)), Breach.MEMBERS),
    "a sharer twice": ("mask", delivered((0, 1, 1, 2, 3, 4)), Breach.MALFORMED),
    "sharers in falling order": ("mask", delivered((5, 4, 3, 2, 1, 0)), Breach.MALFORMED),
    "no sharers": ("mask", delivered(()), Breach.MEMBERS),
    "a ciphertext is missing": ("mask", delivered((0, 1, 2, 3, 4, 5), (0, 1, 3, 4)), Breach.MEMBERS),
    "a ciphertext of no sharer": ("mask", delivered((0, 1, 2, 3, 4), (0, 1, 3, 4, 5)), Breach.MEMBERS),
    "a ciphertext of its own": ("mask", delivered((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)), Breach.MEMBERS),
    "ciphertexts in falling order": ("mask", delivered((0, 1, 2, 3, 4, 5), (5, 4, 3, 1, 0)), Breach.MEMBERS),
    "fewer sharers than the threshold": ("mask", delivered((0, 1, 2, 3)), Breach.TOO_FEW),
    "ciphertexts of each other": ("mask", with_ciphertexts_swapped, Breach.SHARE),
    "a ciphertext with a flipped bit": ("mask", with_a_bit_flipped, Breach.SHARE),
    # SurvivorSet
    "it is not among the survivors": ("confirm", surviving(0, 1, 3, 4, 5), Breach.SURVIVORS),
    "a survivor beyond the group": ("confirm", surviving(0, 1, 2, 3, 4, 6), Breach.SURVIVORS),
    "a survivor twice": ("confirm", surviving(0, 1, 2, 3, 3, 4), Breach.MALFORMED),
    "survivors in falling order": ("confirm", surviving(5, 4, 3, 2, 1, 0), Breach.MALFORMED),
    "no survivors": ("confirm", surviving(), Breach.SURVIVORS),
    "it alone survives": ("confirm", surviving(2), Breach.TOO_FEW),
    "fewer survivors than the threshold": ("confirm", surviving(0, 1, 2, 3), Breach.TOO_FEW),
    # Confirmations
    "no tags": ("unmask", tagged(), Breach.CONFIRMATION),
    "fewer tags than the threshold": ("unmask", tagged(0, 1, 2), Breach.CONFIRMATION),
    "a tag twice": ("unmask", tagged(0, 1, 2, 2, 3), Breach.MALFORMED),
    "tags in falling order": ("unmask", tagged(3, 2, 1, 0), Breach.MALFORMED),
    "tags of each other": ("unmask", with_tags_swapped, Breach.CONFIRMATION),
}


@pytest.mark.parametrize(("name", "change", "breach"), FAULTS.values(), ids=FAULTS.keys())
def test_a_rule_is_broken(name: str, change: Change, breach: Breach) -> None:
    state, told = RECORD.steps[name].states[VICTIM], RECORD.steps[name].told[VICTIM]
    vector = vector_of(VICTIM)
    with pytest.raises(ProtocolError) as caught:
        step(state, change(told), vector)
    assert caught.value.breach is breach
    np.testing.assert_array_equal(vector, RECORD.vectors[VICTIM], "nothing was masked")
    check_goes_on(name, state)


@pytest.mark.parametrize(
    ("name", "change"),
    [("mask", delivered((0, 1, 2, 3, 4))), ("confirm", surviving(0, 1, 2, 3, 4)), ("unmask", tagged(0, 1, 2, 3))],
    ids=["one did not share", "one did not survive", "one did not confirm"],
)
def test_one_fewer_is_no_fault(name: str, change: Change) -> None:
    step(RECORD.steps[name].states[VICTIM], change(RECORD.steps[name].told[VICTIM]), vector_of(VICTIM))


def test_who_is_to_blame_is_named() -> None:
    for fault, place in (("ciphertexts of each other", 0), ("a ciphertext with a flipped bit", 5)):
        name, change, _ = FAULTS[fault]
        with pytest.raises(PeerError) as caught:
            step(RECORD.steps[name].states[VICTIM], change(RECORD.steps[name].told[VICTIM]), vector_of(VICTIM))
        assert caught.value.client_id == RECORD.name(place)
    directory = RECORD.steps["share_keys"].told[VICTIM]
    name, change, _ = FAULTS["a substituted mask key"]
    with pytest.raises(PeerError) as caught:
        step(RECORD.steps[name].states[VICTIM], change(directory))
    assert caught.value.client_id == without_own(list(directory.entries))[2].client_id


@pytest.mark.parametrize(
    "changed",
    [
        {"model_digest": b"n" * 32},
        {"plan_digest": b"q" * 32},
        {"roster_digest": b"s" * 32},
        {"round_number": 2},
        {"attempt": 1},
        {"federation": "another"},
    ],
    ids=str,
)
def test_other_terms_than_the_cohorts(changed: dict[str, Any]) -> None:
    """What was committed to under other terms is not what the list holds; what was signed does not verify."""
    terms = other_terms(RECORD.terms, **changed)
    for name in ("advertise", "share_keys"):
        with pytest.raises(ProtocolError) as caught:
            step(RECORD.steps[name].states[VICTIM], RECORD.steps[name].told[VICTIM], terms=terms)
        assert caught.value.breach is Breach.COMMITMENT


def test_a_cohort_that_shrank_too_far() -> None:
    """``max_left_out`` is one rule, ``min_cohort`` another."""
    record = recorded(6, min_cohort=5, max_left_out=0.9)
    victim = record.name(0)
    told = record.steps["share_keys"].told[victim]
    mine = next(entry for entry in told.entries if entry.client_id == victim)
    others = [entry for entry in told.entries if entry is not mine][:3]
    small = Directory(tuple(sorted([mine, *others], key=lambda entry: entry.client_id)))
    with pytest.raises(ProtocolError, match="a cohort of 4, and 5 are needed") as caught:
        client.step(record.terms, identity_of(victim), record.steps["share_keys"].states[victim], small)
    assert caught.value.breach is Breach.TOO_FEW


def test_somebody_left_the_roster_after_committing() -> None:
    directory = RECORD.steps["share_keys"].told[VICTIM]
    gone = without_own(list(directory.entries))[0].client_id
    roster = {name: key for name, key in RECORD.terms.roster.items() if name != gone}
    with pytest.raises(PeerError) as caught:
        step(RECORD.steps["share_keys"].states[VICTIM], directory, terms=other_terms(RECORD.terms, roster=roster))
    assert (caught.value.client_id, caught.value.breach) == (gone, Breach.NOT_ON_ROSTER)


def test_a_group_that_hides_nobody() -> None:
    """Numbers that ``Parameters.check`` would refuse: groups of two where three are needed."""
    parameters = replace(RECORD.terms.parameters, group_size=2)
    with pytest.raises(ProtocolError, match="a group of 2, and 3 are needed") as caught:
        step(
            RECORD.steps["share_keys"].states[VICTIM],
            RECORD.steps["share_keys"].told[VICTIM],
            terms=other_terms(RECORD.terms, parameters=parameters),
        )
    assert caught.value.breach is Breach.TOO_FEW
    client_checks.group_can_hide_its_members(RECORD.terms, RECORD.members)


def test_fewer_than_min_group() -> None:
    """Where the threshold would be content: five of six, and six are to survive."""
    record = recorded(6, min_group=6)
    victim = record.name(2)
    for name, change in (("mask", delivered((0, 1, 2, 3, 4))), ("confirm", surviving(0, 1, 2, 3, 4))):
        with pytest.raises(ProtocolError) as caught:
            client.step(
                record.terms,
                identity_of(victim),
                record.steps[name].states[victim],
                change(record.steps[name].told[victim]),
                vector_of(victim),
            )
        assert caught.value.breach is Breach.TOO_FEW


def test_tags_of_others_do_not_count() -> None:
    """One of four survivors besides the victim sends none; the tag of a member that dropped out is good and none."""
    confirmed, _ = step(RECORD.steps["confirm"].states[VICTIM], SurvivorSet((0, 1, 2, 3, 4)))
    others = [
        client.step(
            RECORD.terms,
            identity_of(RECORD.name(place)),
            RECORD.steps["confirm"].states[RECORD.name(place)],
            SurvivorSet((0, 1, 2, 3, 4)),
        )[1].message
        for place in (0, 1, 3, 4)
    ]
    tags = [
        replace(next(item for item in message.tags if item.position == 2), position=place)
        for place, message in zip((0, 1, 3, 4), others, strict=True)
    ]
    shown = survivors_digest(confirmed.context, confirmed.survivors)
    key = next(item.confirming for item in confirmed.held if item.position == 5)
    stranger = ConfirmationTag(5, confirmation_tag(key, shown, 5, 2))
    with pytest.raises(ProtocolError, match="4 members confirm") as caught:
        step(confirmed, Confirmations((*tags[:3], stranger)))
    assert caught.value.breach is Breach.CONFIRMATION
    finished, reply = step(confirmed, Confirmations((*tags, stranger)))
    assert isinstance(finished, Finished)
    assert [item.position for item in reply.message.shares] == [0, 1, 2, 3, 4, 5]


def test_one_share_of_each_and_of_the_right_kind() -> None:
    """Of the seed where the member survives, of the mask key where it does not; never both."""
    for survivors in ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4)):
        state, _ = step(RECORD.steps["confirm"].states[VICTIM], SurvivorSet(survivors))
        assert isinstance(state, client.Confirmed)
        held = {item.position: item for item in state.held}
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(client_checks, "enough_saw_the_same_survivors", lambda *_: None)
            _, reply = step(state, Confirmations(()))
        shares = {item.position: item.share for item in reply.message.shares}
        assert sorted(shares) == [0, 1, 2, 3, 4, 5]
        for place, share in shares.items():
            if place == 2:
                assert share == state.own_seed_share
            else:
                assert share == (held[place].seed_share if place in survivors else held[place].mask_key_share)


def test_no_share_of_its_own_seed_when_it_is_not_to_survive() -> None:
    """No rule lets it come to this; if one did, its own mask would still be its own."""
    state = RECORD.steps["unmask"].states[VICTIM]
    assert isinstance(state, client.Confirmed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client_checks, "enough_saw_the_same_survivors", lambda *_: None)
        _, reply = step(replace(state, survivors=(0, 1, 3, 4, 5)), Confirmations(()))
    assert [item.position for item in reply.message.shares] == [0, 1, 3, 4, 5]
