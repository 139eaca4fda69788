"""Secure aggregation without its masks: the same bits as the real protocol, and nothing that a real client would do."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import make_examples, make_plan
from secure_federation import (
    NOISY,
    SECURE,
    STEPS,
    Answer,
    Falling,
    Link,
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
from testudo_client import participant as participants
from testudo_client import secure_side
from testudo_client.app import build_client_app
from testudo_client.participant import Participant
from testudo_common.errors import PlanError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.plan.sections import SecureAggregationPlan
from testudo_common.secagg import client as secagg_client
from testudo_common.secagg.messages import MESSAGES, MaskedInput
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.secure_terms import Attempt, terms_of
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainRequest
from testudo_server import secure_exchange
from testudo_server.app import run_federation
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Collected
from testudo_server.robust import aggregate
from testudo_server.secure_exchange import SecureExchange
from testudo_server.store import RoundRecord, RunStore
from testudo_simulations import mask_free
from testudo_simulations.federations import load_federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.mask_free import MaskFreeExchange, MaskFreeParticipant, draw_groups
from testudo_simulations.owners import Owners
from testudo_simulations.secure_summary import secure_summary

TWELVE = names_of(12)
ROOT = Path(__file__).resolve().parents[2]


def drawn(name: str, what: str) -> bytes:
    """A client's nonce or rounding key: from its name alone, so that both runs draw the same."""
    return hashlib.sha256(f"{what} of {name}".encode()).digest()


