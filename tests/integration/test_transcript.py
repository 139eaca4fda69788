"""A server's whole transcript of a secure run, searched for figures of its first round that only one client knows.

Not differentially private, on purpose: nothing but the protocol hides these figures here. And the search finds what it
should: a participant that leaks, in each encoding, and the plain exchange, whose updates give their norms away.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import CLASSIFICATION, make_examples, make_plan
from secure_federation import Link, Members, exchange_of, names_of
from testudo_client.evaluate import federated_sums
from testudo_client.participant import Participant
from testudo_common.learning.learner import Learner, as_tensors
from testudo_common.plan import FederationPlan
from testudo_common.secagg.messages import MESSAGES, Advertisement
from testudo_common.secure_terms import metric_counts_of
from testudo_common.vectors import vector_digest
from testudo_common.wire import SecureMessage, TrainReply, TrainRequest
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import PlainExchange
from testudo_server.store import RunStore
from testudo_simulations.mask_free import MaskFreeExchange, MaskFreeParticipant
from transcript import FLOATS, INTEGERS, Figures, Hit, Received, expected_by_chance, leaks, received

FIVE = names_of(5)
SIZES = (911, 937, 953, 971, 983)
ROUNDS = 2
SECURE: dict[str, Any] = {
    **CLASSIFICATION,
    "rounds": {"count": ROUNDS, "cohort_size": 5},
    "evaluation": {"federated_every_rounds": 1},
    "secure_aggregation": {"mode": "secure", "group_size": 5, "min_group": 3},
}
PLAIN: dict[str, Any] = {**SECURE, "evaluation": {}, "secure_aggregation": {"mode": "plain"}}
ENTROPY = 300
"""Smaller numbers are in every transcript: positions, rounds, lengths."""


def plans_of(tables: Mapping[str, Any]) -> tuple[FederationPlan, FederationPlan]:
    """Two that differ in name only, and so in their digests."""
    return make_plan(tables=tables), make_plan(tables={**tables, "name": "another"})


def members_of(plan: FederationPlan, kind: type[Participant] = Participant) -> Members:
    return Members(
        plan,
        FIVE,
        examples=lambda place: make_examples(SIZES[place], seed=place),
        kinds=dict.fromkeys(FIVE, kind),
    )


def start_of(plan: FederationPlan) -> Any:
    return Learner(plan).vector()


def run_of(plan: FederationPlan, folder: Path, kind: type[Participant] = Participant) -> list[Received]:
    """What the server received in a run of two rounds."""
    members = members_of(plan, kind)
    link = Link(members.participants)
    exchange: Any = exchange_of(members, link)[0]
    if issubclass(kind, MaskFreeParticipant):
        exchange = MaskFreeExchange(link, plan, members.keys.roster)
    elif not plan.secure:
        exchange = PlainExchange(link, deadline_seconds=9.0, max_norm=plan.outer.max_update_norm)
    runner = Coordinator(plan, exchange, RunStore(folder, durable=False))
    state = runner.begin(start_of(plan), FIVE)
    for _ in range(ROUNDS if kind is Participant else 1):
        state = runner.run_round(state)
    return received(link)


# --- the figures


def figures_of(plan: FederationPlan, participant: Participant) -> Figures:
    """What this client alone knows in round 1, whose model is the initial one; computed apart from its replies."""
    learner, model = Learner(plan), start_of(plan)
    request = TrainRequest(plan.digest, 1, 0, vector_digest(model), model)
    update = participant.own_update(request)
    assert isinstance(update, np.ndarray)
    examples = participant._examples
    found: dict[str, int | float] = {"examples": len(examples), "update norm": float(np.linalg.norm(update))}
    found |= {f"update[{place}]": float(each) for place, each in enumerate(update)}
    for when, vector in (("before", model), ("after", (model + update).astype(np.float32))):
        learner.start_from(vector)
        inputs, targets = as_tensors(examples)
        found[f"loss {when}"] = float(learner.loss(learner.model(inputs), targets).detach())
    sums = federated_sums(
        learner,
        model,
        examples,
        plan,
        participant._seeded(1, "evaluation"),
        split_key=participant._split_key(),
    )
    for when, half in zip(("before", "after"), sums, strict=True):
        found[f"queries {when}"] = half.examples
        found[f"support {when}"] = len(examples) - half.examples
        found |= {f"{name} {when}": value for name, value in half.metrics().items()}
        counts = metric_counts_of(plan).encode(half)
        found |= {f"count[{place}] {when}": int(each) for place, each in enumerate(counts)}
    return {name: value for name, value in found.items() if _has_entropy(value)}


def _has_entropy(value: int | float) -> bool:
    if isinstance(value, int):
        return value >= ENTROPY
    return value not in (0.0, 0.5, 1.0) and abs(value) > 1e-12


@lru_cache(maxsize=1)
def all_figures() -> dict[str, Figures]:
    """Of every client; the same whatever the plan's name is."""
    one, other = (members_of(plan) for plan in plans_of(SECURE))
    found, again = (
        {name: figures_of(members.plan, members.participants[name]) for name in FIVE} for members in (one, other)
    )
    assert found == again, "or two runs could not be compared"
    return found


