"""A data owner killed at every write of a round: nothing is under-counted, and no noise or mask is used twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import request_for
from killed_owner import CLIENT, Owner, participant_in
from secure_federation import NOISY, Answer, Members, exchange_of, request_of, secure_plan
from testudo_client.ledger import open_ledger
from testudo_client.ledger.entries import Occasion, Purpose, Reserved
from testudo_common.plan import FederationPlan
from testudo_common.secagg.messages import MESSAGES, Advertisement
from testudo_common.vectors import vector_digest
from testudo_common.wire import Message, SecureMessage, TrainReply

ATTEMPTS = 4
SECURE = secure_plan(*NOISY, "evaluation.federated_every_rounds=1", "evaluation.federated_noise_multiplier=2")
PLAIN = secure_plan(*NOISY, 'secure_aggregation.mode="plain"')


def reserved(folder: Path, purpose: Purpose) -> list[Occasion]:
    """What the ledger says, opened anew: it needs no word of a person after a kill."""
    contents = [entry.content for entry in open_ledger(folder).entries()]
    found = [content.occasion for content in contents if isinstance(content, Reserved)]
    return [occasion for occasion in found if occasion.purpose is purpose]


def play(owner: Owner, plan: FederationPlan) -> None:
    """A round of secure aggregation, begun again until the owner is in its sum."""
    members = Members(plan)

    def meddle(client: str, message: Message, answer: Answer) -> Message | str | None:
        return owner.ask(message) if client == CLIENT else answer()

    exchange, _ = exchange_of(members, meddle)
    for attempt in range(ATTEMPTS):
        found = exchange.group_means(request_of(members, attempt=attempt), members.names)
        if any(CLIENT in group.members for group in found.groups):
            return
    pytest.fail(f"no sum ever had {CLIENT} in it")


def check_secure(owner: Owner, folder: Path) -> None:
    messages = [reply for reply in owner.left if isinstance(reply, SecureMessage)]
    masked = [reply for reply in messages if reply.masked is not None]
    vectors = {(reply.round, reply.attempt): reply.masked.tobytes() for reply in masked if reply.masked is not None}
    assert len(vectors) == len(masked), "two masked vectors left in one attempt"
    sums = reserved(folder, Purpose.SUM)
    assert len(sums) == len(set(sums)), "one attempt's mask was charged, and so made, twice"
    assert set(vectors) <= {(occasion.round, occasion.attempt) for occasion in sums}
    # Each vector that left holds an update trained for it alone: an update that left is never grouped again.
    assert len(reserved(folder, Purpose.TRAINING)) >= len(vectors)
    assert set(vectors) <= {(each.round, each.attempt) for each in reserved(folder, Purpose.SCORES)}
    shown = [MESSAGES.decode(reply.body) for reply in messages]
    advertised = [message for message in shown if isinstance(message, Advertisement)]
    for secret in ("mask_key", "channel_key", "seed_digest", "nonce"):
        values = [getattr(message, secret) for message in advertised]
        assert len(set(values)) == len(values), f"{secret} was used in two attempts"


@pytest.mark.slow
def test_secure_rounds_killed_at_every_write(tmp_path: Path) -> None:
    whole = Owner(tmp_path / "whole", SECURE, 0)
    play(whole, SECURE)
    points = whole.points()
    whole.stop()
    assert points > 20, "there is something to be killed at"
    check_secure(whole, tmp_path / "whole")
    deaths = 0
    for at in range(1, points + 1):
        folder = tmp_path / f"{at}"
        owner = Owner(folder, SECURE, at)
        try:
            play(owner, SECURE)
        finally:
            owner.stop()
        check_secure(owner, folder)
        deaths += owner.deaths
    assert deaths == points


@pytest.mark.slow
def test_plain_rounds_killed_at_every_write(tmp_path: Path) -> None:
    """In clear, each update shows its noise: one reservation for each, and the same bytes for a retry."""

    def rounds(owner: Owner) -> None:
        for number in (1, 2):
            while not isinstance(owner.ask(request_for(PLAIN, round_number=number)), TrainReply):
                assert owner.deaths == 1
            owner.ask(request_for(PLAIN, round_number=number))

    whole = Owner(tmp_path / "whole", PLAIN, 0)
    rounds(whole)
    points = whole.points()
    whole.stop()
    for at in range(1, points + 1):
        folder = tmp_path / f"{at}"
        owner = Owner(folder, PLAIN, at)
        try:
            rounds(owner)
        finally:
            owner.stop()
        replies = [reply for reply in owner.left if isinstance(reply, TrainReply)]
        updates = {number: {vector_digest(r.update) for r in replies if r.round == number} for number in (1, 2)}
        assert all(len(digests) == 1 for digests in updates.values()), "a retry sent other bytes"
        charged = reserved(folder, Purpose.TRAINING)
        assert all(sum(each.round == number for each in charged) >= 1 for number in updates)
        assert len(charged) <= 3
        spent = participant_in(folder, PLAIN).spent
        assert sum(event.steps for event in spent) == len(charged) * PLAIN.inner.steps
