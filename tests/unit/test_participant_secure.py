"""A data owner under a plan with secure aggregation: no update ever leaves in clear, whatever it is sent.

What it refuses, what it is charged, and what a killed process knows afterwards.
"""

from __future__ import annotations

import json
import logging
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message as FlowerMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import make_examples, make_participant, make_plan, message_in, without_noise
from secure_federation import (
    NAMES,
    NOISY,
    REPLIES,
    SECURE,
    STEPS,
    Answer,
    Falling,
    Link,
    Members,
    carried,
    exchange_of,
    kind_of,
    layout_of,
    off_by,
    request_of,
    secure_plan,
)
from testudo_client import participant as participants
from testudo_client import secure_side
from testudo_client.app import build_client_app
from testudo_client.participant import Participant
from testudo_client.store import ClientMemory, ClientStore
from testudo_common.errors import CheckpointError, ModelError
from testudo_common.flower_records import TRAIN, to_records
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import SampledGaussian
from testudo_common.secagg import client as secagg_client
from testudo_common.secagg.client import Masked
from testudo_common.secagg.messages import MESSAGES, CommitmentList, Confirmations, Deliveries, Directory, SurvivorSet
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest
from testudo_common.wire import encode as encode_message
from testudo_simulations.grid import InProcessGrid

PLAN = secure_plan()
DIGEST = PLAN.digest
ONE_ROUND = SampledGaussian(1.0, 0.5, 2)


def reason_of(reply: object) -> RefusalReason:
    assert isinstance(reply, Refusal), reply
    return reply.reason


def one_attempt(members: Members, link: Link | None = None, *, round_number: int = 1, attempt: int = 0) -> Link:
    """A whole attempt from the same model."""
    exchange, link = exchange_of(members, link or Link(members.participants))
    exchange.group_means(request_of(members, round_number=round_number, attempt=attempt), members.names)
    return link


def ended_at(members: Members, step: str, *, attempt: int = 0) -> Link:
    """An attempt in which Ada's message of ``step`` never comes."""
    return one_attempt(members, Falling(members.participants, {"ada": (step, False)}), attempt=attempt)


def message_of(link: Link, step: str) -> Message:
    """Ada's message of that step; it may have been lost."""
    return next(message for message in link.sent_to("ada") if kind_of(message) == step)


def spent(members: Members, name: str = "ada") -> tuple[SampledGaussian, ...]:
    return members.participants[name].spent


# --- nothing in clear


def test_training_ends_in_a_commitment() -> None:
    members = Members(PLAN)
    reply = members.participants["ada"].answer(request_of(members))
    assert isinstance(reply, SecureMessage)
    assert kind_of(reply) == "Commitment"
    assert reply.masked is None
    assert members.update_of("ada").any()


def test_masked_input_says_nothing_about_the_update() -> None:
    """The same update twice, in a deterministic federation: what leaves has nothing in common, and is uniform."""
    vectors = []
    for _ in range(2):
        members = Members(secure_plan("model.inputs=[1023]"), examples=wide)
        link = one_attempt(members)
        (masked,) = [reply.masked for reply in said(link, "ada") if reply.masked is not None]
        vectors.append(masked)
        clear = encode(layout_of(members.plan), Contribution(members.update_of("ada")), secrets.token_bytes(32))
        assert (masked == clear).sum() <= 1
    assert (vectors[0] == vectors[1]).sum() <= 1
    for vector in vectors:
        signs = np.unpackbits(vector.view(np.uint8))
        assert abs(signs.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(signs)), "five standard deviations"


def wide(place: int) -> Any:
    return make_examples(12, regression=True, inputs=1023, seed=place)


def said(link: Link, client: str) -> list[SecureMessage]:
    return [reply for reply in link.said_by(client) if isinstance(reply, SecureMessage)]


