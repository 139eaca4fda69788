"""A participant of a plan with an audit log: it trains on what the log holds and a quorum has seen, and says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit_logs import PLAIN, SECURE, AuditLogBuilder, audited_plan
from helpers import gate_of, ledger_of, make_examples, make_participant, make_plan, request_for
from secure_federation import Link, Members, carried, kind_of, names_of
from testudo_client.ledger import Ceiling
from testudo_client.membership import Membership
from testudo_client.owner_log import OwnerLog
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_client.witness import Witness
from testudo_common.audit.extension import decode_testimony
from testudo_common.audit.statements import Contribution, commitment_to, parse_statement, verify_statement
from testudo_common.errors import ApprovalError, PolicyError, UsageError
from testudo_common.learning.learner import initial_vector
from testudo_common.privacy.events import Unit
from testudo_common.secagg.bindings import commitments_digest
from testudo_common.secagg.groups import draw_coin, partition
from testudo_common.secagg.messages import MESSAGES, CommitmentList, Directory
from testudo_common.secure_terms import attempt_of, terms_of
from testudo_common.vectors import vector_digest
from testudo_common.wire import LogUpdate, Refusal, RefusalReason, SecureMessage, TrainReply, Witnessed
from testudo_server.exchange import RoundLog
from testudo_server.secure_exchange import SecureExchange
from watching import ME, NOW, Watching

PLAN = audited_plan("rounds.cohort_size=5")
MODEL = initial_vector(PLAN)
NO_DATA: Any = None
"""Examples of an owner whose data must not be touched."""


class Watched:
    """The participant of an owner that watches: all in memory but for its own log."""

    def __init__(self, folder: Path, examples: Any = None, consent: Any = None) -> None:
        self.store = ClientStore(None)
        self.watching = Watching(PLAN, ledger=ledger_of(self.store))
        self.log = OwnerLog(folder / "owner.log")
        self.participant = Participant(
            ME,
            PLAN,
            examples,
            self.store,
            gate_of(PLAN, self.store, consent, log=self.log),
            witness=self.watching.witness,
        )

    def open(self) -> None:
        """Round 1 from the plan's own model, as far as the owner is told of it."""
        self.watching.log.open(model_digest=vector_digest(MODEL))
        assert isinstance(self.participant.answer(self.watching.update()), Witnessed)

    def ask(self, **said: Any) -> Any:
        return self.participant.answer(self.watching.request(model=MODEL, **said))

    @property
    def sentences(self) -> list[str]:
        return [line.sentence for line in self.log.lines()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path, make_examples())


def test_what_the_log_holds_is_trained_on_and_signed_for(watched: Watched) -> None:
    watched.open()
    reply = watched.ask()
    assert isinstance(reply, TrainReply) and reply.statement is not None
    statement = parse_statement(reply.statement)
    assert isinstance(statement, Contribution)
    verify_statement(statement, watched.watching.log.roster().members[ME], PLAN.digest)
    salt = watched.watching.witness._record.salt(1, 0)
    assert salt is not None
    assert statement.commitment == commitment_to(salt, vector_digest(reply.update))
    # With the reservation in it, and what was trained noted.
    assert statement.ledger == watched.watching.ledger.head.hex()
    assert len(watched.watching.ledger) == 3


def test_retry_is_answered_with_the_same_statement(watched: Watched) -> None:
    watched.open()
    first, second = watched.ask(), watched.ask()
    assert first.statement == second.statement
    assert np.array_equal(first.update, second.update)


def test_without_a_quorum_nothing_is_trained(tmp_path: Path) -> None:
    watched = Watched(tmp_path, NO_DATA)
    watched.open()
    reply = watched.ask(cosigners=watched.watching.log.owners[:3])
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.NO_QUORUM
    assert "3 witnesses have cosigned" in watched.sentences[-1]
    assert len(watched.watching.ledger) == 1


def test_what_is_not_in_the_log_is_not_trained_on(tmp_path: Path) -> None:
    watched = Watched(tmp_path, NO_DATA)
    watched.open()
    reply = watched.ask(attempt=1)
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.NOT_LOGGED
    assert "attempt 1 was asked for" in watched.sentences[-1]
    assert len(watched.watching.ledger) == 1


def test_run_that_begins_from_another_model(tmp_path: Path) -> None:
    watched = Watched(tmp_path, NO_DATA)
    other = MODEL + np.float32(1)
    watched.watching.log.open(model_digest=vector_digest(other))
    watched.participant.answer(watched.watching.update())
    request = watched.watching.request(model=other)
    reply = watched.participant.answer(request)
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.LOG_NOT_TRUSTED
    assert watched.sentences[-1] == "entry 7: the run began from another model than the plan's"
    reply = watched.participant.answer(request)
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.LOG_NOT_TRUSTED
    assert "it has stopped at 2026-03-01T12:00:00Z" in watched.sentences[-1]
    assert len(watched.watching.ledger) == 1


