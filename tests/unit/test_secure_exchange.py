"""The secure exchange over real participants: what comes out is the mean, whoever falls silent or sends rubbish.

Each client that does is set aside by name, and what it can spoil is its own group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import make_examples
from secure_federation import (
    REPLIES,
    STEPS,
    Answer,
    Falling,
    Link,
    Meddling,
    Members,
    exchange_of,
    groups_of,
    kind_of,
    layout_of,
    names_of,
    off_by,
    request_of,
    secure_plan,
)
from testudo_client.split import support_and_query
from testudo_common.learning.metric_counts import MAX_QUERIES
from testudo_common.plan import FederationPlan
from testudo_common.secagg.messages import MESSAGES, Commitment, MaskedInput, RevealedShare, Sealed
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest, encode
from testudo_server.exchange import Collected, GroupRecord

FIVE = names_of(5)
TEN = names_of(10)
CULPRIT = FIVE[2]
SILENT = "no reply before the deadline"


def plan_for(clients: int, *more: str) -> FederationPlan:
    """One group of five, or as many as there are fives."""
    return secure_plan(f"rounds.cohort_size={clients}", "secure_aggregation.group_size=5", *more)


FIVE_PLAN = plan_for(5)


def collect(members: Members, meddle: Meddling | Link | None = None, **more: Any) -> tuple[Collected, Link]:
    exchange, link = exchange_of(members, meddle or Link(members.participants))
    return exchange.group_means(request_of(members, **more), members.names), link


def check_means(members: Members, found: Collected) -> None:
    """Each group's mean is that of its survivors' updates."""
    assert found.groups
    for group in found.groups:
        off = off_by(layout_of(members.plan))
        np.testing.assert_allclose(group.mean, members.mean_of(group.members), rtol=0, atol=off)
        assert group.votes == len(group.members)
        assert np.abs(group.mean).max() > 1000 * off, "zeros would do as well"


# --- everybody is there


@pytest.mark.parametrize(("clients", "groups"), [(3, 1), (5, 1), (9, 1), (10, 2), (17, 3)])
def test_means_of_groups_are_means_of_updates(clients: int, groups: int) -> None:
    plan = plan_for(clients)
    members = Members(plan, names_of(clients))
    found, _ = collect(members)
    check_means(members, found)
    assert len(found.groups) == len(found.records) == groups
    assert sorted(name for group in found.groups for name in group.members) == list(members.names)
    assert [group.members for group in found.groups] == sorted(group.members for group in found.groups)
    for record in found.records:
        assert record.members == record.survivors == tuple(sorted(record.members))
        assert (record.attempt, record.fault, record.blamed, record.disputes) == (0, "", False, ())
        assert record.members in [group.members for group in found.groups]
    assert (found.excluded, found.vanished, found.counts.size) == ((), (), 0)


def test_groups_are_drawn_anew_in_each_attempt() -> None:
    members = Members(plan_for(10, "inner.sample_rate=0.25"), TEN)
    drawn = [tuple(record.members for record in collect(members, attempt=attempt)[0].records) for attempt in range(4)]
    assert len({frozenset(groups) for groups in drawn}) > 1, "two halves of ten agree with probability 1/126"
    assert [record.attempt for record in collect(members, attempt=4)[0].records] == [4, 4]


def test_everybody_is_told_the_same_and_only_so_often() -> None:
    members = Members(FIVE_PLAN, FIVE)
    _, link = collect(members)
    for name in FIVE:
        assert [kind_of(message) for message in link.sent_to(name)] == list(STEPS)
        assert [kind_of(reply) for reply in link.said_by(name)] == list(REPLIES)  # type: ignore[arg-type]
    for step in ("TrainRequest", "CommitmentList", "Directory", "SurvivorSet"):
        told = [message for _, kind, message, _ in link.log if kind == step]
        assert all(message is told[0] for message in told)
    wait = FIVE_PLAN.secure_aggregation.step_deadline_seconds
    assert link.deadlines == [FIVE_PLAN.rounds.deadline_seconds, *[wait] * 5]


def test_bytes_and_cpu_are_counted() -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, link = collect(members)
    assert found.cost.bytes_down == sum(encode(message).size_bytes for _, _, message, _ in link.log)
    replies = [reply for _, _, _, reply in link.log if not isinstance(reply, str | None)]
    assert found.cost.bytes_up == sum(encode(reply).size_bytes for reply in replies)
    assert found.cost.cpu_seconds > 0
    lost, _ = collect(Members(FIVE_PLAN, FIVE), lambda client, message, answer: "Flower error 2")
    assert (lost.cost.bytes_up, lost.cost.bytes_down > 0) == (0, True)


def test_exchange_begins_as_often_as_the_plan_says() -> None:
    exchange, _ = exchange_of(Members(secure_plan("secure_aggregation.max_attempts=7")))
    assert exchange.max_attempts == 7


# --- clients that fall silent


@pytest.mark.parametrize("handled", [False, True], ids=["before it handles", "after it handled"])
@pytest.mark.parametrize("step", STEPS)
def test_dropout_in_any_step(step: str, handled: bool) -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, Falling(members.participants, {CULPRIT: (step, handled)}))
    others = tuple(name for name in FIVE if name != CULPRIT)
    if step == "CommitmentList":
        assert (found.groups, found.records, found.vanished) == ((), (), (CULPRIT,))
        assert dict(found.excluded) == {
            CULPRIT: SILENT,
            **dict.fromkeys(others, "its group was not opened: 1 of 5 clients did not advertise keys"),
        }
        found, _ = collect(members, attempt=1)
        check_means(members, found)
        return
    masked = STEPS.index(step) > STEPS.index("Deliveries")
    check_means(members, found)
    assert [group.members for group in found.groups] == [FIVE if masked else others]
    assert found.excluded == (() if masked else ((CULPRIT, SILENT),))
    assert found.vanished == ()
    (record,) = found.records
    assert record.members == (others if step == "TrainRequest" else FIVE), "as drawn, not as left"
    assert record.survivors == (FIVE if masked else others)


falls = st.dictionaries(st.sampled_from(TEN), st.tuples(st.sampled_from(STEPS), st.booleans()), max_size=10)


@given(falls)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_dropouts_give_means_of_survivors_or_none(when: dict[str, tuple[str, bool]]) -> None:
    members = Members(plan_for(10), TEN)
    found, _ = collect(members, Falling(members.participants, when))
    if found.groups:
        check_means(members, found)
    counted = [name for group in found.groups for name in group.members]
    assert sorted([*counted, *(name for name, _ in found.excluded)]) == list(TEN), "each once, here or there"
    for group in found.groups:
        assert len(group.members) >= members.plan.secure_aggregation.min_group
    for name in counted:
        assert STEPS.index(when.get(name, ("Confirmations", True))[0]) > STEPS.index("Deliveries")
    assert not any(record.blamed for record in found.records), "dropouts are nobody's fault"
    assert set(found.vanished) == {
        name for name, (step, _) in when.items() if step == "CommitmentList" and len(found.vanished) > 0
    }


@pytest.mark.parametrize("step", ["Directory", "Deliveries", "SurvivorSet", "Confirmations"])
def test_group_that_loses_too_many_is_not_opened_and_nobody_is_blamed(step: str) -> None:
    members = Members(plan_for(10), TEN)
    gone: list[str] = []

    def lose(client: str, message: Message, answer: Answer) -> Message | None:
        """All but two of the group of the first client of which this step is asked."""
        if kind_of(message) != step:
            return None if client in gone else answer()
        if not gone:
            gone.extend(next(group for group in groups_of(members, link) if client in group)[2:])
        return None if client in gone else answer()

    link = Link(members.participants, lose)
    found, _ = collect(members, link)
    assert len(gone) == 3
    check_means(members, found)
    (lost,) = [record for record in found.records if not record.survivors]
    assert set(gone) < set(lost.members)
    assert lost.fault == "too_few"
    assert not lost.blamed
    excluded = dict(found.excluded)
    assert set(excluded) == set(lost.members)
    for name in lost.members:
        assert (
            excluded[name] == SILENT
            if name in gone
            else excluded[name].startswith(("its group was not opened: ", "refused: too_few"))
        )


# --- Flower's errors, refusals and rubbish


def rubbish(body: bytes) -> Callable[[Message, Message], Message]:
    def made(request: Message, reply: Message) -> Message:
        return replace(reply, body=body)  # type: ignore[type-var]

    return made


def changed(**fields: Any) -> Callable[[Message, Message], Message]:
    def made(request: Message, reply: Message) -> Message:
        return replace(reply, **fields)  # type: ignore[type-var]

    return made


def another_kind(request: Message, reply: Message) -> Message:
    other = Commitment(bytes(32)) if kind_of(reply) == "MaskedInput" else MaskedInput()
    return replace(reply, body=MESSAGES.encode(other))  # type: ignore[type-var]


def for_a_client(request: Message, reply: Message) -> Message:
    return replace(reply, body=bytes([1, 7, 0, 0, 0, 0]))  # type: ignore[type-var]


def update_in_clear(request: Message, reply: Message) -> Message:
    return TrainReply(FIVE_PLAN.digest, 1, 0, "ab" * 32, np.zeros(8, dtype=np.float32))


def its_own_request(request: Message, reply: Message) -> Message:
    return request


def refusal(request: Message, reply: Message) -> Message:
    return Refusal(FIVE_PLAN.digest, 1, 0, RefusalReason.DATA_UNUSABLE)


def refusal_without_a_plan(request: Message, reply: Message) -> Message:
    return Refusal("0" * 64, 0, 0, RefusalReason.INTERNAL)


def flower_error(request: Message, reply: Message) -> str:
    return "Flower error 2"


def nothing(request: Message, reply: Message) -> None:
    return None


RUBBISH: dict[str, tuple[Callable[[Message, Message], Message | str | None], str]] = {
    "no bytes": (rubbish(b""), "reply not understood"),
    "other bytes": (rubbish(b"\xff" * 40), "reply not understood"),
    "a message cut short": (rubbish(b"\x01\x01\x00"), "reply not understood"),
    "another kind of message": (another_kind, "reply not understood"),
    "a message for a client": (for_a_client, "reply not understood"),
    "another attempt": (changed(attempt=1), "answered another request"),
    "another round": (changed(round=2), "answered another request"),
    "another plan": (changed(plan_digest="ab" * 32), "answered another request"),
    "an update in clear": (update_in_clear, "not a message of secure aggregation"),
    "its own request": (its_own_request, "not a message of secure aggregation|reply not understood"),
    "a refusal": (refusal, "refused: data_unusable"),
    "a refusal without a plan": (refusal_without_a_plan, "refused: internal"),
    "Flower's error": (flower_error, "Flower error 2"),
    "nothing": (nothing, SILENT),
}


@pytest.mark.parametrize(("made", "reason"), RUBBISH.values(), ids=RUBBISH)
@pytest.mark.parametrize("step", STEPS)
def test_rubbish_sets_its_sender_aside_and_nobody_else(step: str, made: Any, reason: str) -> None:
    members = Members(FIVE_PLAN, FIVE)

    def spoil(client: str, message: Message, answer: Answer) -> Message | str | None:
        reply = answer()
        spoilt: Message | str | None = made(message, reply) if (client, kind_of(message)) == (CULPRIT, step) else reply
        return spoilt

    found, link = collect(members, spoil)
    excluded = dict(found.excluded)
    if step == "CommitmentList":
        assert (found.groups, found.vanished) == ((), (CULPRIT,))
        assert excluded[CULPRIT] in reason.split("|")
        return
    check_means(members, found)
    if STEPS.index(step) <= STEPS.index("Deliveries"):
        assert list(excluded) == [CULPRIT]
        assert excluded[CULPRIT] in reason.split("|")
    else:
        assert not excluded, "its masked input is in the sum"
    assert not any(record.blamed for record in found.records)
    later = STEPS[STEPS.index(step) + 1 :]
    assert not [message for message in link.sent_to(CULPRIT) if kind_of(message) in later]


def spoiling(kind: str, change: Callable[[Any, SecureMessage], Message]) -> Meddling:
    """The culprit's reply of that kind, changed; given the message in it, decoded, and the reply."""

    def meddle(client: str, message: Message, answer: Answer) -> Message:
        reply = answer()
        if client == CULPRIT and isinstance(reply, SecureMessage) and kind_of(reply) == kind:
            return change(MESSAGES.decode(reply.body), reply)
        return reply

    return meddle