class Acting(Link):
    """A link that knows whose turn it is."""

    now = ""

    def deliver(self, requests: Any, *, deadline_seconds: float) -> Any:
        yield from super().deliver(requests, deadline_seconds=deadline_seconds)

    def _answer(self, client: str, message: Message) -> Message:
        Acting.now = client
        return super()._answer(client, message)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonces and rounding keys by client name; keys, seeds and shares stay random."""
    real = secagg_client.commit

    def commit(terms: Any, identity: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(secagg_client, "random_secret", lambda: drawn(identity.client_id, "nonce"))
            return real(terms, identity)

    monkeypatch.setattr(secure_side, "commit", commit)
    monkeypatch.setattr(participants, "random_secret", lambda: drawn(Acting.now, "rounding"))
    monkeypatch.setattr(mask_free, "random_secret", lambda: drawn(Acting.now, "rounding"))


Lose = Callable[[str, Message, Answer], "Message | None"]


def real(
    plan: FederationPlan, lose: Lose, examples: Any = None, *, sum_only: bool = False, at_once: int | None = None
) -> tuple[Collected, Members, Link]:
    members = Members(plan, TWELVE, examples=examples)
    link = Acting(members.participants, lose)
    exchange = SecureExchange(link, plan, members.keys.roster, sum_only=sum_only, at_once=at_once)
    return exchange.group_means(request_of(members), TWELVE), members, link


def without_masks(
    plan: FederationPlan, lose: Lose, examples: Any = None, *, sum_only: bool = False
) -> tuple[Collected, Members, Link]:
    kinds: dict[str, type[Participant]] = dict.fromkeys(TWELVE, MaskFreeParticipant)
    members = Members(plan, TWELVE, kinds=kinds, examples=examples)
    link = Acting(members.participants, lose)
    nonces = iter(drawn(name, "nonce") for name in TWELVE)
    exchange = MaskFreeExchange(link, plan, members.keys.roster, lambda: next(nonces), sum_only=sum_only)
    return exchange.group_means(request_of(members), TWELVE), members, link


def nobody(client: str, message: Message, answer: Answer) -> Message:
    return answer()


def twelve(*more: str) -> FederationPlan:
    return secure_plan("rounds.cohort_size=12", "secure_aggregation.group_size=4", *more)


PLANS = {
    "one vote each": twelve(),
    "few bits": twelve("secure_aggregation.value_bits=8"),
    "weights": twelve("secure_aggregation.max_weight=20"),
    "counts": twelve("evaluation.federated_every_rounds=1"),
    "weights and counts": twelve("secure_aggregation.max_weight=20", "evaluation.federated_every_rounds=1"),
    "one group": twelve("secure_aggregation.group_size=12"),
    "clipped": twelve("outer.max_update_norm=0.01"),
}


def examples_of_many_sizes(place: int) -> Any:
    return make_examples(3 + 2 * place, regression=True, inputs=7, seed=place)


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("gone", [(), TWELVE[:2], TWELVE[3:6]], ids=["all there", "two gone", "three gone"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_same_bits_as_the_real_protocol(plan: FederationPlan, gone: tuple[str, ...]) -> None:
    """Sums, means, groups and counts, with clients that drop out when they were about to mask."""

    def before_masking(client: str, message: Message, answer: Answer) -> Message | None:
        return None if client in gone and kind_of(message) == "Deliveries" else answer()

    def at_all(client: str, message: Message, answer: Answer) -> Message | None:
        return None if client in gone else answer()

    masked, members, link = real(plan, before_masking, examples_of_many_sizes)
    clear, _, _ = without_masks(plan, at_all, examples_of_many_sizes)
    assert len(masked.records) == len(groups_of(members, link)) == max(1, 12 // plan.secure_aggregation.group_size)
    assert masked.groups or gone
    assert [group.members for group in masked.groups] == [group.members for group in clear.groups]
    assert [group.votes for group in masked.groups] == [group.votes for group in clear.groups]
    for one, other in zip(masked.groups, clear.groups, strict=True):
        assert one.mean.tobytes() == other.mean.tobytes()
        assert one.mean.any()
    assert masked.counts.dtype == clear.counts.dtype == np.int64
    if masked.groups:
        assert masked.counts.tobytes() == clear.counts.tobytes()
        assert masked.counts.any() == plan.evaluates_in(1)
    assert masked.records == clear.records
    assert {name for name, _ in masked.excluded} == {name for name, _ in clear.excluded}


@pytest.mark.usefixtures("fixed")
def test_group_means_that_are_added_up_have_the_same_bits_too() -> None:
    plan = twelve("secure_aggregation.max_weight=20")

    def before_masking(client: str, message: Message, answer: Answer) -> Message | None:
        return None if client == TWELVE[4] and kind_of(message) in ("Deliveries", "TrainRequest") else answer()

    def masking_only(client: str, message: Message, answer: Answer) -> Message | None:
        return answer() if kind_of(message) == "TrainRequest" else before_masking(client, message, answer)

    masked, _, _ = real(plan, masking_only, examples_of_many_sizes, sum_only=True)
    clear, _, _ = without_masks(plan, before_masking, examples_of_many_sizes, sum_only=True)
    kept, _, _ = without_masks(plan, before_masking, examples_of_many_sizes)
    assert masked.mean is not None and clear.mean is not None
    assert masked.mean.tobytes() == clear.mean.tobytes()
    assert masked.groups == clear.groups == kept.groups, "but for the means, which are not compared"
    assert [group.mean for group in (*masked.groups, *clear.groups)] == [None] * 6
    assert masked.records == clear.records == kept.records
    one, other = (aggregate(plan, collected, 0) for collected in (clear, kept))
    np.testing.assert_allclose(one.vector, other.vector, rtol=2**-23)
    np.testing.assert_array_equal(one.influence, other.influence)


@pytest.mark.usefixtures("fixed")
def test_groups_that_go_one_after_the_other_come_to_the_same() -> None:
    """With members that drop out, one before it masks and one after it, in different groups; and with counts."""
    plan = twelve("secure_aggregation.max_weight=20", "evaluation.federated_every_rounds=1")
    _, members, link = real(plan, nobody, examples_of_many_sizes)
    groups = groups_of(members, link)
    gone = {groups[0][1]: "Deliveries", groups[1][2]: "Confirmations", groups[2][0]: "SurvivorSet"}

    def lose(client: str, message: Message, answer: Answer) -> Message | None:
        return None if gone.get(client) == kind_of(message) else answer()

    together, _, _ = real(plan, lose, examples_of_many_sizes, sum_only=True)
    apart, _, link = real(plan, lose, examples_of_many_sizes, sum_only=True, at_once=2)
    assert together.mean is not None and apart.mean is not None
    assert apart.mean.tobytes() == together.mean.tobytes()
    assert (apart.groups, apart.records, apart.excluded) == (together.groups, together.records, together.excluded)
    assert [len(group.members) for group in apart.groups].count(3) == 1
    assert apart.counts.tobytes() == together.counts.tobytes()
    assert (apart.cost.bytes_up, apart.cost.bytes_down) == (together.cost.bytes_up, together.cost.bytes_down)
    of_wave = {name: place // 2 for place, group in enumerate(groups) for name in group}
    told = [(of_wave[name], STEPS.index(kind)) for name, kind, _, _ in link.log if kind in STEPS[2:]]
    assert told == sorted(told), "every step of one wave before any of the next"


@pytest.mark.usefixtures("fixed")
def test_a_wave_that_is_lost_leaves_the_others_alone() -> None:
    _, members, link = real(twelve(), nobody)
    groups = groups_of(members, link)

    def lose(client: str, message: Message, answer: Answer) -> Message | None:
        return None if client in groups[1] and kind_of(message) == "Directory" else answer()

    found, _, _ = real(twelve(), lose, at_once=1)
    assert [group.members for group in found.groups] == sorted(tuple(sorted(groups[i])) for i in (0, 2))
    assert [record.fault for record in found.records] == ["", "too_few", ""]
    assert {name for name, _ in found.excluded} == set(groups[1])


def test_a_group_is_opened_before_the_next_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one sum is held at a time; where somebody does not answer, its group waits for the end."""
    asked: list[str] = []
    opened: list[int] = []
    decode = mask_free.decode

    def decoded(*arguments: Any) -> Any:
        opened.append(len(asked))
        return decode(*arguments)

    def noted(client: str, message: Message, answer: Answer) -> Message | None:
        asked.append(client)
        return None if len(asked) == 2 else answer()

    monkeypatch.setattr(mask_free, "decode", decoded)
    found, _, _ = without_masks(twelve(), noted)
    groups = [{*asked[:4]}, {*asked[4:8]}, {*asked[8:]}]
    assert [{*record.members} for record in found.records] == groups
    assert opened == [8, 12, 12]
    assert found.excluded == ((asked[1], "no reply before the deadline"),)