class No:
    """Consent that is refused, or ceilings that nothing fits under."""

    def __init__(self) -> None:
        self.error: Exception | None = ApprovalError("this plan is not approved")
        self.ceiling: tuple[Ceiling, ...] = (Ceiling("a test", Unit.EXAMPLE, 0.5, 1e-5, "rdp"),)

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def ceilings(self) -> tuple[Ceiling, ...]:
        return self.ceiling


def test_order_of_refusals(tmp_path: Path) -> None:
    """Halted, then the log, then policy and approval, then the ledger, then the data: each only if all before hold."""
    consent, found = No(), []
    watched = Watched(tmp_path, make_examples(), consent)
    watched.participant._examples = NO_DATA
    watched.open()
    record, log = watched.watching.witness._record, watched.watching.log
    record._kept["halt"] = b"{}"
    found.append(watched.ask(cosigners=()).reason)
    del record._kept["halt"]
    found.append(watched.ask(cosigners=()).reason)
    found.append(watched.ask().reason)
    consent.error = PolicyError([], source="policy.toml")
    found.append(watched.ask().reason)
    consent.error = None
    found.append(watched.ask().reason)
    assert len(watched.watching.ledger) == 1
    consent.ceiling = ()
    with pytest.raises(Exception, match="NoneType"):
        watched.ask()
    assert len(watched.watching.ledger) == 2, "charged before the data was touched"
    watched.participant._examples = make_examples()
    assert isinstance(watched.ask(), TrainReply)
    assert log.history.opened is not None
    assert found == [
        RefusalReason.LOG_NOT_TRUSTED,
        RefusalReason.NO_QUORUM,
        RefusalReason.NOT_APPROVED,
        RefusalReason.NOT_ALLOWED,
        RefusalReason.PRIVACY_SPENT,
    ]


def test_owner_without_consent_watches_on(tmp_path: Path) -> None:
    watched = Watched(tmp_path, NO_DATA, No())
    watched.watching.log.incident()
    answer = watched.participant.answer(watched.watching.update())
    assert isinstance(answer, Witnessed) and decode_testimony(answer.body).cosignature
    assert not watched.sentences


def test_log_that_breaks_a_rule_is_refused_and_the_owners_log_says_where(watched: Watched) -> None:
    watched.watching.log.open(round=3)
    reply = watched.participant.answer(watched.watching.update())
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.LOG_NOT_TRUSTED
    assert watched.sentences == ["entry 7: round 3 is opened where round 1 is next"]
    (line,) = watched.log.lines()
    assert (line.event, line.reason, line.plan) == ("refused", "log_not_trusted", PLAN.digest)


def test_log_of_another_plan(watched: Watched) -> None:
    reply = watched.participant.answer(LogUpdate("ab" * 32, 1, 0, 0, b""))
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.OTHER_PLAN


def test_plan_without_a_log_has_none() -> None:
    plan = make_plan()
    participant = make_participant(plan)
    reply = participant.answer(request_for(plan))
    assert isinstance(reply, TrainReply) and reply.statement is None
    refusal = participant.answer(LogUpdate(plan.digest, 1, 0, 0, b""))
    assert isinstance(refusal, Refusal) and refusal.reason is RefusalReason.OTHER_PLAN


def test_plan_with_a_log_needs_a_witness() -> None:
    with pytest.raises(UsageError, match="does not watch it"):
        make_participant(audited_plan(tables=PLAIN))


# Secure aggregation.

SECURE_PLAN = audited_plan("rounds.cohort_size=4", "rounds.min_replies=3", tables=SECURE)
SECURE_MODEL = initial_vector(SECURE_PLAN)
NAMES = names_of(4)


class WatchedMembers(Members):
    """Members that all watch one log."""

    def __init__(self) -> None:
        self.log = AuditLogBuilder(SECURE_PLAN, 4)
        self.watches: dict[str, Watching] = {}
        super().__init__(SECURE_PLAN, NAMES)

    def membership_of(self, name: str) -> Membership:
        return Membership(self.log.keys[name], self.log.roster(), self.log.federation_public)

    def make(self, name: str, store: ClientStore | None = None) -> Participant:
        store = store or self.stores[name]
        watching = Watching(SECURE_PLAN, log=self.log, ledger=ledger_of(store))
        watching.witness = Witness(name, SECURE_PLAN, self.membership_of(name), watching.voice, now=lambda: NOW)
        self.watches[name] = watching
        place = self.names.index(name)
        return Participant(
            name,
            SECURE_PLAN,
            self._examples(place),
            store,
            gate_of(SECURE_PLAN, store),
            self.learner,
            membership=self.membership_of(name),
            witness=watching.witness,
        )

    def tell(self) -> None:
        """What is new in the log, to everybody."""
        for name, watching in self.watches.items():
            answer = self.participants[name].answer(watching.update())
            assert isinstance(answer, Witnessed) and answer.body, answer


