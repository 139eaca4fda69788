"""A client's session of secure aggregation: what it keeps between messages, and that an update is used once.

Ada's side is driven with updates that are given to it; the others are real participants.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_federation import (
    NAMES,
    STEPS,
    Falling,
    Link,
    Members,
    exchange_of,
    kind_of,
    request_of,
    secure_plan,
)
from testudo_client.secure_side import SecureSide, Session
from testudo_client.store import ClientStore
from testudo_common.errors import Breach, CheckpointError, ProtocolError
from testudo_common.plan import FederationPlan
from testudo_common.secagg.client import Committed, Finished, Shared
from testudo_common.secagg.groups import commitment_to
from testudo_common.secagg.messages import MESSAGES, Commitment
from testudo_common.secagg.primitives import random_secret
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.secagg.terms import Terms
from testudo_common.secure_terms import Attempt, metric_counts_of, terms_of
from testudo_common.vectors import Vector
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainRequest

PLAN = secure_plan("rounds.count=9")
NO_COUNTS = np.empty(0, dtype=np.int64)
SIZE = 8


def update(seed: int) -> Vector:
    drawn: Vector = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return drawn


class Ada:
    """Ada's side alone, answering as a participant does whose update is given."""

    def __init__(self, members: Members, store: ClientStore | None = None) -> None:
        self.store = store or ClientStore(None)
        self.members = members
        self.update = update(1)
        self.counts = NO_COUNTS
        self.asked: list[object] = []
        self.side = self.again()

    def again(self) -> SecureSide:
        """A side with nothing but the store, as after a restart."""
        membership = self.members.membership_of("ada")
        return SecureSide(self.members.plan, membership.identity_of("ada"), membership.roster, self.store, SIZE)

    def answer(self, message: TrainRequest | SecureMessage) -> Message:
        if isinstance(message, SecureMessage):
            return self.side.step(message, self.encoded)
        begun = self.side.begin(message, self.update, self.counts)
        if isinstance(begun, SecureMessage):
            return begun
        return Refusal(message.plan_digest, message.round, message.attempt, begun)

    def encoded(self, terms: Terms, members: int, counts: Any) -> tuple[Any, Any]:
        assert members == len(self.members.names)
        self.asked.append(counts if len(counts) else None)
        layout = terms.parameters.layout
        return self.update, encode(layout, Contribution(self.update, 1, self.asked[-1]), random_secret())  # type: ignore[arg-type]

    @property
    def kept(self) -> bytes:
        data = self.store.load_session(self.members.plan.digest)
        assert data is not None
        return data

    @property
    def state(self) -> object:
        """Of the protocol, read from what was kept."""
        kept = self.side._load()
        assert kept is not None
        return kept[1]


def with_ada(plan: FederationPlan = PLAN, store: ClientStore | None = None) -> tuple[Members, Ada]:
    members = Members(plan)
    ada = Ada(members, store)
    members.participants["ada"] = ada  # type: ignore[assignment]
    return members, ada


def asking(members: Members, round_number: int, attempt: int) -> TrainRequest:
    """From a model of its own, so that the others have new updates; Ada's is given."""
    model = np.full(SIZE, round_number + attempt / 8, dtype=np.float32)
    return request_of(members, model, round_number=round_number, attempt=attempt)


def up_to(members: Members, step: str, *, round_number: int = 1, attempt: int = 0) -> tuple[Message, Link]:
    """Let an attempt run until Ada is about to receive the message of ``step``; that message, and the link."""
    held: list[Message] = []

    def hold(client: str, message: Message, answer: Callable[[], Message]) -> Message | None:
        if client == "ada" and (held or kind_of(message) == step):
            held.append(message)
            return None
        return answer()

    exchange, link = exchange_of(members, hold)
    exchange.group_means(asking(members, round_number, attempt), NAMES)
    return held[0], link


def whole(members: Members, *, round_number: int = 1, attempt: int = 0) -> Link:
    """One attempt from beginning to end."""
    exchange, link = exchange_of(members)
    exchange.group_means(asking(members, round_number, attempt), NAMES)
    return link


