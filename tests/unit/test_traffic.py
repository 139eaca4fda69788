"""What a preview says would travel is, byte for byte, what does travel."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import make_participant, make_plan, request_for
from secure_federation import NOISY, Link, Members, exchange_of, names_of, request_of, secure_plan
from testudo_common.learning.learner import Learner
from testudo_common.traffic import legs_of
from testudo_common.wire import Message, SecureMessage, TrainReply, encode


def kind(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize(
    ("settings", "clients", "round_number"),
    [
        ((), 4, 1),
        (("secure_aggregation.max_weight=8", "rounds.count=200"), 4, 123),
        (("rounds.cohort_size=9",), 9, 2),
        (("evaluation.federated_every_rounds=2", *NOISY, "evaluation.federated_noise_multiplier=3.0"), 4, 2),
        (("evaluation.federated_every_rounds=2", *NOISY, "evaluation.federated_noise_multiplier=3.0"), 4, 3),
        (("rounds.cohort_size=70", "secure_aggregation.group_size=70", "secure_aggregation.min_cohort=4"), 70, 1),
    ],
    ids=["one group", "weights, many rounds", "two groups", "scores", "no scores", "a sparse graph"],
)
def test_an_attempt_under_secure_aggregation(settings: tuple[str, ...], clients: int, round_number: int) -> None:
    plan = secure_plan(*settings)
    names = names_of(clients)
    members = Members(plan, names)
    exchange, link = exchange_of(members, Link(members.participants))
    exchange.group_means(request_of(members, round_number=round_number), members.names)
    legs = legs_of(plan, members.learner.size, names, round_number=round_number)
    expected = {False: [leg.size_bytes for leg in legs if not leg.up], True: [leg.size_bytes for leg in legs if leg.up]}
    seen = []
    for name in names:
        down = [encode(message).size_bytes for message in link.sent_to(name)]
        up = [encode(reply).size_bytes for reply in link.said_by(name) if isinstance(reply, SecureMessage)]
        seen.append((down, up))
    # A member of the largest group has exactly these; one of a smaller group less.
    assert max(seen) == (expected[False], expected[True])
    assert all(sum(down) <= sum(expected[False]) and sum(up) <= sum(expected[True]) for down, up in seen)


def test_a_round_in_which_the_server_sees_the_update() -> None:
    plan = make_plan("rounds.count=20")
    request = request_for(plan, round_number=12)
    reply = make_participant(plan).answer(request)
    assert isinstance(reply, TrainReply)
    legs = legs_of(plan, len(request.model), ["ada"], round_number=12)
    sent: list[Message] = [request, reply]
    assert [(leg.name, leg.up, leg.size_bytes) for leg in legs] == [
        (kind(message), message is reply, encode(message).size_bytes) for message in sent
    ]


def test_a_huge_model_takes_no_memory() -> None:
    (down, up) = legs_of(make_plan(), 10**12, ["ada"], round_number=1)
    assert min(down.size_bytes, up.size_bytes) > 4 * 10**12
    assert np.prod(Learner(make_plan()).vector().shape) < 10