class Logged(RoundLog):
    """What an honest server writes; or leaves out, or writes otherwise."""

    def __init__(self, members: WatchedMembers, coin: bytes | None = None, *, groups: bool = True) -> None:
        self._members, self._coin, self._groups = members, coin, groups
        self.statements: dict[str, str] = {}

    def groups_drawn(self, coin: bytes, groups: tuple[tuple[str, ...], ...]) -> None:
        if self._groups:
            coin = self._coin or coin
            names = [name for group in groups for name in group]
            self._members.log.draw_groups(names, coin=coin.hex(), **_groups_of(coin, names))
            self._members.tell()

    def received(self, client: str, statement: str | None) -> str | None:
        assert statement is not None
        self.statements[client] = statement
        return None

    def all_received(self) -> None:
        for name, text in self.statements.items():
            statement = parse_statement(text)
            assert isinstance(statement, Contribution)
            self._members.log.receive(name, statement)


def _groups_of(coin: bytes, names: list[str]) -> Mapping[str, Any]:
    return {"groups": partition(coin, names, SECURE_PLAN.secure_aggregation.group_size)}


def played(members: WatchedMembers, log: Logged) -> tuple[Any, Link]:
    """Round 1 with everybody."""
    members.log.open(model_digest=vector_digest(SECURE_MODEL))
    members.tell()
    link = Link(members.participants)
    exchange = SecureExchange(link, SECURE_PLAN, members.log.roster())
    request = replace(request_for(SECURE_PLAN, SECURE_MODEL), body=members.log.note())
    return exchange.group_means(request, NAMES, log), link


def test_secure_round_with_its_groups_and_statements_in_the_log() -> None:
    members = WatchedMembers()
    log = Logged(members)
    collected, link = played(members, log)
    (group,) = collected.groups
    assert group.members == NAMES
    for name in NAMES:
        (masked,) = [
            reply for reply in link.said_by(name) if isinstance(reply, SecureMessage) and reply.masked is not None
        ]
        assert masked.statement == log.statements[name]
        statement = parse_statement(log.statements[name])
        salt = members.watches[name].witness._record.salt(1, 0)
        assert isinstance(statement, Contribution) and salt is not None
        assert statement.commitment == commitment_to(salt, vector_digest(members.update_of(name)))
        assert statement.ledger == members.watches[name].ledger.head.hex()
        others = [reply for reply in link.said_by(name) if isinstance(reply, SecureMessage) and reply is not masked]
        assert all(reply.statement is None for reply in others)
    members.log.close()
    members.tell()
    assert members.log.history.closed is not None


@pytest.mark.parametrize(("lie", "word"), [("none", "not_logged"), ("coin", "log_not_trusted")])
def test_no_share_leaves_into_a_group_that_the_log_does_not_hold(lie: str, word: str) -> None:
    members = WatchedMembers()
    coin = hashlib.sha256(b"another").digest() if lie == "coin" else None
    before = {name: len(watching.ledger) for name, watching in members.watches.items()}
    collected, link = played(members, Logged(members, coin, groups=lie != "none"))
    assert not collected.groups
    for name in NAMES:
        kinds = [kind_of(reply) for reply in link.said_by(name) if isinstance(reply, SecureMessage)]
        assert kinds == ["Commitment", "Advertisement"]
        assert next(reply.reason.value for reply in link.said_by(name) if isinstance(reply, Refusal)) == word
        assert len(members.watches[name].ledger) == before[name] + 2, "training is charged, and no sum"


def test_refused_directory_leaves_the_session_as_it_was() -> None:
    """So the same directory, once the log has its groups, is answered."""
    members = WatchedMembers()
    _, link = played(members, Logged(members, groups=False))
    (directory,) = [m for name, kind, m, _ in link.log if (name, kind) == ("owner-00", "Directory")]
    assert isinstance(directory, SecureMessage)
    entries = MESSAGES.decode(directory.body)
    listed = MESSAGES.decode(link.told["CommitmentList"].body)  # type: ignore[union-attr]
    assert isinstance(entries, Directory) and isinstance(listed, CommitmentList)
    request = request_for(SECURE_PLAN, SECURE_MODEL)
    terms = terms_of(SECURE_PLAN, members.log.roster(), attempt_of(request), len(SECURE_MODEL))
    coin = draw_coin(
        terms.round_context,
        commitments_digest(listed.entries),
        [(entry.client_id, entry.advertisement.nonce) for entry in entries.entries],
    )
    members.log.draw_groups(NAMES, coin=coin.hex(), **_groups_of(coin, list(NAMES)))
    members.tell()
    reply = members.participants["owner-00"].answer(carried(directory))
    assert isinstance(reply, SecureMessage) and kind_of(reply) == "SharedKeys"


def test_owner_that_was_stopped_answers_no_step() -> None:
    members = WatchedMembers()
    members.log.open(model_digest=vector_digest(SECURE_MODEL))
    members.tell()
    request = replace(request_for(SECURE_PLAN, SECURE_MODEL), body=members.log.note())
    ada = members.participants[ME]
    commitment = ada.answer(request)
    assert isinstance(commitment, SecureMessage)
    members.watches[ME].witness._record._kept["halt"] = b"{}"
    reply = ada.answer(commitment)
    assert isinstance(reply, Refusal) and reply.reason is RefusalReason.LOG_NOT_TRUSTED
