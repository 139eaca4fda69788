"""Dropouts and garbled messages: a group's sum is bitwise that of its survivors, or a typed error; never a third thing.

Each test also says when it must be a sum, so that a protocol that always fails does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secure_round import SecureRound, names_of, random_vectors, terms_of
from testudo_common.errors import PeerError, ProtocolError
from testudo_common.secagg.client import Shared
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.messages import (
    MESSAGES,
    Advertisement,
    Commitment,
    Confirmation,
    Reply,
    SharedKeys,
    UnmaskingShares,
)
from testudo_common.secagg.server import Sum
from testudo_common.secagg.terms import Terms

STEPS = ("commit", "advertise", "share_keys", "mask", "confirm", "unmask")
NEVER = len(STEPS)
MIN_GROUP = 3
Names = tuple[str, ...]
Drops = Mapping[str, int]  # client id -> index of the first step that it does not answer


@dataclass(frozen=True)
class Outcome:
    """How a round ended: each group's members in the order of their positions, and its sum or its error."""

    groups: tuple[tuple[Names, Sum | ProtocolError], ...]


def play(secure_round: SecureRound, drops: Drops) -> Outcome:
    """A whole round. One that fails before there are groups has none."""
    members: list[Names] = []
    try:
        for index, step in enumerate(STEPS):
            getattr(secure_round, step)([name for name, first in drops.items() if first <= index])
            if step == "advertise":
                members = [tuple(member.client_id for member in group.members) for group in secure_round.groups]
    except ProtocolError:
        return Outcome(())
    return Outcome(tuple(zip(members, secure_round.sums, strict=True)))


def check_sums(secure_round: SecureRound, outcome: Outcome) -> None:
    """The invariant: a sum is that of who is named as survivor, and they are members who had masked."""
    for members, result in outcome.groups:
        if isinstance(result, ProtocolError):
            continue
        assert isinstance(result, Sum)
        assert len(result.survivors) >= secure_round.terms.parameters.min_group
        assert set(result.survivors) <= set(members)
        np.testing.assert_array_equal(result.total, secure_round.plain_sum(result.survivors))


def check_nobody_is_blamed(secure_round: SecureRound, outcome: Outcome) -> None:
    """Whoever drops out has done nothing wrong."""
    assert not secure_round.faults
    for _, result in outcome.groups:
        assert isinstance(result, ProtocolError) or not (result.disputes or result.liars or result.faults)


# (a) Small cohorts in one group, exhaustively.


def expected_survivors(names: Names, drops: Drops) -> Names | None:
    """Whose sum it is; None where the rules allow none.

    Everybody is everybody's neighbour, so all that counts is how many stay to the end: ``min_group``, and all but one
    of those who had advertised.
    """
    here = [[name for name in names if drops.get(name, NEVER) > index] for index in range(NEVER)]
    advertised, masked, stayed = here[1], here[3], here[5]
    return tuple(masked) if len(stayed) >= max(MIN_GROUP, len(advertised) - 1) else None


def check_schedules(count: int, schedules: Iterable[tuple[int, ...]]) -> int:
    """Play each schedule (the step at which each client drops out); the number of sums."""
    names = tuple(names_of(count))
    terms, vectors = terms_of(names, min_group=MIN_GROUP), random_vectors(names, seed=count)
    sums = 0
    for schedule in schedules:
        drops = dict(zip(names, schedule, strict=True))
        secure_round = SecureRound(terms, vectors)
        outcome = play(secure_round, drops)
        check_sums(secure_round, outcome)
        found = [result.survivors for _, result in outcome.groups if isinstance(result, Sum)]
        expected = expected_survivors(names, drops)
        assert found == ([] if expected is None else [expected]), schedule
        check_nobody_is_blamed(secure_round, outcome)
        sums += len(found)
    return sums


def test_every_schedule_of_three() -> None:
    assert check_schedules(3, product(range(NEVER + 1), repeat=3)) == 1  # three are needed from first to last


def test_every_schedule_of_four() -> None:
    one_drops_at_some_step_or_nobody = 4 * 6 + 1
    assert check_schedules(4, product(range(NEVER + 1), repeat=4)) == one_drops_at_some_step_or_nobody


def subsets_at_one_step(count: int) -> Iterator[tuple[int, ...]]:
    for step in range(NEVER):
        for subset in product((False, True), repeat=count):
            yield tuple(step if drops else NEVER for drops in subset)


def test_every_subset_of_five_at_every_step() -> None:
    early, late = (1 + 5 + 10) * 2, (1 + 5) * 4  # two may go before there are members, one afterwards
    assert check_schedules(5, subsets_at_one_step(5)) == early + late