# --- attempts only ever go up

attempts = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=12)


@given(attempts)
def test_only_what_comes_later_is_begun(asked: list[tuple[int, int]]) -> None:
    members, ada = with_ada()
    last = (0, 0)
    for number, (round_number, attempt) in enumerate(asked):
        request = request_of(members, round_number=round_number, attempt=attempt)
        fault = ada.side.fault_of(request)
        if attempt >= PLAN.secure_aggregation.max_attempts:
            assert fault is RefusalReason.TOO_MANY_ATTEMPTS
        elif (round_number, attempt) <= last:
            assert fault is RefusalReason.REPLAYED
        else:
            assert fault is None
            ada.side.begin(request, update(number), NO_COUNTS)
            last = (round_number, attempt)
            assert ada.again().fault_of(request) is RefusalReason.REPLAYED, "also after a restart"


def test_most_attempts_are_the_plans() -> None:
    members, ada = with_ada(secure_plan("secure_aggregation.max_attempts=2", "rounds.count=9"))
    assert ada.side.fault_of(request_of(members, attempt=1)) is None
    assert ada.side.fault_of(request_of(members, attempt=2)) is RefusalReason.TOO_MANY_ATTEMPTS
    assert ada.side.fault_of(request_of(members, round_number=9, attempt=2)) is RefusalReason.TOO_MANY_ATTEMPTS


@pytest.mark.parametrize("attempt", [0, 4])
def test_rounds_end_where_the_plan_does(attempt: int) -> None:
    """Each round has a coin of its own: a server could look at coins without end."""
    members, ada = with_ada()
    assert ada.side.fault_of(request_of(members, round_number=9, attempt=attempt)) is None
    assert ada.side.fault_of(request_of(members, round_number=10, attempt=attempt)) is RefusalReason.OTHER_PLAN


# --- beginning


def test_commitment_is_to_the_nonce_that_is_kept() -> None:
    members, ada = with_ada()
    request = request_of(members)
    begun = ada.side.begin(request, ada.update, NO_COUNTS)
    assert isinstance(begun, SecureMessage)
    assert (begun.plan_digest, begun.round, begun.attempt, begun.masked) == (PLAN.digest, 1, 0, None)
    state = ada.state
    assert isinstance(state, Committed)
    terms = terms_of(PLAN, members.keys.roster, Attempt(PLAN.digest, 1, 0, request.model_digest), SIZE)
    assert MESSAGES.decode(begun.body) == Commitment(commitment_to(state.nonce, terms.round_context, "ada"))


def test_each_attempt_has_a_nonce_of_its_own() -> None:
    members, ada = with_ada()
    nonces = set()
    for attempt in range(4):
        ada.side.begin(request_of(members, attempt=attempt), ada.update, NO_COUNTS)
        assert isinstance(ada.state, Committed)
        nonces.add(ada.state.nonce)
    assert len(nonces) == 4


# --- an update is used once


@pytest.mark.parametrize("later", [(1, 1), (2, 0), (7, 3)], ids=["next attempt", "next round", "much later"])
def test_used_update_is_not_grouped_again(later: tuple[int, int]) -> None:
    members, ada = with_ada()
    whole(members)
    assert isinstance(ada.state, Finished)
    before = ada.kept
    request = request_of(members, round_number=later[0], attempt=later[1])
    assert ada.side.begin(request, ada.update.copy(), NO_COUNTS) is RefusalReason.UPDATE_USED
    assert ada.kept == before
    other = ada.update.copy()
    other[0] = np.nextafter(other[0], np.float32(9))
    assert isinstance(ada.side.begin(request, other, NO_COUNTS), SecureMessage), "only that update was the reason"


@pytest.mark.parametrize("step", STEPS)
def test_update_is_used_from_the_moment_it_is_masked(step: str) -> None:
    members, ada = with_ada()
    up_to(members, step)
    masked = STEPS.index(step) > STEPS.index("Deliveries")
    assert ada.side.has_used(ada.update) is masked
    assert not ada.side.has_used(update(2))
    begun = ada.side.begin(request_of(members, attempt=1), ada.update, NO_COUNTS)
    assert begun is RefusalReason.UPDATE_USED if masked else isinstance(begun, SecureMessage)