def with_body(reply: SecureMessage, **fields: Any) -> SecureMessage:
    return replace(reply, body=MESSAGES.encode(replace(MESSAGES.decode(reply.body), **fields)))


ADVERTISEMENTS: dict[str, tuple[Callable[[Any, SecureMessage], Message], str]] = {
    "another nonce": (lambda shown, reply: with_body(reply, nonce=b"n" * 32), "its nonce does not open its commitment"),
    "another key": (lambda shown, reply: with_body(reply, mask_key=b"k" * 32), "its advertisement is not signed by it"),
    "no signature": (
        lambda shown, reply: with_body(reply, signature=bytes(64)),
        "its advertisement is not signed by it",
    ),
}


@pytest.mark.parametrize(("change", "reason"), ADVERTISEMENTS.values(), ids=ADVERTISEMENTS)
def test_bad_advertisement_where_clients_may_be_left_out(change: Any, reason: str) -> None:
    members = Members(plan_for(5, "secure_aggregation.max_left_out=0.2"), FIVE)
    found, _ = collect(members, spoiling("Advertisement", change))
    check_means(members, found)
    assert found.excluded == ((CULPRIT, reason),)


@pytest.mark.parametrize(("change", "reason"), ADVERTISEMENTS.values(), ids=ADVERTISEMENTS)
def test_bad_advertisement_where_nobody_may_be_left_out(change: Any, reason: str) -> None:
    """Its sender must not stay in the cohort: it would end attempt after attempt, and so the run."""
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, spoiling("Advertisement", change))
    assert found.groups == ()
    assert dict(found.excluded)[CULPRIT] == reason
    assert found.vanished == (CULPRIT,)