def test_figures_are_unusual_and_differ_from_client_to_client() -> None:
    figures = all_figures()
    for name, size in zip(FIVE, SIZES, strict=True):
        assert figures[name]["examples"] == size
        assert {"loss before", "accuracy after", "update norm", "queries after", "brier after"} <= set(figures[name])
        assert len(figures[name]) > 25
    for figure in ("loss before", "accuracy after", "update norm", "examples"):
        assert len({figures[name][figure] for name in FIVE}) == len(FIVE)


# --- what must hold


@pytest.fixture(scope="module")
def secure_runs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Received]]:
    return [run_of(plan, tmp_path_factory.mktemp("run")) for plan in plans_of(SECURE)]


def test_no_figure_of_any_client_is_in_the_transcript_of_a_secure_run(secure_runs: list[list[Received]]) -> None:
    one, other = secure_runs
    assert len(one) == len(other) == ROUNDS * len(FIVE) * 6, "every reply of every step"
    assert {message.client for message in one} == set(FIVE)
    assert sum(bool(message.parts["vector"]) for message in one) == ROUNDS * len(FIVE)
    assert expected_by_chance(one, all_figures()) < 1e-3
    assert leaks(one, other, all_figures()) == []


def test_the_transcript_holds_the_kinds_of_message_that_the_protocol_has_and_no_other(
    secure_runs: list[list[Received]],
) -> None:
    for message in secure_runs[0]:
        assert isinstance(message.message, SecureMessage)
        MESSAGES.decode(message.message.body)


def test_two_runs_have_nothing_in_common_but_their_shape(secure_runs: list[list[Received]]) -> None:
    """What the comparison rests on: the vectors of two runs agree in no word."""
    one, other = ([m for m in run if m.parts["vector"]] for run in secure_runs)
    for a, b in zip(one, other, strict=True):
        words = [np.frombuffer(each.parts["vector"], dtype="<u4") for each in (a, b)]
        assert (words[0] == words[1]).mean() < 0.05


# --- controls: the search finds what leaks


class LeaksInNonce(Participant):
    """Puts bytes into its nonce, where nobody would look."""

    packed: Mapping[str, bytes]

    def step(self, message: SecureMessage) -> Any:
        reply = super().step(message)
        if not isinstance(reply, SecureMessage):
            return reply
        said = MESSAGES.decode(reply.body)
        if not isinstance(said, Advertisement):
            return reply
        nonce = said.nonce[:5] + self.packed[self.client_id]
        nonce += said.nonce[len(nonce) :]
        return replace(reply, body=MESSAGES.encode(replace(said, nonce=nonce)))