class Watch:
    """Ada, watched: every answer is checked, and which of her updates left masked is written down.

    Args:
        members: Hers; her training is deterministic.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._ada = members.participants["ada"]
        self.sent: list[SecureMessage] = []
        self.begun: list[tuple[int, int]] = []
        self.used: list[str] = []

    def answer(self, message: Any) -> Message:
        """Her answer, as it travels."""
        try:
            reply = carried(self._ada.answer(carried(message)))
        except ModelError:  # a model that is not finite; the app answers for it with a fixed word
            return Refusal(message.plan_digest, message.round, message.attempt, RefusalReason.INTERNAL)
        self._check(message, reply)
        return reply

    def _check(self, message: Message, reply: Message) -> None:
        assert isinstance(reply, SecureMessage | Refusal), "a TrainReply holds an update"
        parts = encode_message(reply)
        if isinstance(reply, Refusal):
            assert set(json.loads(parts.header[6:])) == {"plan_digest", "round", "attempt", "reason"}
            assert (parts.body, parts.vector) == (None, None)
            return
        assert set(json.loads(parts.header[6:])) == {"plan_digest", "round", "attempt", "statement"}
        assert reply.statement is None, "under a plan without a log there is nothing to state"
        assert kind_of(reply) in REPLIES
        assert (reply.masked is None) is (kind_of(reply) != "MaskedInput")
        if isinstance(message, TrainRequest):
            self.begun.append((reply.round, reply.attempt))
        update = self._members.update_of("ada")
        for data in (update.tobytes(), update.astype(">f4").tobytes(), update.astype("<f8").tobytes()):
            assert not any(data[start : start + 8] in (parts.body or b"") for start in range(0, len(data) - 7, 4))
        if reply.masked is not None:
            clear = encode(layout_of(PLAN), Contribution(update), secrets.token_bytes(32))
            assert np.abs((reply.masked - clear).view(np.int32)).max() > 1 << 20, "a mask is uniform in 2^32"
            self.used.append(vector_digest(update))
        self.sent.append(reply)


HOSTILE = st.one_of(
    st.tuples(st.just("train"), st.integers(0, 3), st.integers(0, 6), st.integers(0, 3)),
    st.tuples(st.just("again"), st.integers(0, 40), st.booleans()),
    st.tuples(st.just("altered"), st.integers(0, 40), st.integers(0, 1 << 16), st.integers(1, 255)),
    st.tuples(st.just("body"), st.binary(max_size=40)),
    st.tuples(
        st.just("kind"), st.sampled_from([CommitmentList(()), Directory(()), Deliveries((), ()), SurvivorSet(())])
    ),
    st.tuples(st.just("survivors"), st.lists(st.integers(0, 4), max_size=4)),
    st.tuples(st.just("plan"), st.integers(0, 40), st.booleans()),
)
MODELS: list[Vector] = [np.full(8, value, dtype=np.float32) for value in (0.0, 0.5, np.nan)]


class Server:
    """Honest between its lies: carries an attempt, and before each message to Ada slips in others.

    Args:
        watch: Ada.
        lies: What to slip in, in turns.
    """

    def __init__(self, watch: Watch, lies: list[list[tuple[Any, ...]]]) -> None:
        self._watch = watch
        self._lies = list(lies)
        self._told: list[Any] = []

    def meddle(self, client: str, message: Message, answer: Answer) -> Message:
        if client != "ada":
            return answer()
        for lie in self._lies.pop(0) if self._lies else []:
            self._watch.answer(self._message(lie, message))
        self._told.append(message)
        return self._watch.answer(message)

    def _message(self, lie: tuple[Any, ...], honest: Any) -> Any:
        body, plan, number, attempt = b"\x01", DIGEST, honest.round, honest.attempt
        earlier = [told for told in (*self._told, honest) if isinstance(told, SecureMessage)]
        if lie[0] in {"again", "altered", "plan"} and earlier:
            chosen = earlier[lie[1] % len(earlier)]
            body = chosen.body
            if lie[0] != "altered" and not lie[-1]:
                number, attempt = chosen.round, chosen.attempt
        match lie:
            case ("train", number, attempt, model):
                vector = MODELS[model % len(MODELS)]
                stated = vector if model < len(MODELS) else MODELS[1]
                return TrainRequest(DIGEST, number, attempt, vector_digest(stated), vector)
            case ("altered", _, place, change):
                altered = bytearray(body)
                altered[place % len(altered)] ^= change
                body = bytes(altered)
            case ("plan", _, _):
                plan = "ab" * 32
            case ("kind", message):
                body = MESSAGES.encode(message)
            case ("survivors", places):
                body = MESSAGES.encode(SurvivorSet(tuple(places)))
            case ("body", bytes(body)):
                pass
        return SecureMessage(plan, number, attempt, body)


@given(st.lists(st.lists(HOSTILE, max_size=3), max_size=12))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_update_leaves_whatever_the_server_sends(lies: list[list[tuple[Any, ...]]]) -> None:
    members = Members(PLAN)
    watch = Watch(members)
    server = Server(watch, lies)
    for attempt in range(2):
        exchange, _ = exchange_of(members, server.meddle)
        exchange.group_means(request_of(members, attempt=attempt), NAMES)
    assert watch.begun == sorted(set(watch.begun)), "attempts only ever go up, and none is made twice"
    assert all(attempt < PLAN.secure_aggregation.max_attempts for _, attempt in watch.begun)
    assert len(watch.used) == len(set(watch.used)), "no update is grouped twice"
    kinds = [(reply.round, reply.attempt, kind_of(reply)) for reply in watch.sent]
    assert len(kinds) == len(set(kinds)), "each step of an attempt is answered once"


def test_server_without_lies_gets_a_sum() -> None:
    """Otherwise the property above could hold because nothing ever gets so far."""
    members = Members(PLAN)
    watch = Watch(members)
    exchange, _ = exchange_of(members, Server(watch, []).meddle)
    (group,) = exchange.group_means(request_of(members), NAMES).groups
    assert group.members == NAMES
    assert [kind_of(reply) for reply in watch.sent] == list(REPLIES)
    np.testing.assert_allclose(group.mean, members.mean_of(NAMES), rtol=0, atol=off_by(layout_of(PLAN)))


def test_watching_sees_an_update_in_clear() -> None:
    members = Members(PLAN)

    class Careless(Participant):
        def train(self, request: TrainRequest) -> TrainReply | SecureMessage | Refusal:
            update = self._update_for(request)
            assert not isinstance(update, RefusalReason)
            return TrainReply(self.plan_digest, request.round, request.attempt, request.model_digest, update)

    members._kinds["ada"] = Careless
    members.restart("ada")
    with pytest.raises(AssertionError, match="a TrainReply holds an update"):
        Watch(members).answer(request_of(members))


# --- what is refused


def test_attempts_only_go_up() -> None:
    members = Members(PLAN)
    ada = members.participants["ada"]
    assert isinstance(ada.answer(request_of(members, round_number=2, attempt=1)), SecureMessage)
    for round_number, attempt in [(2, 1), (2, 0), (1, 0), (1, 4), (0, 0)]:
        reply = ada.answer(request_of(members, round_number=round_number, attempt=attempt))
        assert reply == Refusal(DIGEST, round_number, attempt, RefusalReason.REPLAYED)
    assert isinstance(ada.answer(request_of(members, round_number=2, attempt=2)), SecureMessage)


@pytest.mark.parametrize("most", [1, 3])
def test_attempts_are_capped(most: int) -> None:
    members = Members(secure_plan(f"secure_aggregation.max_attempts={most}"))
    ada = members.participants["ada"]
    for attempt in range(most):
        assert isinstance(ada.answer(request_of(members, attempt=attempt)), SecureMessage)
    assert reason_of(ada.answer(request_of(members, attempt=most))) is RefusalReason.TOO_MANY_ATTEMPTS
    assert isinstance(ada.answer(request_of(members, round_number=2)), SecureMessage), "each round has its own"


def test_refused_attempt_is_not_trained_for() -> None:
    members = Members(secure_plan(*NOISY))
    ada = members.participants["ada"]
    ada.answer(request_of(members))
    for attempt in (0, 5, 99):
        ada.answer(request_of(members, np.ones(8, dtype=np.float32), attempt=attempt))
    assert spent(members) == (ONE_ROUND,)


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize("step", STEPS[1:])
def test_message_of_another_plan(tmp_path: Path, step: str, restart: bool) -> None:
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path, durable=False)})
    link = ended_at(members, step)
    message = message_of(link, step)
    assert isinstance(message, SecureMessage)
    if restart:
        members.restart("ada")
    ada = members.participants["ada"]
    other = SecureMessage(secure_plan("seed=1").digest, message.round, message.attempt, message.body)
    assert ada.answer(other) == Refusal(DIGEST, 1, 0, RefusalReason.OTHER_PLAN)
    assert isinstance(ada.answer(message), SecureMessage), "it changed nothing"


def test_message_of_secure_aggregation_under_a_plain_plan() -> None:
    plain = make_plan('secure_aggregation.mode="plain"', tables=SECURE)
    reply = make_participant(plain).answer(SecureMessage(plain.digest, 1, 0, b"\x01"))
    assert reason_of(reply) is RefusalReason.OTHER_PLAN


def test_other_model_and_other_plan_begin_nothing() -> None:
    members = Members(PLAN)
    ada = members.participants["ada"]
    good = request_of(members)
    altered = good.model.copy()
    altered[0] = 1
    bad = TrainRequest(DIGEST, 1, 0, good.model_digest, altered)
    assert reason_of(ada.answer(bad)) is RefusalReason.OTHER_MODEL
    foreign = TrainRequest("ab" * 32, 1, 0, good.model_digest, good.model)
    assert reason_of(ada.answer(foreign)) is RefusalReason.OTHER_PLAN
    assert members.stores["ada"].load_session(DIGEST) is None
    assert members.stores["ada"].load(DIGEST) == ClientMemory()


def place_of_ada(members: Members) -> int:
    session = members.stores["ada"].load_session(DIGEST)
    assert session is not None
    state = secure_side.CLIENT_STATES.decode(secure_side._SESSIONS.decode(session).state)
    assert isinstance(state, Masked)
    return state.position


@pytest.mark.parametrize("step", ["CommitmentList", "SurvivorSet"])
def test_too_few_have_a_word_of_their_own(step: str) -> None:
    """Bad luck is no rule broken: the server must not take it for cheating."""
    members = Members(PLAN)
    ada = members.participants["ada"]
    message = message_of(ended_at(members, step), step)
    assert isinstance(message, SecureMessage)
    told = MESSAGES.decode(message.body)
    if isinstance(told, CommitmentList):
        fewer: Any = CommitmentList(tuple(entry for entry in told.entries if entry.client_id == "ada"))
    else:
        place = place_of_ada(members)
        fewer = SurvivorSet(tuple(sorted({place, (place + 1) % 4})))
    assert reason_of(ada.answer(SecureMessage(DIGEST, 1, 0, MESSAGES.encode(fewer)))) is RefusalReason.TOO_FEW
    broken = SecureMessage(DIGEST, 1, 0, MESSAGES.encode(Confirmations(())))
    assert reason_of(ada.answer(broken)) is RefusalReason.PROTOCOL_BROKEN
    assert isinstance(ada.answer(message), SecureMessage)


# --- an update is used once, and paid for once

DETERMINISTIC = ("inner.sample_rate=1.0",)
NOISELESS = ('privacy.unit="example"', "privacy.noise_multiplier=0", "inner.sample_rate=1.0")


@pytest.mark.parametrize("plan", [secure_plan(*DETERMINISTIC), secure_plan(*NOISELESS)], ids=["plain", "no noise"])
@pytest.mark.parametrize("next_round", [False, True], ids=["next attempt", "next round"])
def test_same_update_is_not_grouped_twice(plan: FederationPlan, next_round: bool) -> None:
    """Two sums that differ by one client would show that client."""
    more = {"mechanism": without_noise} if plan.private else {}
    members = Members(plan, **more)
    one_attempt(members)
    again = request_of(members, round_number=2) if next_round else request_of(members, attempt=1)
    before = members.stores["ada"].load_session(plan.digest)
    assert reason_of(members.participants["ada"].answer(again)) is RefusalReason.UPDATE_USED
    assert members.stores["ada"].load_session(plan.digest) == before


def test_same_update_is_not_slipped_into_an_attempt_that_began_with_another() -> None:
    """Round 1 groups A's update. Round 2 begins from B and, before it masks, asks again from A: that is refused, but
    it was trained, and must not go into the attempt from B."""
    members = Members(PLAN)
    one_attempt(members)
    other = np.full(8, 0.5, dtype=np.float32)

    def ask_in_between(client: str, message: Message, answer: Answer) -> Message:
        if client == "ada" and kind_of(message) == "Deliveries":
            again = request_of(members, round_number=2, attempt=1)
            assert reason_of(members.participants["ada"].answer(again)) is RefusalReason.UPDATE_USED
        return answer()

    exchange, link = exchange_of(members, ask_in_between)
    found = exchange.group_means(request_of(members, other, round_number=2), NAMES)
    assert [group.members for group in found.groups] == [NAMES[1:]]
    assert all(reply.masked is None for reply in said(link, "ada"))


def test_new_training_is_another_update_and_is_charged_again() -> None:
    members = Members(secure_plan(*NOISY))
    one_attempt(members)
    first = members.update_of("ada")
    assert spent(members) == (ONE_ROUND,)
    link = one_attempt(members, attempt=1)
    second = members.update_of("ada")
    assert spent(members) == (SampledGaussian(1.0, 0.5, 4),)
    assert first.tobytes() != second.tobytes()
    assert "MaskedInput" in [kind_of(reply) for reply in said(link, "ada")]


def test_new_batches_without_privacy_are_another_update() -> None:
    members = Members(secure_plan("inner.sample_rate=0.25"))
    one_attempt(members)
    first = members.update_of("ada")
    assert isinstance(members.participants["ada"].answer(request_of(members, attempt=1)), SecureMessage)
    assert members.update_of("ada").tobytes() != first.tobytes()


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize("step", STEPS[1:4])
def test_attempt_that_ended_before_masking_is_not_paid_for_twice(tmp_path: Path, step: str, restart: bool) -> None:
    plan = secure_plan(*NOISY)
    members = Members(plan, stores={"ada": ClientStore(tmp_path, durable=False)})
    ended_at(members, step)
    first = members.update_of("ada")
    if restart:
        members.restart("ada")
    link = one_attempt(members, attempt=1)
    assert [kind_of(reply) for reply in said(link, "ada")] == list(REPLIES)
    assert members.update_of("ada").tobytes() == first.tobytes()
    assert spent(members) == (ONE_ROUND,)


@pytest.mark.parametrize("step", STEPS[4:])
def test_attempt_that_ended_after_masking_is_trained_for_anew(step: str) -> None:
    members = Members(secure_plan(*NOISY))
    ended_at(members, step)
    first = members.update_of("ada")
    link = one_attempt(members, attempt=1)
    assert [kind_of(reply) for reply in said(link, "ada")] == list(REPLIES)
    assert members.update_of("ada").tobytes() != first.tobytes()
    assert spent(members) == (SampledGaussian(1.0, 0.5, 4),)


def test_update_of_an_attempt_that_ended_is_remembered_though_another_was_used_before() -> None:
    """Attempt 0 masks; 1 trains anew and ends before masking: 2 goes on with what 1 has paid for."""
    members = Members(secure_plan(*NOISY))
    one_attempt(members)
    ended_at(members, "CommitmentList", attempt=1)
    second = members.update_of("ada")
    one_attempt(members, attempt=2)
    assert members.update_of("ada").tobytes() == second.tobytes()
    assert spent(members) == (SampledGaussian(1.0, 0.5, 4),)


def test_budget_covers_attempts_that_are_trained_for_anew() -> None:
    plan = secure_plan(*NOISY, "rounds.max_participations=1")
    members = Members(plan)
    one_attempt(members)
    assert reason_of(members.participants["ada"].answer(request_of(members, attempt=1))) is RefusalReason.PRIVACY_SPENT
    assert spent(members) == (ONE_ROUND,)


def test_owner_without_examples_takes_part_as_it_does_without_secure_aggregation() -> None:
    members = Members(PLAN, examples=lambda place: make_examples(12 if place else 0, regression=True, inputs=7))
    exchange, _ = exchange_of(members)
    (group,) = exchange.group_means(request_of(members), NAMES).groups
    assert group.members == NAMES
    assert not members.update_of("ada").any()


# --- what is kept, and when


class Failing(ClientStore):
    """Its disk is full from some session on, or for every memory."""

    sessions = 99
    memories = 99

    def save_session(self, plan_digest: str, session: bytes) -> None:
        if self.sessions == 0:
            raise OSError("no space left for secret 123")
        self.sessions -= 1
        super().save_session(plan_digest, session)

    def save(self, plan_digest: str, memory: ClientMemory) -> None:
        if self.memories == 0:
            raise OSError("no space left for secret 123")
        self.memories -= 1
        super().save(plan_digest, memory)


def reply_through_flower(participant: Participant, message: Any) -> Message:
    """The participant's answer as it leaves: through the ClientApp, in Flower's records."""
    grid = InProcessGrid(build_client_app(lambda context: participant), 1)
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([FlowerMessage(to_records(message), node, TRAIN)])
    assert not reply.has_error()
    return message_in(reply.content)


@pytest.mark.parametrize("step", STEPS)
def test_no_reply_leaves_without_its_session(caplog: pytest.LogCaptureFixture, step: str) -> None:
    caplog.set_level(logging.DEBUG)
    store = Failing(None)
    store.sessions = STEPS.index(step)
    members = Members(PLAN, stores={"ada": store})
    message = message_of(ended_at(members, step), step)
    before = store.load_session(DIGEST)
    reply = reply_through_flower(members.participants["ada"], message)
    assert reply == Refusal(DIGEST, 1, 0, RefusalReason.INTERNAL)
    assert store.load_session(DIGEST) == before
    assert "secret 123" not in caplog.text
    assert "OSError" in caplog.text
    store.sessions = 1
    again = reply_through_flower(members.participants["ada"], message)
    if step == "Deliveries":  # for all that anybody knows, its mask was used
        assert again == Refusal(DIGEST, 1, 0, RefusalReason.LEDGER_UNUSABLE)
        return
    assert isinstance(again, SecureMessage)


def test_session_that_could_not_be_kept_is_not_paid_for_twice() -> None:
    plan = secure_plan(*NOISY)
    store = Failing(None)
    store.sessions = 0
    members = Members(plan, stores={"ada": store})
    ada = members.participants["ada"]
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            ada.answer(request_of(members))
    assert spent(members) == (ONE_ROUND,)
    store.sessions = 1
    assert isinstance(ada.answer(request_of(members)), SecureMessage)
    assert spent(members) == (ONE_ROUND,)


def test_update_that_could_not_be_remembered_begins_nothing() -> None:
    store = Failing(None)
    store.memories = 0
    members = Members(PLAN, stores={"ada": store})
    with pytest.raises(OSError, match="no space"):
        members.participants["ada"].answer(request_of(members))
    assert store.load_session(DIGEST) is None


@pytest.mark.parametrize("step", STEPS[1:])
def test_killed_process_goes_on_in_the_middle_of_a_round(tmp_path: Path, step: str) -> None:
    """Another participant on the same folder answers from ``step`` on; the others notice nothing."""
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path, durable=False)})

    def killed_before(client: str, message: Message, answer: Answer) -> Message:
        if client == "ada" and kind_of(message) == step:
            members.participants["ada"] = members.make("ada", ClientStore(tmp_path, durable=False))
        return answer()

    exchange, link = exchange_of(members, killed_before)
    (group,) = exchange.group_means(request_of(members), NAMES).groups
    assert group.members == NAMES
    assert [kind_of(reply) for reply in said(link, "ada")] == list(REPLIES)
    np.testing.assert_allclose(group.mean, members.mean_of(NAMES), rtol=0, atol=off_by(layout_of(PLAN)))


def test_every_step_in_a_process_of_its_own(tmp_path: Path) -> None:
    stores = {name: ClientStore(tmp_path / name, durable=False) for name in NAMES}
    members = Members(secure_plan("evaluation.federated_every_rounds=1"), stores=stores)

    def restarted(client: str, _message: Message, answer: Answer) -> Message:
        members.participants[client] = members.make(client, ClientStore(tmp_path / client, durable=False))
        return answer()

    exchange, _ = exchange_of(members, restarted)
    found = exchange.group_means(request_of(members), NAMES)
    assert [group.members for group in found.groups] == [NAMES]
    assert found.counts.any()


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize("last", STEPS[3:])
def test_shares_are_not_delivered_twice(tmp_path: Path, last: str, restart: bool) -> None:
    """Two vectors under the same masks would give their difference."""
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path, durable=False)})
    link = one_attempt(members, Falling(members.participants, {"ada": (last, True)}))
    deliveries = message_of(link, "Deliveries")
    if restart:
        members.restart("ada")
    before = members.stores["ada"].load_session(DIGEST)
    assert reason_of(members.participants["ada"].answer(deliveries)) is RefusalReason.PROTOCOL_BROKEN  # type: ignore[arg-type]
    assert members.stores["ada"].load_session(DIGEST) == before


@pytest.mark.parametrize("step", STEPS)
def test_damaged_session_answers_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str) -> None:
    caplog.set_level(logging.DEBUG)
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path, durable=False)})
    message = message_of(ended_at(members, step), step)
    path = tmp_path / f"{DIGEST[:16]}.session"
    path.write_bytes(path.read_bytes()[:-1] if path.exists() else b"\x01")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="session of secure aggregation is damaged"):
        members.participants["ada"].answer(message)  # type: ignore[arg-type]
    reply = reply_through_flower(members.participants["ada"], message)
    assert reply == Refusal(DIGEST, 1, 0, RefusalReason.INTERNAL)
    assert path.read_bytes() == before
    assert "session of secure aggregation is damaged" in caplog.text


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path / "state", durable=False)})
    one_attempt(members)
    files = sorted((tmp_path / "state").iterdir())
    assert {path.suffix for path in files} >= {".safetensors", ".session", ".db"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


# --- what is written down


def numbers_in(vector: Any) -> set[str]:
    """How a coordinate would look in a log, to some digits."""
    return {f"{abs(float(value)):.5f}"[:7] for value in vector if abs(float(value)) > 1e-3}


def test_logs_hold_no_vector_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a whole round and everything that can be refused."""
    caplog.set_level(logging.DEBUG)
    drawn: list[bytes] = []

    def recorded() -> bytes:
        drawn.append(secrets.token_bytes(32))
        return drawn[-1]

    monkeypatch.setattr(secagg_client, "random_secret", recorded)
    monkeypatch.setattr(participants, "random_secret", recorded)
    members = Members(PLAN, stores={"ada": ClientStore(tmp_path, durable=False)})
    ada = members.participants["ada"]
    shown = [repr(ada)]

    def provoke(client: str, message: Message, answer: Answer) -> Message:
        if client == "ada" and isinstance(message, SecureMessage):
            for body in (b"", message.body[:-1], message.body + b"\0", MESSAGES.encode(SurvivorSet((9,)))):
                reply_through_flower(ada, SecureMessage(DIGEST, 1, 0, body))
            reply_through_flower(ada, SecureMessage(DIGEST, 1, 3, message.body))
        reply = reply_through_flower(members.participants[client], message)
        shown.append(repr(reply))
        return reply

    exchange, _ = exchange_of(members, provoke)
    collected = exchange.group_means(request_of(members), NAMES)
    assert collected.excluded == ()
    shown += [repr(collected), repr(members.stores["ada"].load(DIGEST)), caplog.text]
    text = "\n".join(shown)
    assert "round 1 refused" in caplog.text
    update = members.update_of("ada")
    keys = [members.membership_of(name).key.private_bytes_raw() for name in NAMES]
    assert len(drawn) >= 4 * (1 + 3 + 1), "nonce, two keys and a seed, and the rounding of each"
    for secret in (*drawn, *keys):
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
    assert not [number for number in numbers_in(update) | numbers_in(collected.groups[0].mean) if number in text]
    assert not [word for word in encode(layout_of(PLAN), Contribution(update), bytes(32)) if str(word) in text]