SHARES: dict[str, Callable[[Any, SecureMessage], Message]] = {
    "one too few": lambda shown, reply: with_body(reply, ciphertexts=shown.ciphertexts[1:]),
    "none": lambda shown, reply: with_body(reply, ciphertexts=()),
    "one twice": lambda shown, reply: with_body(reply, ciphertexts=(*shown.ciphertexts, shown.ciphertexts[-1])),
    "one for nobody": lambda shown, reply: with_body(
        reply, ciphertexts=(*shown.ciphertexts, Sealed(99, shown.ciphertexts[0].ciphertext))
    ),
    "in another order": lambda shown, reply: with_body(reply, ciphertexts=shown.ciphertexts[::-1]),
}


@pytest.mark.parametrize("change", SHARES.values(), ids=SHARES)
def test_shares_not_for_exactly_the_neighbours(change: Any) -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, spoiling("SharedKeys", change))
    check_means(members, found)
    assert found.excluded == ((CULPRIT, "it did not share with exactly its neighbours"),)


def garbage_for(count: int) -> Callable[[Any, SecureMessage], Message]:
    """Ciphertexts that the first neighbours cannot open."""

    def change(shown: Any, reply: SecureMessage) -> Message:
        spoilt = [replace(item, ciphertext=bytes(len(item.ciphertext))) for item in shown.ciphertexts[:count]]
        return with_body(reply, ciphertexts=(*spoilt, *shown.ciphertexts[count:]))

    return change