def until_directory(plan: FederationPlan, kind: type[Participant]) -> list[Received]:
    """What the server received before it set them all aside."""
    members = members_of(plan, kind)
    exchange, link = exchange_of(members)
    model = start_of(plan)
    exchange.group_means(TrainRequest(plan.digest, 1, 0, vector_digest(model), model), FIVE)
    return received(link)


def packed_as(encoding: str, value: int | float) -> bytes:
    if encoding == "text":
        return f"{value:.4f}".encode()
    return np.array(value, dtype=encoding).tobytes() if encoding in FLOATS else struct.pack(encoding, value)


@pytest.mark.parametrize(
    ("figure", "encodings"),
    [
        ("examples", INTEGERS[:5]),
        ("examples", (*INTEGERS[5:], *FLOATS[:3])),
        ("accuracy after", FLOATS),
        ("loss before", ("text", *FLOATS[3:])),
    ],
)
def test_a_figure_in_a_nonce_is_found_in_each_encoding(figure: str, encodings: tuple[str, ...]) -> None:
    figures = all_figures()
    packed = {name: b"".join(packed_as(encoding, figures[name][figure]) for encoding in encodings) for name in FIVE}
    leaking = type("Leaks", (LeaksInNonce,), {"packed": packed})
    found = leaks(*(until_directory(plan, leaking) for plan in plans_of(SECURE)), figures)
    for name in FIVE:
        seen = {hit.encoding.split()[0] for hit in found if (hit.client, hit.figure) == (name, figure)}
        assert set(encodings) <= seen
    assert {hit.place[2] for hit in found} == {"CommitmentList"}, "the message that answers it, and no other"


class LeaksLoss(Participant):
    """Appends its loss to the body of what it sends, as a float64."""

    def train(self, request: TrainRequest) -> Any:
        reply = super().train(request)
        assert isinstance(reply, SecureMessage)
        loss = all_figures()[self.client_id]["loss before"]
        return replace(reply, body=reply.body + struct.pack("<d", loss))


def test_a_loss_at_the_end_of_a_body_is_found() -> None:
    found = leaks(*(until_directory(plan, LeaksLoss) for plan in plans_of(SECURE)), all_figures())
    assert {(hit.client, hit.figure, hit.encoding) for hit in found} == {(name, "loss before", "<f8") for name in FIVE}


def test_a_count_in_a_field_of_its_own_is_found() -> None:
    """A client that gives its number of examples as the number of an attempt."""

    class Counts(Participant):
        def train(self, request: TrainRequest) -> Any:
            return replace(super().train(request), attempt=len(self._examples))

    found = leaks(*(until_directory(plan, Counts) for plan in plans_of(SECURE)), all_figures())
    assert {hit.client for hit in found if hit.encoding == "field"} == set(FIVE)
    assert {hit.figure for hit in found} == {"examples"}


def figures_found(found: list[Hit]) -> set[str]:
    return {hit.figure for hit in found}


def test_the_plain_exchange_gives_every_update_and_its_norm_away(tmp_path: Path) -> None:
    one, other = (run_of(plan, tmp_path / plan.name) for plan in plans_of(PLAIN))
    assert all(isinstance(message.message, TrainReply) for message in one)
    found = leaks(one, other, all_figures())
    coordinates = {name for name in all_figures()[FIVE[0]] if name.startswith("update")}
    assert {hit.client for hit in found if hit.figure == "update norm"} == set(FIVE)
    assert coordinates <= figures_found(found)
    assert not [name for name in figures_found(found) if name.startswith(("loss", "accuracy", "examples"))]


def test_without_masks_counts_would_be_found(tmp_path: Path) -> None:
    """The same integers as in a secure run, unmasked: it is the masks that hide them."""
    one, other = (run_of(plan, tmp_path / plan.name, MaskFreeParticipant) for plan in plans_of(SECURE))
    found = leaks(one, other, all_figures())
    assert any(hit.figure.startswith("count[") and hit.encoding == "<i" for hit in found)