def two_at_any_steps(count: int) -> Iterator[tuple[int, ...]]:
    for pair in combinations(range(count), 2):
        for steps in product(range(NEVER), repeat=2):
            schedule = [NEVER] * count
            for client, step in zip(pair, steps, strict=True):
                schedule[client] = step
            yield tuple(schedule)


def test_any_two_of_five_at_any_two_steps() -> None:
    one_before_there_are_members = 6 * 6 - 4 * 4
    assert check_schedules(5, two_at_any_steps(5)) == 10 * one_before_there_are_members


def test_random_schedules_of_five() -> None:
    drawn = np.random.default_rng(5).choice(NEVER + 1, size=(150, 5), p=[0.08] * 6 + [0.52])
    assert check_schedules(5, (tuple(map(int, schedule)) for schedule in drawn)) > 20


# (b) A cohort of fifty, in one group and in several.


def allowed_survivors(members: Names, graph: Graph, min_group: int, drops: Drops) -> Names | None:
    """Whose sum it is, in any graph; None where the rules allow none. Reckons with sets alone."""
    near = {place: set(graph.neighbours(place)) for place in range(len(members))}

    def answering(step: str, candidates: set[int], told_of: set[int]) -> set[int]:
        """Who has not dropped out, and sees enough holders of its secrets among those it is told of."""
        return {
            place
            for place in candidates
            if drops.get(members[place], NEVER) > STEPS.index(step)
            and 1 + len(near[place] & told_of) >= graph.threshold
        }

    everybody = set(near)
    shared = answering("share_keys", everybody, everybody)
    masked = answering("mask", shared, shared)
    confirmed = answering("confirm", masked, masked)
    revealing = answering("unmask", confirmed, confirmed)
    needed = {place for place in shared if place in masked or near[place] & masked}
    if min(len(shared), len(masked)) < min_group:
        return None
    if any(len((near[place] | {place}) & revealing) < graph.threshold for place in needed):
        return None
    return tuple(sorted(members[place] for place in masked))


def graph_in(terms: Terms, members: Names) -> Graph:
    return graph_of(len(members), terms.parameters.corruption, terms.parameters.dropout)


def check_against_the_rules(secure_round: SecureRound, outcome: Outcome, drops: Drops) -> int:
    """Without garbled messages: sums exactly where, and of whom, the rules say. The number of sums."""
    check_sums(secure_round, outcome)
    terms = secure_round.terms
    for members, result in outcome.groups:
        expected = allowed_survivors(members, graph_in(terms, members), terms.parameters.min_group, drops)
        assert (result.survivors if isinstance(result, Sum) else None) == expected, result
    check_nobody_is_blamed(secure_round, outcome)
    return sum(isinstance(result, Sum) for _, result in outcome.groups)


FIFTY = tuple(names_of(50))
VECTORS_OF_FIFTY = random_vectors(FIFTY, seed=50)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def rates_and_drops(draw: st.DrawFn) -> tuple[float, dict[str, int]]:
    """A rate of dropouts, and about as many; sometimes a few too many."""
    rate, fewest, most = draw(st.sampled_from([(0.05, 0, 4), (0.25, 6, 16), (0.45, 16, 28)]))
    steps = st.integers(0 if most < 20 else 1, NEVER - 1)
    return rate, draw(st.dictionaries(st.sampled_from(FIFTY), steps, min_size=fewest, max_size=most))


@given(rates_and_drops())
@settings(unhurried, max_examples=4)
def test_fifty_in_one_group(case: tuple[float, dict[str, int]]) -> None:
    rate, drops = case
    secure_round = SecureRound(terms_of(FIFTY, min_group=MIN_GROUP, dropout=rate), VECTORS_OF_FIFTY, saved=True)
    outcome = play(secure_round, drops)
    check_against_the_rules(secure_round, outcome, drops)
    missing = sum(first == 1 for first in drops.values())
    begun = sum(drops.get(name, NEVER) > 0 for name in FIFTY)
    assert len(outcome.groups) == (2 * missing <= begun)


@pytest.mark.parametrize(("rate", "spared"), [(0.05, 2), (0.25, 12), (0.45, 22)])
def test_as_many_of_fifty_as_may_drop_out(rate: float, spared: int) -> None:
    """Spread over all steps once there are members, they leave a sum."""
    drops = {name: 2 + number % 4 for number, name in enumerate(FIFTY[:spared])}
    secure_round = SecureRound(terms_of(FIFTY, min_group=MIN_GROUP, dropout=rate), VECTORS_OF_FIFTY, saved=True)
    assert check_against_the_rules(secure_round, play(secure_round, drops), drops) == 1