def test_shares_that_one_neighbour_cannot_open_cost_only_that_neighbour() -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, spoiling("SharedKeys", garbage_for(1)))
    check_means(members, found)
    ((victim, reason),) = found.excluded
    assert victim != CULPRIT
    assert reason == "refused: protocol_broken"


def test_shares_that_nobody_can_open_cost_the_group_and_are_blamed() -> None:
    members = Members(plan_for(10), TEN)
    found, _ = collect(members, spoiling("SharedKeys", garbage_for(9)))
    check_means(members, found)
    (lost,) = [record for record in found.records if not record.survivors]
    assert CULPRIT in lost.members
    assert (lost.fault, lost.blamed) == ("too_few", True)
    assert {name for name, _ in found.excluded} == set(lost.members)


VECTORS: dict[str, Any] = {
    "none": None,
    "too short": np.zeros(7, dtype=np.uint32),
    "too long": np.zeros(9, dtype=np.uint32),
    "empty": np.zeros(0, dtype=np.uint32),
    "two rows": np.zeros((2, 4), dtype=np.uint32),
    "float32": np.zeros(8, dtype=np.float32),
    "int32": np.zeros(8, dtype=np.int32),
    "other byte order": np.zeros(8, dtype=">u4"),
    "a list": [0] * 8,
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_masked_input_of_another_shape(vector: Any) -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, spoiling("MaskedInput", lambda shown, reply: unsized(reply, vector)))
    check_means(members, found)
    assert found.excluded == ((CULPRIT, "its masked input is not of the agreed shape"),)


