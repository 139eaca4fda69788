"""The server's side, step by step: whoever breaks a rule is set aside by name, and nobody else suffers for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from recorded_round import STEPS, Record, recorded
from secure_round import SecureRound, identity_of, names_of, other_terms, random_vectors, terms_of
from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg import server, shamir
from testudo_common.secagg.bindings import commitments_digest, sign_advertisement
from testudo_common.secagg.messages import (
    Advertisement,
    Commitment,
    Confirmation,
    ConfirmationTag,
    SharedKeys,
    UnmaskingShares,
)
from testudo_common.secagg.server import Masking, Sum, Unmasking
from testudo_common.secagg.terms import Terms

RECORD = recorded(6)  # five of them are needed
TERMS = RECORD.terms
NAMES = sorted(RECORD.vectors)
ONE = NAMES[2]


def commitments() -> dict[str, Commitment]:
    return RECORD.steps["commit"].messages()


def advertisements() -> dict[str, Advertisement]:
    return RECORD.steps["advertise"].messages()


def without(messages: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: message for name, message in messages.items() if name not in names}


# The cohort's steps.


def test_commitments_are_listed_by_name() -> None:
    shuffled = dict(sorted(commitments().items(), reverse=True))
    state, listed = server.begin(TERMS, shuffled)
    assert [entry.client_id for entry in listed.entries] == NAMES
    assert state.commitments == listed.entries


def test_too_few_clients_to_begin_with() -> None:
    server.begin(TERMS, without(commitments(), *NAMES[3:]))
    for count in (2, 1, 0):
        with pytest.raises(ProtocolError, match=f"{count} clients are there, and 3 are needed") as caught:
            server.begin(TERMS, without(commitments(), *NAMES[count:]))
        assert caught.value.breach is Breach.TOO_FEW


def resigned(name: str, **changed: bytes) -> Advertisement:
    """An advertisement with some fields changed, and signed by its client all the same."""
    shown = replace(advertisements()[name], **changed)
    return sign_advertisement(
        identity_of(name).signing_key,
        TERMS.round_context,
        commitments_digest(RECORD.steps["advertise"].server().commitments),
        channel_key=shown.channel_key,
        mask_key=shown.mask_key,
        seed_digest=shown.seed_digest,
        nonce=shown.nonce,
    )


OTHER = advertisements()[NAMES[1]]
MINE = advertisements()[ONE]
LOW_ORDER = bytes((1,)) + bytes(31)
BAD_ADVERTISEMENTS: dict[str, tuple[Advertisement, Breach]] = {
    "a nonce that it did not commit to": (resigned(ONE, nonce=bytes(32)), Breach.COMMITMENT),
    "another's advertisement": (OTHER, Breach.COMMITMENT),
    "no signature": (replace(MINE, signature=bytes(64)), Breach.SIGNATURE),
    "keys changed after signing": (replace(MINE, mask_key=OTHER.mask_key), Breach.SIGNATURE),
    "a channel key of low order": (resigned(ONE, channel_key=LOW_ORDER), Breach.KEY),
    "a mask key of low order": (resigned(ONE, mask_key=LOW_ORDER), Breach.KEY),
    "another's channel key": (resigned(ONE, channel_key=OTHER.channel_key), Breach.KEY),
    "another's mask key": (resigned(ONE, mask_key=OTHER.mask_key), Breach.KEY),
    "another's seed": (resigned(ONE, seed_digest=OTHER.seed_digest), Breach.KEY),
    "another's channel key as mask key": (resigned(ONE, mask_key=OTHER.channel_key), Breach.KEY),
    "one key twice": (resigned(ONE, mask_key=MINE.channel_key), Breach.KEY),
}


@pytest.mark.parametrize(("shown", "breach"), BAD_ADVERTISEMENTS.values(), ids=BAD_ADVERTISEMENTS.keys())
def test_an_advertisement_that_is_set_aside(shown: Advertisement, breach: Breach) -> None:
    state = RECORD.steps["advertise"].server()
    groups, directory, faults = server.gather(TERMS, state, {**advertisements(), ONE: shown})
    assert [(fault.client_id, fault.breach) for fault in faults] == [(ONE, breach)]
    assert [entry.client_id for entry in directory.entries] == [name for name in NAMES if name != ONE]
    assert sorted(member.client_id for group in groups for member in group.members) == [
        name for name in NAMES if name != ONE
    ]


def test_resigned_makes_what_the_client_makes() -> None:
    """Otherwise the faults above could be other ones than their names."""
    assert resigned(ONE) == MINE
    _, directory, faults = server.gather(TERMS, RECORD.steps["advertise"].server(), advertisements())
    assert not faults
    assert len(directory.entries) == 6


def test_a_client_that_is_not_on_the_roster() -> None:
    terms = other_terms(TERMS, roster=without(dict(TERMS.roster), ONE))
    _, _, faults = server.gather(terms, RECORD.steps["advertise"].server(), advertisements())
    assert [(fault.client_id, fault.breach) for fault in faults] == [(ONE, Breach.NOT_ON_ROSTER)]


def test_a_client_that_had_not_committed_is_not_listed() -> None:
    state = RECORD.steps["advertise"].server()
    early = replace(state, commitments=tuple(entry for entry in state.commitments if entry.client_id != ONE))
    replies = {ONE: MINE}
    with pytest.raises(ProtocolError, match="5 of 5 clients did not advertise"):
        server.gather(TERMS, early, replies)


def test_too_many_are_left_out() -> None:
    state = RECORD.steps["advertise"].server()
    server.gather(TERMS, state, without(advertisements(), *NAMES[3:]))  # half of them
    with pytest.raises(ProtocolError, match="4 of 6 clients did not advertise keys") as caught:
        server.gather(TERMS, state, without(advertisements(), *NAMES[2:]))
    assert caught.value.breach is Breach.LEFT_OUT


def test_too_few_are_left_for_a_cohort() -> None:
    terms = other_terms(TERMS, parameters=replace(TERMS.parameters, min_cohort=5))
    with pytest.raises(ProtocolError, match="4 clients are left, and 5 are needed") as caught:
        server.gather(terms, RECORD.steps["advertise"].server(), without(advertisements(), *NAMES[4:]))
    assert caught.value.breach is Breach.TOO_FEW


# A group's steps.


def share(replies: dict[str, Any]) -> Any:
    return server.share(TERMS, RECORD.steps["share_keys"].server(), replies)


def test_each_gets_the_ciphertexts_addressed_to_it() -> None:
    replies = RECORD.steps["share_keys"].messages()
    state, deliveries, faults = share(replies)
    assert not faults
    assert state.sharers == (0, 1, 2, 3, 4, 5)
    for position, member in enumerate(RECORD.members):
        delivery = deliveries[member.client_id]
        assert delivery.sharers == state.sharers
        for item in delivery.ciphertexts:
            sent = replies[RECORD.name(item.position)].ciphertexts
            assert item.ciphertext in [other.ciphertext for other in sent if other.position == position]
    assert len({item.ciphertext for delivery in deliveries.values() for item in delivery.ciphertexts}) == 6 * 5


BAD_SHARES: dict[str, Callable[[SharedKeys], SharedKeys]] = {
    "none": lambda reply: SharedKeys(()),
    "one missing": lambda reply: SharedKeys(reply.ciphertexts[1:]),
    "one twice": lambda reply: SharedKeys((reply.ciphertexts[0], *reply.ciphertexts)),
    "one for itself": lambda reply: SharedKeys((*reply.ciphertexts[:-1], replace(reply.ciphertexts[-1], position=2))),
    "one for nobody": lambda reply: SharedKeys((*reply.ciphertexts, replace(reply.ciphertexts[-1], position=6))),
    "falling": lambda reply: SharedKeys(reply.ciphertexts[::-1]),
}


@pytest.mark.parametrize("change", BAD_SHARES.values(), ids=BAD_SHARES.keys())
def test_shares_that_are_not_for_exactly_the_neighbours(change: Callable[[SharedKeys], SharedKeys]) -> None:
    replies = RECORD.steps["share_keys"].messages()
    name = RECORD.name(2)
    state, deliveries, faults = share({**replies, name: change(replies[name])})
    assert [(fault.client_id, fault.breach) for fault in faults] == [(name, Breach.SHARE)]
    assert state.sharers == (0, 1, 3, 4, 5)
    assert name not in deliveries
    assert all(item.position != 2 for delivery in deliveries.values() for item in delivery.ciphertexts)


def test_too_few_shared_their_keys() -> None:
    replies = RECORD.steps["share_keys"].messages()
    share(without(replies, *NAMES[3:]))
    with pytest.raises(ProtocolError, match="2 of 6 members shared their keys") as caught:
        share(without(replies, *NAMES[2:]))
    assert caught.value.breach is Breach.TOO_FEW


def masking(sharers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> Masking:
    return replace(RECORD.steps["mask"].server(), sharers=sharers)


def inputs() -> dict[str, Any]:
    return {name: reply.vector for name, reply in RECORD.steps["mask"].replies.items()}


def accept_all(state: Masking, names: Collection[str]) -> Masking:
    for name in names:
        state = server.accept(state, name, inputs()[name])
    return state


def test_the_order_of_arrival_does_not_matter() -> None:
    expected = accept_all(masking(), NAMES)
    assert expected.arrived == (0, 1, 2, 3, 4, 5)
    for order in list(permutations(NAMES))[::77]:
        state = accept_all(masking(), order)
        assert (state, state.total) == (expected, expected.total)


WORDS = inputs()[ONE]
BAD_INPUTS: dict[str, tuple[str, Any, Breach]] = {
    "a second one": (RECORD.name(0), WORDS, Breach.OUT_OF_TURN),
    "of one who did not share its keys": (RECORD.name(5), WORDS, Breach.OUT_OF_TURN),
    "of nobody in the group": ("stranger", WORDS, Breach.OUT_OF_TURN),
    "none": (RECORD.name(1), None, Breach.VALUES),
    "a list": (RECORD.name(1), WORDS.tolist(), Breach.VALUES),
    "signed": (RECORD.name(1), WORDS.astype(np.int32), Breach.VALUES),
    "64 bits": (RECORD.name(1), WORDS.astype(np.uint64), Breach.VALUES),
    "big-endian": (RECORD.name(1), WORDS.astype(">u4"), Breach.VALUES),
    "too short": (RECORD.name(1), WORDS[:-1], Breach.VALUES),
    "too long": (RECORD.name(1), np.append(WORDS, WORDS[:1]), Breach.VALUES),
    "two dimensions": (RECORD.name(1), WORDS[np.newaxis], Breach.VALUES),
    "a single word": (RECORD.name(1), WORDS[0], Breach.VALUES),
}


@pytest.mark.parametrize(("name", "vector", "breach"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_a_masked_input_that_is_not_added(name: str, vector: Any, breach: Breach) -> None:
    state = server.accept(masking(sharers=(0, 1, 2, 3, 4)), RECORD.name(0), inputs()[RECORD.name(0)])
    before = bytes(state.total)
    with pytest.raises(PeerError) as caught:
        server.accept(state, name, vector)
    assert (caught.value.client_id, caught.value.breach) == (name, breach)
    assert (state.arrived, bytes(state.total)) == ((0,), before)
    server.accept(state, RECORD.name(1), inputs()[RECORD.name(1)])


def test_too_few_survivors() -> None:
    for count in (2, 1, 0):
        with pytest.raises(ProtocolError, match=f"{count} survivors, and 3 are needed") as caught:
            server.close_masking(TERMS, accept_all(masking(), NAMES[:count]))
        assert caught.value.breach is Breach.TOO_FEW
    _, message = server.close_masking(TERMS, accept_all(masking(), NAMES[:3]))
    assert [RECORD.name(place) for place in message.survivors] == sorted(NAMES[:3], key=place_of)


def place_of(name: str) -> int:
    return [member.client_id for member in RECORD.members].index(name)


def confirmations() -> dict[str, Confirmation]:
    return RECORD.steps["confirm"].messages()


def confirm(
    replies: dict[str, Any], survivors: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
) -> dict[str, list[tuple[int, bytes]]]:
    """Client id -> (sender, tag) of what it is told."""
    state = replace(RECORD.steps["confirm"].server(), survivors=survivors)
    following, told = server.confirm(TERMS, state, replies)
    assert isinstance(following, Unmasking)
    return {name: [(item.position, item.tag) for item in message.tags] for name, message in told.items()}


def test_each_gets_the_tags_addressed_to_it() -> None:
    told = confirm(confirmations())
    for position, member in enumerate(RECORD.members):
        expected = [
            (sender, next(item.tag for item in confirmations()[RECORD.name(sender)].tags if item.position == position))
            for sender in range(6)
            if sender != position
        ]
        assert told[member.client_id] == expected


def test_who_does_not_confirm_is_told_nothing_more() -> None:
    told = confirm(without(confirmations(), RECORD.name(2)))
    assert sorted(told) == sorted(name for name in NAMES if name != RECORD.name(2))
    assert all(sender != 2 for tags in told.values() for sender, _ in tags)


def test_tags_for_and_of_others_than_survivors_go_nowhere() -> None:
    told = confirm(confirmations(), survivors=(0, 1, 3, 4, 5))
    assert RECORD.name(2) not in told
    assert [sender for sender, _ in told[RECORD.name(0)]] == [1, 3, 4, 5]


def test_tags_to_itself_and_to_nobody_go_nowhere() -> None:
    tags = confirmations()[RECORD.name(2)].tags
    extra = (ConfirmationTag(2, bytes(16)), ConfirmationTag(99, bytes(16)))
    assert confirm({**confirmations(), RECORD.name(2): Confirmation((*tags, *extra))}) == confirm(confirmations())


def test_two_tags_to_one_neighbour_are_none() -> None:
    tags = confirmations()[RECORD.name(2)].tags
    twice = Confirmation((*tags, replace(tags[0], tag=bytes(16))))
    told = confirm({**confirmations(), RECORD.name(2): twice})
    assert [sender for sender, _ in told[RECORD.name(0)]] == [1, 3, 4, 5]
    assert [sender for sender, _ in told[RECORD.name(1)]] == [0, 2, 3, 4, 5]


# The sum.


def unmasking() -> dict[str, UnmaskingShares]:
    return RECORD.steps["unmask"].messages()


def open_sum(replies: dict[str, Any], record: Record = RECORD, terms: Terms = TERMS) -> Sum:
    return server.open_sum(terms, record.steps["unmask"].server(), replies)


def check_sum(found: Sum, record: Record = RECORD) -> None:
    np.testing.assert_array_equal(found.total, record.round.plain_sum(record.vectors))
    assert found.survivors == tuple(sorted(record.vectors))


def test_one_may_be_missing() -> None:
    check_sum(open_sum(unmasking()))
    for name in NAMES:
        found = open_sum(without(unmasking(), name))
        check_sum(found)
        assert not (found.faults or found.disputes or found.liars)


def test_a_state_that_could_not_be_opened_can_be_tried_again() -> None:
    state = RECORD.steps["unmask"].server()
    with pytest.raises(ProtocolError, match="4 shares of a secret") as caught:
        server.open_sum(TERMS, state, without(unmasking(), *NAMES[4:]))
    assert caught.value.breach is Breach.TOO_FEW
    check_sum(server.open_sum(TERMS, state, unmasking()))


BAD_REPLIES: dict[str, Callable[[UnmaskingShares], UnmaskingShares]] = {
    "none": lambda reply: UnmaskingShares(()),
    "one missing": lambda reply: UnmaskingShares(reply.shares[1:]),
    "none of its own seed": lambda reply: UnmaskingShares(tuple(s for s in reply.shares if s.position != 2)),
    "one twice": lambda reply: UnmaskingShares((reply.shares[0], *reply.shares)),
    "falling": lambda reply: UnmaskingShares(reply.shares[::-1]),
    "one of nobody": lambda reply: UnmaskingShares((*reply.shares, replace(reply.shares[-1], position=6))),
}


@pytest.mark.parametrize("change", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_a_reply_that_is_not_one_share_of_each(change: Callable[[UnmaskingShares], UnmaskingShares]) -> None:
    name = RECORD.name(2)
    found = open_sum({**unmasking(), name: change(unmasking()[name])})
    check_sum(found)
    assert [(fault.client_id, fault.breach) for fault in found.faults] == [(name, Breach.SHARE)]


def lying(reply: UnmaskingShares, about: Collection[int]) -> UnmaskingShares:
    """Wrong shares of some members' secrets; wrong in all limbs."""
    return UnmaskingShares(
        tuple(
            replace(item, share=shamir.share_to_bytes((shamir.share_from_bytes(item.share) + 77) % shamir.PRIME))
            if item.position in about
            else item
            for item in reply.shares
        )
    )