def test_used_update_stays_used_over_attempts_that_came_to_nothing() -> None:
    members, ada = with_ada()
    whole(members)
    used, ada.update = ada.update, update(2)
    up_to(members, "Directory", attempt=1)
    up_to(members, "Deliveries", round_number=2)
    assert ada.side.begin(request_of(members, round_number=3), used, NO_COUNTS) is RefusalReason.UPDATE_USED


def test_used_update_stays_used_when_another_was_used_since() -> None:
    """A server that sends the models A, B, A would otherwise group A's update twice."""
    members, ada = with_ada()
    whole(members)
    used, ada.update = ada.update, update(2)
    whole(members, attempt=1)
    assert ada.side.begin(request_of(members, attempt=2), used, NO_COUNTS) is RefusalReason.UPDATE_USED


def test_used_update_is_not_masked_in_an_attempt_that_began_with_another() -> None:
    """A request that is refused trains all the same, and what is remembered then is the used update again."""
    members, ada = with_ada()
    whole(members)
    used, ada.update = ada.update, update(2)
    deliveries, _ = up_to(members, "Deliveries", round_number=2)
    before, ada.update = ada.kept, used
    with pytest.raises(ProtocolError) as caught:
        ada.answer(deliveries)  # type: ignore[arg-type]
    assert caught.value.breach is Breach.REUSED
    assert ada.kept == before


# --- steps


def test_a_whole_attempt_asks_for_the_update_once() -> None:
    members, ada = with_ada()
    link = whole(members)
    assert [kind_of(message) for message in link.sent_to("ada")] == list(STEPS)
    assert ada.asked == [None]
    vectors = [reply.masked for reply in link.said_by("ada") if isinstance(reply, SecureMessage)]
    assert [vector is not None for vector in vectors] == [False, False, False, True, False, False]


def test_counts_are_those_kept_when_the_attempt_began() -> None:
    plan = secure_plan("evaluation.federated_every_rounds=2")
    members, ada = with_ada(plan)
    whole(members)
    assert ada.asked == [None], "the first round has none"
    counts = metric_counts_of(plan)
    ada.counts, ada.update = np.arange(2 * counts.size, dtype=np.int64), update(2)
    up_to(members, "Deliveries", round_number=2)
    ada.side = ada.again()
    deliveries = up_to(members, "Deliveries", round_number=2, attempt=1)[0]
    ada.answer(deliveries)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ada.asked[-1], ada.counts)