def unsized(reply: SecureMessage, vector: Any) -> SecureMessage:
    if isinstance(vector, list):
        vector = ListWithBytes(vector)
    return replace(reply, masked=vector)


class ListWithBytes(list[int]):
    """Not an array, but it can be counted."""

    nbytes = 32


def test_vector_beside_another_message_does_not_matter() -> None:
    members = Members(FIVE_PLAN, FIVE)
    vector = np.ones(8, dtype=np.uint32)
    found, _ = collect(members, spoiling("Confirmation", lambda shown, reply: replace(reply, masked=vector)))
    check_means(members, found)


def test_confirmation_that_nobody_believes() -> None:
    """Five, and four must confirm: one wrong tag each is too few for nobody."""
    members = Members(FIVE_PLAN, FIVE)

    def change(shown: Any, reply: SecureMessage) -> Message:
        return with_body(reply, tags=tuple(replace(item, tag=bytes(16)) for item in shown.tags))

    found, _ = collect(members, spoiling("Confirmation", change))
    check_means(members, found)
    assert found.excluded == ()


def wrong_shares(shown: Any, reply: SecureMessage) -> Message:
    return with_body(reply, shares=tuple(RevealedShare(item.position, bytes(64)) for item in shown.shares))


class Shares(Link):
    """The member at the first position, whose share of each secret is used first, reveals wrong ones.

    Args:
        participants: See :class:`Link`.
        silent: Whether the last member reveals nothing, so that no share is to spare.
    """

    def __init__(self, members: Members, *, silent: bool = False) -> None:
        super().__init__(members.participants, self._meddle_with)
        self._members = members
        self._silent = silent

    @property
    def liar(self) -> str:
        return groups_of(self._members, self)[0][0]

    def _meddle_with(self, client: str, message: Message, answer: Answer) -> Message | None:
        reply = answer()
        if kind_of(message) != "Confirmations" or client not in groups_of(self._members, self)[0]:
            return reply
        if self._silent and client == groups_of(self._members, self)[0][-1]:
            return None
        assert isinstance(reply, SecureMessage)
        return wrong_shares(MESSAGES.decode(reply.body), reply) if client == self.liar else reply


def test_wrong_shares_are_found_out_and_disputed() -> None:
    members = Members(FIVE_PLAN, FIVE)
    link = Shares(members)
    found, _ = collect(members, link)
    check_means(members, found)
    (record,) = found.records
    assert (record.survivors, record.fault, record.blamed) == (FIVE, "", False)
    assert record.disputes == tuple((owner, link.liar) for owner in FIVE)


def test_wrong_shares_with_none_to_spare_cost_the_group_and_are_blamed() -> None:
    members = Members(plan_for(10), TEN)
    found, _ = collect(members, Shares(members, silent=True))
    check_means(members, found)
    (lost,) = [record for record in found.records if not record.survivors]
    assert (lost.fault, lost.blamed) == ("share", True)


def test_missing_share_is_no_reply() -> None:
    members = Members(FIVE_PLAN, FIVE)
    change = spoiling("UnmaskingShares", lambda shown, reply: with_body(reply, shares=shown.shares[1:]))
    found, _ = collect(members, change)
    check_means(members, found)
    assert [record.survivors for record in found.records] == [FIVE]


# --- who answers without being asked


class Crowd(Link):
    """Everybody's reply twice, and somebody's who was not asked in between."""

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float
    ) -> Iterator[tuple[str, Message | str]]:
        for client, reply in super().deliver(requests, deadline_seconds=deadline_seconds):
            yield client, reply
            yield "eve", reply
            yield client, "Flower error 2"
            yield client, reply


def test_replies_that_nobody_asked_for_do_not_count() -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, _ = collect(members, Crowd(members.participants))
    check_means(members, found)
    assert [group.members for group in found.groups] == [FIVE]
    assert found.excluded == ()


