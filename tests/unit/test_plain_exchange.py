"""The exchange in the open: bad and missing replies are set aside one by one, and every client is one vote."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from helpers import make_plan, request_for
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainReply
from testudo_server.exchange import Collected, ExchangeCost, GroupMean, PlainExchange
from testudo_server.robust import aggregate

PLAN = make_plan()
REQUEST = request_for(PLAN)


def reply(**changed: Any) -> TrainReply:
    good = TrainReply(PLAN.digest, 1, 0, REQUEST.model_digest, np.ones(8, dtype=np.float32))
    return dataclasses.replace(good, **changed)


class Answers:
    """A transport with the same answers for everyone who asks."""

    def __init__(self, answers: Mapping[str, Message | str]) -> None:
        self._answers = answers

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float
    ) -> Iterator[tuple[str, Message | str]]:
        self.delivered = dict(requests), deadline_seconds
        yield from self._answers.items()


BAD = {
    "NaN": (reply(update=np.full(8, np.nan, dtype=np.float32)), "update not finite"),
    "infinite": (reply(update=np.full(8, np.inf, dtype=np.float32)), "update not finite"),
    "too short": (reply(update=np.ones(7, dtype=np.float32)), "update shape (7,) instead of (8,)"),
    "too long": (reply(update=np.ones(9, dtype=np.float32)), "update shape (9,) instead of (8,)"),
    "float64": (reply(update=np.ones(8)), "update not a float32 array"),
    "stale round": (reply(round=0), "answered another request"),
    "round to come": (reply(round=2), "answered another request"),
    "other attempt": (reply(attempt=1), "answered another request"),
    "other plan": (reply(plan_digest="ab" * 32), "answered another request"),
    "other model": (reply(model_digest="ab" * 32), "answered another request"),
    "refusal": (Refusal(PLAN.digest, 1, 0, RefusalReason.PRIVACY_SPENT), "refused: privacy_spent"),
    "refusal of another round": (Refusal("0" * 64, 0, 0, RefusalReason.INTERNAL), "refused: internal"),
    "its own request": (REQUEST, "not a reply"),
    "step of secure aggregation": (SecureMessage(PLAN.digest, 1, 0, b"body"), "not a reply"),
    "error": ("Flower error 2", "Flower error 2"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_reply_is_set_aside_and_the_others_count(bad: Message | str, reason: str) -> None:
    answers = Answers({"a": reply(), "b": bad, "c": reply(update=np.zeros(8, dtype=np.float32))})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b", "c"))
    assert [group.members for group in collected.groups] == [("a",), ("c",)]
    np.testing.assert_array_equal(collected.groups[0].mean, np.ones(8))
    np.testing.assert_array_equal(collected.groups[1].mean, np.zeros(8))
    assert collected.excluded == (("b", reason),)


def test_missing_reply_is_set_aside() -> None:
    answers = Answers({"a": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b"))
    assert collected.excluded == (("b", "no reply before the deadline"),)
    assert answers.delivered == ({"a": REQUEST, "b": REQUEST}, 5.0)


def test_reply_of_somebody_who_was_not_asked_does_not_count() -> None:
    answers = Answers({"a": reply(), "eve": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a",))
    assert [group.members for group in collected.groups] == [("a",)]
    assert collected.excluded == ()


def test_every_client_is_one_vote_and_no_group_is_kept() -> None:
    answers = Answers({"a": reply(), "b": reply()})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, ("a", "b"))
    assert [group.votes for group in collected.groups] == [1, 1]
    assert (collected.records, collected.vanished, len(collected.counts)) == ((), (), 0)
    assert PlainExchange.max_attempts == 1


HEADER_BYTES = 6 + len('{"attempt":0,"model_digest":"","plan_digest":"","round":1}') + 2 * 64
REFUSAL_BYTES = 6 + len('{"attempt":0,"plan_digest":"","reason":"internal","round":1}') + 64


def test_bytes_are_those_of_every_message_that_was_sent_or_came() -> None:
    """Also of a reply that is of no use; a reason why there is none has no bytes."""
    refusal = Refusal(PLAN.digest, 1, 0, RefusalReason.INTERNAL)
    useless = reply(update=np.full(8, np.nan, dtype=np.float32))
    answers = Answers({"a": reply(), "b": refusal, "c": useless, "d": "Flower error 2"})
    collected = PlainExchange(answers, deadline_seconds=5.0, max_norm=10.0).group_means(
        REQUEST, ("a", "b", "c", "d", "e")
    )
    with_vector = HEADER_BYTES + 8 * 4
    asked = with_vector + len('"clip":null,')  # a reply has none
    answered = with_vector + len(',"statement":null')  # a request has none
    assert collected.cost == ExchangeCost(5 * asked, 2 * answered + REFUSAL_BYTES)


def test_costs_add_up() -> None:
    assert ExchangeCost(1, 2, 0.5) + ExchangeCost(10, 20, 0.25) == ExchangeCost(11, 22, 0.75)


# --- updates that are added up as they come

COHORT = ("a", "b", "c", "d")
UPDATES = {
    client: np.random.default_rng(place).normal(size=8).astype(np.float32) for place, client in enumerate(COHORT)
}


def added_up(answers: Mapping[str, Message | str]) -> Collected:
    exchange = PlainExchange(Answers(answers), deadline_seconds=5.0, max_norm=10.0, sum_only=True)
    return exchange.group_means(REQUEST, COHORT)


def test_sum_is_of_the_same_updates_as_are_kept_otherwise() -> None:
    answers = {client: reply(update=UPDATES[client]) for client in COHORT[:3]}
    answers["c"] = reply(update=np.full(8, np.nan, dtype=np.float32))
    kept = PlainExchange(Answers(answers), deadline_seconds=5.0, max_norm=10.0).group_means(REQUEST, COHORT)
    found = added_up(answers)
    assert (found.groups, found.excluded, found.bad, found.cost) == (kept.groups, kept.excluded, kept.bad, kept.cost)
    assert [group.mean for group in found.groups] == [None, None]
    assert kept.mean is None and found.mean is not None
    expected = (UPDATES["a"].astype(np.float64) + UPDATES["b"]) / 2
    np.testing.assert_allclose(found.mean, expected, rtol=2**-23)
    one, other = (aggregate(PLAN, collected, 0) for collected in (found, kept))
    np.testing.assert_allclose(one.vector, other.vector, rtol=2**-23)
    np.testing.assert_array_equal(one.influence, other.influence)


def test_sum_does_not_depend_on_who_answers_first() -> None:
    found = [
        added_up({client: reply(update=UPDATES[client]) for client in order})
        for order in itertools.permutations(COHORT)
    ]
    assert len({one.mean.tobytes() for one in found if one.mean is not None}) == 1
    assert len({one.groups for one in found}) == 1 and found[0].groups[0].members == ("a",)


def test_no_update_is_held_when_it_has_been_added_up() -> None:
    """Else memory would grow with the cohort."""
    alive: list[weakref.ref[Any]] = []

    class OneByOne:
        def deliver(self, requests: Mapping[str, Message], *, deadline_seconds: float) -> Any:
            for client in requests:
                assert sum(one() is not None for one in alive) <= 1
                update = UPDATES[client].copy()
                alive.append(weakref.ref(update))
                answer = reply(update=update)
                del update
                yield client, answer
                del answer

    found = PlainExchange(OneByOne(), deadline_seconds=5.0, max_norm=10.0, sum_only=True).group_means(REQUEST, COHORT)
    assert len(found.groups) == len(alive) == 4


def test_where_no_update_came_there_is_no_mean() -> None:
    found = added_up({"a": "Flower error 2"})
    assert (found.groups, found.mean) == ((), None)


def test_a_second_reply_of_one_client_does_not_count() -> None:
    class Twice:
        def deliver(self, requests: Mapping[str, Message], *, deadline_seconds: float) -> Any:
            yield "a", reply(update=UPDATES["a"])
            yield "a", reply(update=UPDATES["b"])

    found = PlainExchange(Twice(), deadline_seconds=5.0, max_norm=10.0, sum_only=True).group_means(REQUEST, ("a",))
    assert [group.members for group in found.groups] == [("a",)]
    np.testing.assert_allclose(found.mean, UPDATES["a"], rtol=2**-23)


def test_updates_are_not_printed() -> None:
    assert "array" not in repr(GroupMean(("a",), np.ones(2, dtype=np.float32)))