@given(rates_and_drops(), st.integers(5, 12))
@settings(unhurried, max_examples=4)
def test_fifty_in_groups(case: tuple[float, dict[str, int]], group_size: int) -> None:
    rate, drops = case
    rate = min(rate, 0.25)  # groups of five withstand no more; beyond it, some of them end in errors
    terms = terms_of(FIFTY, min_group=MIN_GROUP, group_size=group_size, dropout=rate)
    secure_round = SecureRound(terms, VECTORS_OF_FIFTY, saved=True)
    outcome = play(secure_round, drops)
    check_against_the_rules(secure_round, outcome, drops)
    missing = sum(first == 1 for first in drops.values())
    begun, advertised = (sum(drops.get(name, NEVER) > step for name in FIFTY) for step in (0, 1))
    assert len(outcome.groups) == (advertised // group_size if 2 * missing <= begun else 0)


def test_one_groups_end_is_not_the_others() -> None:
    """All but two of one group drop out; the other groups open."""
    secure_round = SecureRound(terms_of(FIFTY, min_group=MIN_GROUP, group_size=8), VECTORS_OF_FIFTY)
    secure_round.commit()
    secure_round.advertise()
    lost = [member.client_id for member in secure_round.groups[2].members][2:]
    for step in STEPS[2:]:
        getattr(secure_round, step)(lost)
    assert [isinstance(result, Sum) for result in secure_round.sums] == [True, True, False, True, True, True]


# Garbled messages.

KIND_OF = {
    "commit": Commitment,
    "advertise": Advertisement,
    "share_keys": SharedKeys,
    "confirm": Confirmation,
    "unmask": UnmaskingShares,
}


@dataclass(frozen=True)
class Garble:
    """One changed byte of the message of one step: its place as a share of the length, and what it is XORed with."""

    step: str
    place: float
    mask: int

    def apply(self, data: bytes) -> bytes:
        garbled = bytearray(data)
        garbled[min(int(self.place * len(data)), len(data) - 1)] ^= self.mask
        return bytes(garbled)


class GarbledRound(SecureRound):
    """A round in which some clients' messages arrive with a byte changed.

    What cannot be decoded, or is of another kind than the step's, counts as not sent; the others are left to the
    protocol. A changed byte of a masked vector is a change of that client's own contribution, and goes into
    ``vectors``.
    """

    def __init__(self, garbles: Mapping[str, Garble], *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.garbles = dict(garbles)

    def _messages(self) -> dict[str, Any]:
        found = {}
        for name, message in super()._messages().items():
            garble = self.garbles.get(name)
            if garble is None or KIND_OF.get(garble.step) is not type(message):
                found[name] = message
                continue
            try:
                arrived = MESSAGES.decode(garble.apply(MESSAGES.encode(message)))
            except ProtocolError:
                continue
            if isinstance(arrived, KIND_OF[garble.step]):
                found[name] = arrived
        return found

    def _clients_step(self, without: Any) -> None:
        masking = {name for name in self.given if isinstance(self.states[name], Shared)}
        super()._clients_step(without)
        for name in masking & set(self.sent):
            garble = self.garbles.get(name)
            if garble is not None and garble.step == "mask":
                vector = self.sent[name].vector
                assert vector is not None
                garbled = np.frombuffer(garble.apply(vector.tobytes()), dtype=np.uint32)
                self.vectors[name] = self.vectors[name] + (garbled - vector)
                self.sent[name] = Reply(self.sent[name].message, garbled)


garbled_messages = st.builds(
    Garble, st.sampled_from(STEPS), st.floats(0, 1, allow_nan=False, exclude_max=True), st.integers(1, 255)
)


def check_garbled(secure_round: GarbledRound, outcome: Outcome, drops: Drops) -> None:
    """The invariant, no blame on the innocent, and a sum wherever enough are left in spite of all."""
    check_sums(secure_round, outcome)
    garbles = secure_round.garbles
    assert {fault.client_id for fault in secure_round.faults if isinstance(fault, PeerError)} <= set(garbles)
    terms = secure_round.terms
    cost = dict.fromkeys(STEPS, 1) | {"mask": 0, "unmask": 2}
    for members, result in outcome.groups:
        # A sealed share that cannot be opened costs its receiver, and its sender may drop out as well; a garbled mask
        # costs nobody; to find a wrong share takes a right one more than are needed.
        lost = sum((name in drops) + (cost[garbles[name].step] if name in garbles else 0) for name in members)
        graph = graph_in(terms, members)
        if len(members) - lost >= max(graph.threshold, terms.parameters.min_group):
            assert isinstance(result, Sum), result
        if isinstance(result, Sum):
            wrong = {name for name, garble in garbles.items() if garble.step == "unmask"}
            if len(wrong) < 2:  # two wrong shares can, by chance or by design, give the right secret and accuse a third
                assert {holder for _, holder in result.disputes} | set(result.liars) <= wrong
            assert {fault.client_id for fault in result.faults} <= wrong


@given(
    st.dictionaries(st.sampled_from(FIFTY), st.integers(0, NEVER - 1), max_size=8),
    st.dictionaries(st.sampled_from(FIFTY), garbled_messages, min_size=1, max_size=4),
)
@settings(unhurried, max_examples=4)
def test_garbled_messages_among_fifty(drops: dict[str, int], garbles: dict[str, Garble]) -> None:
    terms = terms_of(FIFTY, min_group=MIN_GROUP, dropout=0.3)
    secure_round = GarbledRound(garbles, terms, VECTORS_OF_FIFTY, saved=True)
    check_garbled(secure_round, play(secure_round, drops), drops)


NINE = FIFTY[:9]


@given(
    st.dictionaries(st.sampled_from(NINE), st.integers(0, NEVER - 1), max_size=1),
    st.dictionaries(st.sampled_from(NINE), garbled_messages, min_size=1, max_size=4),
    st.sampled_from([4, 9]),
)
@settings(unhurried, max_examples=40)
def test_garbled_messages_among_nine(drops: dict[str, int], garbles: dict[str, Garble], group_size: int) -> None:
    terms = terms_of(NINE, min_group=MIN_GROUP, group_size=group_size, dropout=0.3)
    secure_round = GarbledRound(garbles, terms, {name: VECTORS_OF_FIFTY[name] for name in NINE}, saved=True)
    check_garbled(secure_round, play(secure_round, drops), drops)


@pytest.mark.parametrize("step", STEPS)
def test_a_garbled_message_of_one_of_six(step: str) -> None:
    """Each step's message of one of six, garbled all over; the sum opens all the same."""
    names = tuple(names_of(6))
    terms, vectors = terms_of(names, min_group=MIN_GROUP), random_vectors(names)
    for place in range(23):
        garbles = {names[place % 6]: Garble(step, place / 23, 1 << place % 8)}
        secure_round = GarbledRound(garbles, terms, vectors)
        outcome = play(secure_round, {})
        check_garbled(secure_round, outcome, {})
        [(_, result)] = outcome.groups
        assert isinstance(result, Sum)


class GarbledToClients(SecureRound):
    """A round in which one client is told something with a byte changed, at one step."""

    def __init__(self, victim: str, garble: Garble, *args: Any) -> None:
        super().__init__(*args)
        self.victim, self.garble, self.at = victim, garble, STEPS.index(garble.step)

    def _clients_step(self, without: Any) -> None:
        self.at -= 1
        if self.at == 0 and self.victim in self.given:
            data = self.garble.apply(MESSAGES.encode(self.given[self.victim]))
            try:
                self.given[self.victim] = MESSAGES.decode(data)
            except ProtocolError:
                del self.given[self.victim]
        super()._clients_step(without)


@given(st.builds(Garble, st.sampled_from(STEPS[1:]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)))
@settings(unhurried, max_examples=40)
def test_a_garbled_word_to_one_client_costs_no_more_than_that_client(garble: Garble) -> None:
    names = tuple(names_of(6))
    secure_round = GarbledToClients(names[0], garble, terms_of(names), random_vectors(names))
    outcome = play(secure_round, {})
    check_sums(secure_round, outcome)
    [(_, result)] = outcome.groups
    assert isinstance(result, Sum)
    assert set(result.survivors) >= set(names[1:])
    assert not result.liars
    assert not result.disputes
    assert set(secure_round.refused) <= {names[0]}


# (c) A group too large for everybody to be everybody's neighbour.


def test_eighty_in_a_sparse_graph() -> None:
    names = tuple(names_of(80))
    terms = terms_of(names)
    graph = graph_in(terms, names)
    assert graph.degree < len(names) - 1
    drops = {names[0]: 2, names[20]: 3, names[40]: 4, names[60]: 5}  # 5 %
    secure_round = SecureRound(terms, random_vectors(names), saved=True)
    assert check_against_the_rules(secure_round, play(secure_round, drops), drops) == 1


def test_eighty_of_whom_more_drop_out_than_agreed() -> None:
    """Clients with too few neighbours left refuse one by one; the sum is right, or there is none."""
    names = tuple(names_of(80))
    terms = terms_of(names)
    rng = np.random.default_rng(80)
    for dropped in (16, 25):
        drops = {str(name): int(rng.integers(2, NEVER)) for name in rng.choice(names, dropped, replace=False)}
        secure_round = SecureRound(terms, random_vectors(names))
        check_against_the_rules(secure_round, play(secure_round, drops), drops)