def test_client_that_is_not_on_the_roster_is_not_asked() -> None:
    members = Members(FIVE_PLAN, FIVE)
    exchange, link = exchange_of(members)
    found = exchange.group_means(request_of(members), (*FIVE, "eve"))
    assert [group.members for group in found.groups] == [FIVE]
    assert found.excluded == (("eve", "not on the roster"),)
    assert link.sent_to("eve") == []


def test_client_with_another_key_than_the_roster_says() -> None:
    members = Members(plan_for(5, "secure_aggregation.max_left_out=0.2"), FIVE)
    stranger = Members(members.plan, [CULPRIT])
    stranger.keys = type(stranger.keys)("small", [CULPRIT], b"s" * 32)
    # its own roster holds its key, so it starts; it signs for another roster, and with another key
    members.participants[CULPRIT] = stranger.make(CULPRIT)
    found, _ = collect(members)
    check_means(members, found)
    assert found.excluded == ((CULPRIT, "refused: protocol_broken"),)


# --- too few, or too many left out


@pytest.mark.parametrize(("left_out", "opened"), [(2, True), (3, False)])
def test_share_that_may_be_left_out(left_out: int, opened: bool) -> None:
    plan = secure_plan("rounds.cohort_size=8", "secure_aggregation.max_left_out=0.25")
    names = names_of(8)
    members = Members(plan, names)
    when = dict.fromkeys(names[:left_out], ("CommitmentList", False))
    found, _ = collect(members, Falling(members.participants, when))
    assert found.vanished == names[:left_out]
    if opened:
        check_means(members, found)
        assert found.excluded == tuple((name, SILENT) for name in names[:left_out])
        return
    assert (found.groups, found.records) == ((), ())
    assert dict(found.excluded) == {
        **dict.fromkeys(names[:left_out], SILENT),
        **dict.fromkeys(names[left_out:], "its group was not opened: 3 of 8 clients did not advertise keys"),
    }


@pytest.mark.parametrize(("there", "opened"), [(4, True), (3, False)])
def test_fewest_that_are_grouped(there: int, opened: bool) -> None:
    names = names_of(8)
    members = Members(secure_plan("rounds.cohort_size=8", "secure_aggregation.min_cohort=4"), names)
    when = dict.fromkeys(names[there:], ("TrainRequest", False))
    found, _ = collect(members, Falling(members.participants, when))
    assert bool(found.groups) is opened
    if not opened:
        reasons = dict(found.excluded)
        assert reasons[names[0]] == "its group was not opened: 3 clients are there, and 4 are needed"
        assert reasons[names[7]] == SILENT


def test_nobody_answers() -> None:
    members = Members(FIVE_PLAN, FIVE)
    found, link = collect(members, lambda client, message, answer: None)
    assert (found.groups, found.records, found.counts.size) == ((), (), 0)
    assert found.excluded == tuple((name, SILENT) for name in FIVE)
    assert len(link.deadlines) == 1


# --- poisoners: confined to their group


def adding(noise: Any) -> Meddling:
    """The culprit's masked input with ``noise`` on it: masks are linear, so it lands on the sum."""
    return spoiling("MaskedInput", lambda shown, reply: replace(reply, masked=reply.masked + noise))  # type: ignore[operator]


def check_only_the_culprits_group_is_lost(members: Members, found: Collected, fault: str, reason: str) -> GroupRecord:
    check_means(members, found)
    (lost,) = [record for record in found.records if not record.survivors]
    assert CULPRIT in lost.members
    assert (lost.fault, lost.blamed) == (fault, True)
    assert found.excluded == tuple((name, f"its group was not opened: {reason}") for name in lost.members)
    assert len(found.groups) == len(found.records) - 1
    return lost


def test_garbled_masked_input_loses_its_group_only() -> None:
    members = Members(plan_for(15), names_of(15))
    noise = np.random.default_rng(0).integers(0, 1 << 32, 8, dtype=np.uint32)
    found, _ = collect(members, adding(noise))
    check_only_the_culprits_group_is_lost(members, found, "range", "an opened number is out of range")


def test_update_that_is_too_long_loses_its_group_only() -> None:
    """Every coordinate as large as one may be, each in its range: together eight times the norm."""
    plan = plan_for(10, "model.inputs=[99]")
    members = Members(plan, TEN, examples=lambda place: make_examples(12, regression=True, inputs=99, seed=place))
    found, _ = collect(members, adding(np.full(100, layout_of(plan).largest, dtype=np.uint32)))
    reason = "an opened mean is longer than clipped updates can make it"
    check_only_the_culprits_group_is_lost(members, found, "norm", reason)