OTHERS = {
    "next attempt": {"attempt": 1},
    "round before": {"round": 0},
    "next round": {"round": 2},
    "both": {"round": 7, "attempt": 3},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("step", STEPS[1:])
def test_message_for_another_attempt(step: str, changed: dict[str, int]) -> None:
    members, ada = with_ada()
    message, _ = up_to(members, step)
    assert isinstance(message, SecureMessage)
    before = ada.kept
    named = {"round": message.round, "attempt": message.attempt, **changed}
    with pytest.raises(ProtocolError) as caught:
        ada.answer(SecureMessage(message.plan_digest, named["round"], named["attempt"], message.body))
    assert caught.value.breach is Breach.OUT_OF_TURN
    assert (ada.kept, ada.asked) == (before, [] if step in STEPS[:4] else [None])
    assert isinstance(ada.answer(message), SecureMessage), "the numbers alone were the reason"


def test_session_that_is_held_is_as_strict_as_one_that_is_kept() -> None:
    """Attempts only go up, a message counts once, and an update leaves masked once."""
    members, ada = with_ada(store=ClientStore(None, holds_sessions=True))
    link = whole(members)
    told = [message for message in link.sent_to("ada") if isinstance(message, SecureMessage)]
    assert isinstance(ada.state, Finished)
    for message in told:
        with pytest.raises(ProtocolError) as caught:
            ada.answer(message)
        assert caught.value.breach is Breach.OUT_OF_TURN
    assert ada.side.fault_of(request_of(members)) is RefusalReason.REPLAYED
    assert ada.side.has_used(ada.update)
    assert ada.side.begin(asking(members, 2, 0), ada.update, ada.counts) is RefusalReason.UPDATE_USED
    ada.update = ada.update + np.float32(0.125)
    (group,) = exchange_of(members)[0].group_means(asking(members, 2, 0), NAMES).groups
    assert group.members == NAMES
    assert ada.store.load_session(PLAN.digest) is None, "nothing of it is bytes"


def test_message_before_any_attempt() -> None:
    _, ada = with_ada()
    with pytest.raises(ProtocolError) as caught:
        ada.answer(SecureMessage(PLAN.digest, 1, 0, b"\x01"))
    assert caught.value.breach is Breach.OUT_OF_TURN
    assert ada.store.load_session(PLAN.digest) is None


@pytest.mark.parametrize("step", STEPS[1:])
def test_message_out_of_turn(step: str) -> None:
    """Each message of an attempt, when it is another one's turn: nothing is answered and nothing is forgotten."""
    members, ada = with_ada()
    awaited, link = up_to(members, step)
    bodies = {kind_of(message): message for _, _, message, _ in link.log if isinstance(message, SecureMessage)}
    assert set(bodies) >= set(STEPS[1 : STEPS.index(step) + 1])
    before = ada.kept
    for kind, message in bodies.items():
        if kind != step:
            with pytest.raises(ProtocolError) as caught:
                ada.answer(message)  # type: ignore[arg-type]
            assert caught.value.breach is Breach.OUT_OF_TURN
            assert ada.kept == before
    assert isinstance(ada.answer(awaited), SecureMessage)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        ada.answer(awaited)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02\x02\x00\x00\x00\x00", b"\x01\xff", b"\x01\x02\xff\xff\xff\xff"])
def test_body_that_is_no_message(body: bytes) -> None:
    members, ada = with_ada()
    up_to(members, "CommitmentList")
    before = ada.kept
    with pytest.raises(ProtocolError) as caught:
        ada.answer(SecureMessage(PLAN.digest, 1, 0, body))
    assert caught.value.breach is Breach.MALFORMED
    assert ada.kept == before


def test_update_that_cannot_be_masked_leaves_the_session_as_it_was() -> None:
    members, ada = with_ada()
    deliveries, _ = up_to(members, "Deliveries")
    before, ada.update = ada.kept, np.full(SIZE, np.nan, dtype=np.float32)
    with pytest.raises(ProtocolError) as caught:
        ada.answer(deliveries)  # type: ignore[arg-type]
    assert caught.value.breach is Breach.VALUES
    assert ada.kept == before
    assert not ada.side.has_used(ada.update)


def test_update_given_stays_as_it_is() -> None:
    """The vector is masked in place; the update that is remembered for a retry must not be."""
    members, ada = with_ada()
    before = ada.update.copy()
    whole(members)
    np.testing.assert_array_equal(ada.update, before)


# --- what is kept, and when


class Failing(ClientStore):
    """Its disk is full from some session on."""

    room = 0

    def save_session(self, plan_digest: str, session: bytes) -> None:
        if self.room == 0:
            raise OSError("no space left")
        self.room -= 1
        super().save_session(plan_digest, session)


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_said_that_could_not_be_kept(step: str) -> None:
    store = Failing(None)
    store.room = STEPS.index(step)
    members, ada = with_ada(store=store)
    message, _ = up_to(members, step)
    before = ada.store.load_session(PLAN.digest)
    with pytest.raises(OSError, match="no space"):
        ada.answer(message)  # type: ignore[arg-type]
    assert ada.store.load_session(PLAN.digest) == before
    store.room = 1
    assert isinstance(ada.answer(message), SecureMessage)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", STEPS)
def test_next_state_is_kept_before_the_reply_leaves(tmp_path: Path, step: str) -> None:
    """So a process that is killed with its reply on the way does not answer a second time from the same state."""
    members, ada = with_ada(store=ClientStore(tmp_path, durable=False))
    message, _ = up_to(members, step)
    reply = ada.answer(message)  # type: ignore[arg-type]
    assert isinstance(reply, SecureMessage)
    kept = ada.kept
    ada.store = ClientStore(tmp_path, durable=False)
    ada.side = ada.again()
    if isinstance(message, TrainRequest):
        assert ada.side.fault_of(message) is RefusalReason.REPLAYED
    else:
        with pytest.raises(ProtocolError) as caught:
            ada.answer(message)  # type: ignore[arg-type]
        assert caught.value.breach is Breach.OUT_OF_TURN
    assert ada.kept == kept


def test_file_is_the_owners_alone(tmp_path: Path) -> None:
    members, ada = with_ada(store=ClientStore(tmp_path / "state", durable=False))
    for step in STEPS[1:]:
        up_to(members, step, attempt=STEPS.index(step) - 1)
        (path,) = (tmp_path / "state").iterdir()
        assert path.suffix == ".session"
        assert path.stat().st_mode & 0o777 == 0o600
        ada.update = update(STEPS.index(step) + 1)


def test_secrets_of_a_session_are_not_printed() -> None:
    members, ada = with_ada()
    up_to(members, "Deliveries")
    session, state = ada.side._load() or (None, None)
    assert isinstance(session, Session)
    assert isinstance(state, Shared)
    for secret in (state.seed, state.mask_secret, state.own_seed_share):
        assert repr(secret) not in repr(session)
        assert secret.hex() not in repr(session)
    assert "state=" not in repr(session)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "another version": lambda data: b"\x03" + data[1:],
    "another kind": lambda data: data[:1] + b"\x09" + data[2:],
    "zeros": lambda data: bytes(len(data)),
    "a length of its own": lambda data: data[:10] + b"\xff\xff\xff\xff" + data[14:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_session_is_an_error_and_left_as_it_is(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Starting over would forget which attempts were made and which update was used."""
    members, ada = with_ada(store=ClientStore(tmp_path, durable=False))
    message, _ = up_to(members, "SurvivorSet")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    for ask in (
        lambda: ada.answer(message),  # type: ignore[arg-type]
        lambda: ada.side.fault_of(request_of(members, round_number=9)),
        lambda: ada.side.has_used(ada.update),
        lambda: ada.answer(request_of(members, round_number=9)),
    ):
        with pytest.raises(CheckpointError, match="session of secure aggregation is damaged") as caught:
            ask()
        assert caught.value.where == "ada"
        assert caught.value.remedy
        assert path.read_bytes() == before


def test_damaged_state_in_a_whole_session_is_the_owners_trouble(tmp_path: Path) -> None:
    """And not taken for a rule that the server broke."""
    members, ada = with_ada(store=ClientStore(tmp_path, durable=False))
    message, _ = up_to(members, "SurvivorSet")
    kept = ada.side._load()
    assert kept is not None
    session = kept[0]
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(session.state, session.state[:1] + b"\x63" + session.state[2:]))
    with pytest.raises(CheckpointError, match="session of secure aggregation is damaged"):
        ada.answer(message)  # type: ignore[arg-type]


def test_plans_have_sessions_of_their_own(tmp_path: Path) -> None:
    store = ClientStore(tmp_path, durable=False)
    members, ada = with_ada(store=store)
    whole(members)
    other, again = with_ada(secure_plan("seed=1"), store)
    assert again.side.fault_of(request_of(other)) is None
    assert not again.side.has_used(ada.update)
    whole(other)
    assert ada.side.fault_of(request_of(members)) is RefusalReason.REPLAYED


def test_dropouts_do_not_harm_the_others() -> None:
    """The harness itself: without it, an attempt that never closes could pass for one that was refused."""
    members, _ = with_ada()
    exchange, _ = exchange_of(members, Falling(members.participants, {"ada": ("Deliveries", False)}))
    (group,) = exchange.group_means(request_of(members), NAMES).groups
    assert group.members == NAMES[1:]