def test_a_wrong_share_is_found_and_disputed() -> None:
    """Position 0 comes first, so its shares are tried; about one secret of six it may be the owner who is to blame."""
    name = RECORD.name(0)
    found = open_sum({**unmasking(), name: lying(unmasking()[name], [3])})
    check_sum(found)
    assert found.disputes == ((RECORD.name(3), name),)
    assert found.liars == ()


def test_who_is_in_dispute_with_most_is_a_liar() -> None:
    name = RECORD.name(0)
    for about, liar in (([0, 1, 2], False), ([0, 1, 2, 3], True), (range(6), True)):
        found = open_sum({**unmasking(), name: lying(unmasking()[name], about)})
        check_sum(found)
        assert found.disputes == tuple(sorted((RECORD.name(owner), name) for owner in about))
        assert found.liars == ((name,) if liar else ())


def test_more_wrong_shares_than_there_are_to_spare() -> None:
    replies = {name: lying(reply, [3]) if place_of(name) < 2 else reply for name, reply in unmasking().items()}
    state = RECORD.steps["unmask"].server()
    with pytest.raises(ProtocolError, match="do not give it back") as caught:
        server.open_sum(TERMS, state, replies)
    assert caught.value.breach is Breach.SHARE
    check_sum(server.open_sum(TERMS, state, unmasking()))