def test_client_that_was_given_another_model_is_not_summed_with_the_others() -> None:
    members = Members(plan_for(5, "secure_aggregation.max_left_out=0.2"), FIVE)

    def other_model(client: str, message: Message, answer: Answer) -> Message:
        if client == CULPRIT and isinstance(message, TrainRequest):
            other = request_of(members, np.ones(8, dtype=np.float32))
            return members.participants[client].answer(other)
        return answer()

    found, _ = collect(members, other_model)
    check_means(members, found)
    assert found.excluded == ((CULPRIT, "its nonce does not open its commitment"),)


# --- weights and metrics


def test_weights_are_counted_up_to_the_most_one_may_have() -> None:
    sizes = [3, 12, 7, 40, 1]
    plan = plan_for(5, "secure_aggregation.max_weight=10")
    members = Members(plan, FIVE, examples=lambda place: make_examples(sizes[place], regression=True, inputs=7))
    found, _ = collect(members)
    (group,) = found.groups
    weights = [min(size, 10) for size in sizes]
    assert group.votes == sum(weights) == 31
    # a weighted update is rounded once, so of 31 steps only five are off
    off = off_by(layout_of(plan), weight=sum(weights) / len(weights))
    np.testing.assert_allclose(group.mean, members.mean_of(FIVE, weights), rtol=0, atol=off)
    assert np.abs(members.mean_of(FIVE, weights) - members.mean_of(FIVE)).max() > 100 * off


def test_weights_of_those_who_are_left() -> None:
    plan = plan_for(5, "secure_aggregation.max_weight=10")
    sizes = [3, 12, 7, 40, 1]
    members = Members(plan, FIVE, examples=lambda place: make_examples(sizes[place], regression=True, inputs=7))
    found, _ = collect(members, Falling(members.participants, {FIVE[3]: ("Deliveries", True)}))
    assert [group.votes for group in found.groups] == [3 + 10 + 7 + 1]


def counts_of(members: Members, name: str) -> Any:
    """What that client adds, computed at the client."""
    return members.make(name)._counts_for(request_of(members))


@pytest.mark.parametrize("gone", [None, "Deliveries", "SurvivorSet"])
def test_metric_counts_are_the_sums_of_the_clients_own(gone: str | None) -> None:
    members = Members(plan_for(10, "evaluation.federated_every_rounds=1"), TEN)
    when = {CULPRIT: (gone, False)} if gone else {}
    found, _ = collect(members, Falling(members.participants, when))
    check = [name for group in found.groups for name in group.members]
    assert sorted(check) == [name for name in TEN if name != CULPRIT or gone != "Deliveries"]
    expected = sum(counts_of(members, name) for name in check)
    np.testing.assert_array_equal(found.counts, expected)
    assert found.counts.dtype == np.int64
    queries = [
        len(support_and_query(one._examples, one._split_key(), MAX_QUERIES)[1])
        for one in (members.participants[name] for name in check)
    ]
    assert found.counts[0] == sum(queries), "all of them, and no example to learn from"


def test_rounds_between_have_no_counts() -> None:
    members = Members(plan_for(5, "evaluation.federated_every_rounds=2"), FIVE)
    assert collect(members)[0].counts.size == 0
    assert collect(members, round_number=2, model=np.ones(8, dtype=np.float32))[0].counts.size == 6


def test_counts_and_weights_of_a_lost_group_are_lost_with_it() -> None:
    plan = plan_for(10, "evaluation.federated_every_rounds=1", "secure_aggregation.max_weight=16")
    members = Members(plan, TEN)
    noise = np.zeros(8 + 1 + 6, dtype=np.uint32)
    noise[8] = 1 << 20  # a weight that nobody can have
    found, _ = collect(members, adding(noise))
    (lost,) = [record for record in found.records if not record.survivors]
    assert (lost.fault, lost.blamed) == ("range", True)
    (group,) = found.groups
    np.testing.assert_array_equal(found.counts, sum(counts_of(members, name) for name in group.members))


def test_vectors_are_not_printed() -> None:
    found, _ = collect(Members(FIVE_PLAN, FIVE))
    assert "array" not in repr(found)
