"""What a preview says would travel is, byte for byte, what does travel."""

from __future__ import annotations

import json

import numpy as np
import pytest

from audit_logs import audited_plan, key_called
from helpers import gate_of, ledger_of, make_examples, make_participant, make_plan, request_for
from secure_federation import NOISY, Link, Members, exchange_of, names_of, request_of, secure_plan
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.audit.statements import Contribution, encode_statement, signed
from testudo_common.learning.learner import Learner, initial_vector
from testudo_common.traffic import beginning_of_log, legs_of
from testudo_common.vectors import vector_digest
from testudo_common.wire import Message, SecureMessage, TrainReply, encode
from watching import Watching


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


LOG_LEGS = {"LogUpdate", "Witnessed"}


def close_to(leg: int, actual: int) -> bool:
    """At least what travels, and not much more: numbers are taken to be long."""
    return actual <= leg <= 1.03 * actual + 40


def test_a_round_in_the_open_with_an_audit_log() -> None:
    plan = audited_plan("rounds.cohort_size=5", "rounds.count=20")
    model = initial_vector(plan)
    store = ClientStore(None)
    watching = Watching(plan, ledger=ledger_of(store))
    witness, gate = watching.witness, gate_of(plan, store)
    participant = Participant("owner-00", plan, make_examples(), store, gate, witness=witness)
    watching.log.open(model_digest=vector_digest(model))
    watching.tell()
    watching.log_updates()
    watching.log.close(model_digest=vector_digest(model))
    watching.log.open(model_digest=vector_digest(model))
    update = watching.update(7 + 1, cosigned=watching.log.note(cosigners=watching.log.owners[:4]))
    request = watching.request(watching.log.owners[:4], model=model)
    sent: list[Message] = [update, participant.answer(update), request]
    sent.append(participant.answer(request))
    legs = legs_of(plan, len(model), watching.log.owners, round_number=2, roster=watching.log.roster())
    assert [(leg.name, leg.up) for leg in legs] == [
        ("LogUpdate", False), ("Witnessed", True), ("TrainRequest", False), ("TrainReply", True)
    ]  # fmt: skip
    assert [leg.name for leg in legs] == [kind(message) for message in sent]
    for leg, message in zip(legs, sent, strict=True):
        assert close_to(leg.size_bytes, encode(message).size_bytes), leg
    beginning = encode(watching.update(0, size=7)).size_bytes
    assert beginning <= beginning_of_log(plan, watching.log.roster()) <= 1.3 * beginning


def test_a_round_under_secure_aggregation_with_an_audit_log() -> None:
    """The same messages as without, and the log's between them; a masked input carries what its owner signed."""
    names = names_of(4)
    with_log, without = (
        legs_of(secure_plan(f'audit.mode="{mode}"'), 8, names, round_number=1) for mode in ("log", "off")
    )
    log = [leg for leg in with_log if leg.name in LOG_LEGS]
    others = [leg for leg in with_log if leg.name not in LOG_LEGS]
    assert [leg.name for leg in log] == ["LogUpdate", "Witnessed"] * 2
    assert [leg.name for leg in with_log][6:9] == ["LogUpdate", "Witnessed", "Directory"]
    assert [leg.name for leg in others] == [leg.name for leg in without]
    more = {one.name for one, other in zip(others, without, strict=True) if one.size_bytes != other.size_bytes}
    assert more == {"TrainRequest", "MaskedInput"}
    contribution = Contribution(client=names[0], round=1, attempt=0, commitment="0" * 64, ledger="0" * 64)
    statement = encode_statement(signed(contribution, key_called("x"), "0" * 64))
    sizes = {leg.name: leg.size_bytes for leg in without}
    (masked,) = [leg for leg in others if leg.name == "MaskedInput"]
    quoted = len(json.dumps(statement)) - len("null")
    assert masked.size_bytes == sizes["MaskedInput"] + quoted