def test_a_liar_in_a_sparse_graph() -> None:
    """It lies about every secret that it holds a share of."""
    record = recorded(80)
    name = record.name(0)
    replies = record.steps["unmask"].messages()
    found = open_sum({**replies, name: lying(replies[name], range(80))}, record, record.terms)
    check_sum(found, record)
    assert {holder for _, holder in found.disputes} == {name}
    assert found.liars == (name,)


def test_those_who_shared_nothing_have_no_part_in_it() -> None:
    """One of six drops out in each step of a group; the sum is that of the others, and all shares are used."""
    names = names_of(6)
    for step in ("share_keys", "mask", "confirm", "unmask"):
        secure_round = SecureRound(terms_of(names), random_vectors(names))
        [found] = secure_round.run({step: names[:1]})
        assert isinstance(found, Sum)
        assert found.survivors == tuple(names[1:] if step in ("share_keys", "mask") else names)
        np.testing.assert_array_equal(found.total, secure_round.plain_sum(found.survivors))


def test_the_sum_of_masked_inputs_tells_nothing_before_it_is_opened() -> None:
    """What the server holds until the last step is not the sum."""
    for name in STEPS[4:]:
        total = np.frombuffer(RECORD.steps[name].server().total, dtype=np.uint32)
        assert (total != RECORD.round.plain_sum(NAMES)).all()


def test_groups_do_not_share_their_sums() -> None:
    """Each group's is its own buffer, and in a saved state too."""
    one, other = RECORD.steps["mask"].server(), RECORD.steps["mask"].server()
    server.accept(one, ONE, inputs()[ONE])
    assert not any(other.total)
    assert any(one.total)