@pytest.mark.usefixtures("fixed")
def test_sums_before_decoding_are_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only what is left of them as float32."""
    totals: dict[str, list[bytes]] = {"real": [], "clear": []}
    decode = secure_exchange.decode

    def keeping(where: str) -> Any:
        def decoded(layout: Any, total: Any, survivors: int, share: Any) -> Any:
            assert share is None
            totals[where].append(total.tobytes())
            return decode(layout, total, survivors, share)

        return decoded

    monkeypatch.setattr(secure_exchange, "decode", keeping("real"))
    monkeypatch.setattr(mask_free, "decode", keeping("clear"))
    plan = twelve("secure_aggregation.max_weight=20", "evaluation.federated_every_rounds=1")
    real(plan, nobody, examples_of_many_sizes)
    without_masks(plan, nobody, examples_of_many_sizes)
    assert len(totals["real"]) == 3
    assert totals["real"] == totals["clear"]


@pytest.mark.usefixtures("fixed")
def test_a_garbled_vector_loses_the_same_group() -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 32, 8, dtype=np.uint32)

    def garble(client: str, message: Message, answer: Answer) -> Message:
        reply = answer()
        if client == TWELVE[5] and isinstance(reply, SecureMessage) and reply.masked is not None:
            return dataclasses.replace(reply, masked=reply.masked + noise)
        return reply

    masked, _, _ = real(twelve(), garble)
    clear, _, _ = without_masks(twelve(), garble)
    assert [record.blamed for record in masked.records].count(True) == 1
    assert masked.records == clear.records
    assert [group.mean.tobytes() for group in masked.groups] == [group.mean.tobytes() for group in clear.groups]


def test_rounding_differs_where_it_is_not_fixed() -> None:
    """Otherwise the tests above could pass because nothing was random."""
    means = {without_masks(twelve(), nobody)[0].groups[0].mean.tobytes() for _ in range(3)}
    assert len(means) == 3


def test_means_are_means() -> None:
    found, members, _ = without_masks(twelve(), nobody)
    for group in found.groups:
        off = off_by(layout_of(members.plan))
        np.testing.assert_allclose(group.mean, members.mean_of(group.members), rtol=0, atol=off)


def test_groups_are_drawn_from_whoever_is_present() -> None:
    plan = twelve()
    members = Members(plan, TWELVE)
    request = request_of(members)
    terms = terms_of(plan, members.keys.roster, Attempt(plan.digest, 1, 0, request.model_digest), 8)
    nonces = {name: drawn(name, "nonce") for name in TWELVE}
    _, groups = draw_groups(terms, nonces, set(TWELVE))
    assert sorted(name for group in groups for name in group) == list(TWELVE)
    _, fewer = draw_groups(terms, nonces, set(TWELVE[1:]))
    assert sorted(name for group in fewer for name in group) == list(TWELVE[1:])
    assert draw_groups(terms, {**nonces, TWELVE[0]: bytes(32)}, set(TWELVE))[1] != groups


def test_without_masks_and_a_log_nobody_needs_a_key(tmp_path: Path) -> None:
    """Of a hundred thousand clients each costs a key to make, a signature to give and one to check."""
    settings = ("data.clients=4", "data.unseen_clients=1", "rounds.count=1")
    tables = {**SECURE, "data": {"federation": "sine"}, "model": {"name": "linear"}}
    federation = load_federation(make_plan(*settings, tables=tables), None)
    owners = Owners(federation, None, None, masks=False)
    grid = InProcessGrid(build_client_app(owners), 4)
    store = RunStore(tmp_path, durable=False)
    state = run_federation(
        grid, federation.plan, store, clients=4, exchange_of=lambda link: MaskFreeExchange(link, federation.plan)
    )
    assert state.round == 1
    assert [len(members) for record in store.records() for members, _ in record.influence] == [4]


# --- silence, refusals and attempts


def test_refusals_and_silence_have_their_reasons() -> None:
    plan = twelve(*NOISY, "rounds.max_participations=1")

    def mixed(client: str, message: Message, answer: Answer) -> Any:
        if client == TWELVE[0]:
            return None
        if client == TWELVE[1]:
            return "Flower error 2"
        if client == TWELVE[2]:
            return Refusal(plan.digest, 1, 0, RefusalReason.PRIVACY_SPENT)
        return answer()

    found, _, _ = without_masks(plan, mixed)
    excluded = dict(found.excluded)
    assert excluded[TWELVE[0]] == "no reply before the deadline"
    assert excluded[TWELVE[1]] == "Flower error 2"
    assert excluded[TWELVE[2]] == "refused: privacy_spent"
    summed = {name for group in found.groups for name in group.members}
    assert summed.isdisjoint(excluded)
    assert summed | set(excluded) == set(TWELVE)


def test_update_is_remembered_and_paid_for_once() -> None:
    plan = twelve(*NOISY)
    kinds: dict[str, type[Participant]] = dict.fromkeys(TWELVE, MaskFreeParticipant)
    members = Members(plan, TWELVE, kinds=kinds)
    exchange = MaskFreeExchange(Link(members.participants), plan, members.keys.roster)
    for attempt in range(2):
        exchange.group_means(request_of(members, attempt=attempt), TWELVE)
    (event,) = members.participants[TWELVE[0]].spent
    assert event.steps == plan.inner.steps


def test_attempts_are_told_apart(tmp_path: Path) -> None:
    """Two draws of one round are two partitions: to count them as one would be none."""
    plan = twelve("rounds.min_replies=12", "rounds.count=2", "inner.sample_rate=0.5")
    kinds: dict[str, type[Participant]] = dict.fromkeys(TWELVE, MaskFreeParticipant)
    members = Members(plan, TWELVE, kinds=kinds)
    noise = np.random.default_rng(0).integers(0, 1 << 32, 8, dtype=np.uint32)

    def garble(client: str, message: Message, answer: Answer) -> Message:
        reply = answer()
        assert isinstance(message, TrainRequest)
        if client == TWELVE[5] and message.round == 1 and message.attempt == 0:
            assert isinstance(reply, SecureMessage)
            assert reply.masked is not None
            return dataclasses.replace(reply, masked=reply.masked + noise)
        return reply

    exchange = MaskFreeExchange(Link(members.participants, garble), plan, members.keys.roster)
    runner = Coordinator(plan, exchange, RunStore(tmp_path, durable=False))
    runner.run(runner.begin(np.zeros(8, dtype=np.float32), TWELVE))
    first, second = RunStore(tmp_path).records()
    assert sorted({group.attempt for group in first.groups}) == [0, 1]
    assert [group.attempt for group in second.groups] == [0, 0, 0]
    summary = secure_summary(plan, (first, second), 8, None, masks=False)
    assert (summary.mode, summary.attempts, summary.groups_opened, summary.groups_lost) == ("mask-free", 3, 8, 1)


def test_summary_counts_attempts_that_ended_before_there_were_groups(tmp_path: Path) -> None:
    plan = twelve("rounds.count=1")
    members = Members(plan, TWELVE)
    exchange, _ = exchange_of(members, Falling(members.participants, {TWELVE[0]: ("CommitmentList", False)}))
    runner = Coordinator(plan, exchange, RunStore(tmp_path, durable=False))
    runner.run(runner.begin(np.zeros(8, dtype=np.float32), TWELVE))
    records: tuple[RoundRecord, ...] = RunStore(tmp_path).records()
    assert secure_summary(plan, records, 8, 0.0, masks=True).attempts == 2


# --- it cannot be switched on outside simulations


@pytest.mark.parametrize(
    "setting",
    [
        'secure_aggregation.mode="mask-free"',
        'secure_aggregation.mode="mask_free"',
        "secure_aggregation.masks=false",
        "secure_aggregation.mask_free=true",
        "secure_aggregation.unmasked=true",
        'secure_aggregation.mode="none"',
    ],
)
def test_no_plan_has_a_word_for_it(setting: str) -> None:
    with pytest.raises(PlanError):
        parse_plan(SECURE, source="a test", settings=[setting])


def test_modes_of_a_plan_are_two() -> None:
    assert SecureAggregationPlan.model_json_schema()["properties"]["mode"]["enum"] == ["secure", "plain"]


PROBE = """
import importlib, pkgutil, sys
for package in ("testudo_common", "testudo_client", "testudo_server"):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        importlib.import_module(module.name)
print("loaded:", *sorted(name for name in sys.modules if name.startswith("testudo_simulations")))
"""


def test_nothing_of_a_real_federation_imports_the_simulator(tmp_path: Path) -> None:
    """A new interpreter, since this one has loaded it."""
    paths = [str(ROOT / top) for top in ("common", "client", "server", "simulations")]
    probe = f"import sys; sys.path[:0] = {paths}\n{PROBE}"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].split() == ["loaded:"]


def test_real_participant_never_answers_the_mask_free_exchange() -> None:
    members = Members(twelve(), TWELVE)
    link = Link(members.participants)
    found = MaskFreeExchange(link, members.plan, members.keys.roster).group_means(request_of(members), TWELVE)
    assert (found.groups, found.counts.any()) == ((), False)
    assert {name for name, _ in found.excluded} == set(TWELVE)
    replies = [reply for _, _, _, reply in link.log if isinstance(reply, SecureMessage)]
    assert len(replies) == 12
    assert all(kind_of(reply) == "Commitment" and reply.masked is None for reply in replies)


@pytest.mark.usefixtures("fixed")
def test_real_participant_never_sends_what_the_mask_free_one_does() -> None:
    """With the rounding known, what it would send in clear is known too: it is nowhere in what leaves."""
    found, members, link = real(twelve(), nobody)
    assert len(found.groups) == 3
    for name in TWELVE:
        clear = encode(layout_of(members.plan), Contribution(members.update_of(name)), drawn(name, "rounding"))
        vectors = [reply.masked for reply in link.said_by(name) if isinstance(reply, SecureMessage)]
        (masked,) = [vector for vector in vectors if vector is not None]
        assert vectors[STEPS.index("Deliveries")] is masked
        assert (masked != clear).all()
        assert not any(
            clear.tobytes() in reply.body for reply in link.said_by(name) if isinstance(reply, SecureMessage)
        )


@pytest.mark.parametrize("body", [MaskedInput()])
def test_real_participant_asked_for_its_masked_input_outright(body: Any) -> None:
    members = Members(twelve(), TWELVE)
    ada = members.participants[TWELVE[0]]
    asking = SecureMessage(members.plan.digest, 1, 0, MESSAGES.encode(body), np.zeros(8, dtype=np.uint32))
    for _ in range(2):
        reply = ada.answer(asking)
        assert isinstance(reply, Refusal)
        assert reply.reason is RefusalReason.PROTOCOL_BROKEN
        ada.answer(request_of(members))


def test_mask_free_participant_has_no_place_in_the_real_protocol() -> None:
    """So that nobody takes a run without masks for one with them."""
    kinds: dict[str, type[Participant]] = dict.fromkeys(TWELVE, MaskFreeParticipant)
    members = Members(twelve(), TWELVE, kinds=kinds)
    exchange, _ = exchange_of(members)
    found = exchange.group_means(request_of(members), TWELVE)
    assert found.groups == ()
    assert set(dict(found.excluded).values()) == {"reply not understood"}
