"""Valid audit logs for tests, entry by entry: real keys, signed statements, checkpoints and cosignatures. No tests.

    log = AuditLogBuilder(audited_plan("rounds.count=3", tables=SECURE))     # charter, enrolment, approvals
    log.round()                                                              # opened, groups, updates, closed, scores
    log.entries, log.note(), log.exported(), log.history

Each step takes what follows from the steps before, and any part of it can be said otherwise: ``log.open(attempt=3)``.
Nothing is checked when an entry is appended, so that a log can be made wrong in one place. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from testudo_common.audit.checkpoints import Checkpoint, Watch, default_quorum, watch_of, witness_name
from testudo_common.audit.entries import (
    AnyEntry,
    Charter,
    Enrolment,
    Evaluation,
    GroupsDrawn,
    Incident,
    IncidentKind,
    LeakageDrill,
    ModelReleased,
    OwnerWithdrawn,
    PlanApproved,
    Price,
    Reason,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
    encode_entry,
)
from testudo_common.audit.extension import encode_extension
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.merkle import Tree, leaf_hash
from testudo_common.audit.notes import KeyKind, Note, PrivateKey, Signer
from testudo_common.audit.statements import Approval, Contribution, Withdrawal, commitment_to, signed
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.privacy.events import Events, Spending
from testudo_common.privacy.planned import scores_spending, sum_spending, training_spending
from testudo_common.roster import Roster, sign_roster
from testudo_common.secagg.groups import partition

PLAIN: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "digits"},
    "task": {"kind": "classification"},
    "model": {"name": "linear", "inputs": [3], "outputs": 2},
    "inner": {"steps": 2, "learning_rate": 0.5, "sample_rate": 0.5},
    "rounds": {"count": 4, "cohort_size": 2},
    "secure_aggregation": {"mode": "plain"},
}
SECURE: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "sine"},
    "task": {"kind": "regression"},
    "model": {"name": "linear", "inputs": [7], "outputs": 1},
    "inner": {"steps": 2, "learning_rate": 0.1, "sample_rate": 1.0},
    "rounds": {"count": 4, "cohort_size": 8},
    "secure_aggregation": {"mode": "secure", "group_size": 4, "min_group": 3},
}
EXAMPLE_PRIVATE = ('privacy.unit="example"', "privacy.noise_multiplier=1.0", "inner.sample_rate=0.5")
CLIENT_PRIVATE = ("client_privacy.noise_multiplier=2.0", "client_privacy.delta=1e-4")
SCORED = ("evaluation.federated_every_rounds=2", "evaluation.federated_noise_multiplier=3.0")
"""Of a plan that is private at the unit of an example."""
TIME = "2026-03-01T12:00:00Z"
SECONDS = 1_772_366_400
"""The same, since 1970."""


def audited_plan(*settings: str, tables: Mapping[str, Any] = PLAIN) -> FederationPlan:
    """A small plan with an audit log, and ``section.key=value`` changed."""
    return parse_plan(tables, source="a test", settings=settings)


def key_called(name: str) -> Ed25519PrivateKey:
    """A key that is the same each time."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a test|" + name.encode()).digest())


def ml_dsa_key_called(name: str) -> MLDSA44PrivateKey:
    """The same, of ML-DSA-44."""
    return MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"a test|" + name.encode()).digest())


def digest_of(*parts: object) -> str:
    """A digest, hex: of nothing in particular, and another for other parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class AuditLogBuilder:
    """A log that a proper server would write, one call an entry.

    Args:
        plan: Complete.
        owners: N; they are called ``owner-00`` and so on.
        federation: Its name.
        log_key: The log's own; None: one of Ed25519.
        enrol: Whether charter, enrolment and everybody's approval are there already.

    Attributes:
        entries: So far, in bytes. A test may change them.
        keys: Owner -> private key.
    """

    def __init__(
        self,
        plan: FederationPlan,
        owners: int = 8,
        *,
        federation: str = "shops",
        log_key: PrivateKey | None = None,
        enrol: bool = True,
    ) -> None:
        self.plan = plan
        self.federation_key = key_called("federation")
        self.log_key: PrivateKey = key_called("log") if log_key is None else log_key
        self.keys = {f"owner-{number:02d}": key_called(f"owner {number}") for number in range(owners)}
        self.federation = federation
        self.entries: list[bytes] = []
        self._history = begin_history(self.federation_public, plan.digest)
        self._ledgers = dict.fromkeys(self.keys, 0)
        if enrol:
            self.charter()
            self.enrol()
            for owner in self.keys:
                self.approve(owner)

    # Who is who.

    @property
    def owners(self) -> tuple[str, ...]:
        """Their ids, sorted."""
        return tuple(self.keys)

    @property
    def federation_public(self) -> bytes:
        """The federation's key, 32 bytes."""
        return self.federation_key.public_key().public_bytes_raw()

    @cached_property
    def log_public(self) -> bytes:
        """The log's key, as a roster has it."""
        kind = KeyKind.ML_DSA_44 if isinstance(self.log_key, MLDSA44PrivateKey) else KeyKind.ED25519
        return bytes([kind]) + self.log_key.public_key().public_bytes_raw()

    def roster(self, owners: Iterable[str] | None = None, **changed: bytes) -> Roster:
        """The roster of all owners, or of some; with other keys for those in ``changed`` (``owner_00``)."""
        members = {owner: self.keys[owner].public_key().public_bytes_raw() for owner in owners or self.owners}
        members.update({name.replace("_", "-"): key for name, key in changed.items()})
        return Roster(self.federation, members, self.log_public)

    def signed_roster(self, roster: Roster | None = None) -> bytes:
        """``roster.json``."""
        return sign_roster(roster or self.roster(), self.federation_key)

    @cached_property
    def watch(self) -> Watch:
        """Whose signatures count."""
        return watch_of(self.roster(), self.plan.digest)

    # What the log says so far.

    @property
    def history(self) -> History:
        """Of all entries.

        Raises:
            AuditError: One of them breaks a rule.
        """
        known = self._history
        if known.size > len(self.entries) or known.root != self.root(known.size):
            known = begin_history(self.federation_public, self.plan.digest)
        if known.size < len(self.entries):
            known = extend(known, tuple(self.entries[known.size :]))
        self._history = known
        return known

    def root(self, size: int | None = None) -> bytes:
        """Of the Merkle tree over the first ``size`` entries."""
        return Tree(leaf_hash(entry) for entry in self.entries[:size]).root()

    def append(self, entry: AnyEntry | bytes) -> int:
        """Any entry; its index."""
        self.entries.append(entry if isinstance(entry, bytes) else encode_entry(entry))
        return len(self.entries) - 1

    # One entry each.

    def charter(self, **said: Any) -> int:
        """What the log is of."""
        plan = self.plan
        fields: dict[str, Any] = {
            "federation": self.federation,
            "plan": plan.model_dump(mode="json"),
            "plan_digest": plan.digest,
            "code": digest_of("code"),
            "environment": digest_of("environment"),
            "quorum": plan.audit.quorum or default_quorum(len(self.keys)),
            "window": plan.audit.window,
        }
        for name, cost in (("training", training_spending), ("scores", scores_spending), ("sum", sum_spending)):
            if name not in said:  # to find the noise can take long
                fields[name] = _price(cost(plan))
        return self.append(Charter(time=TIME, **{**fields, **said}))

    def enrol(self, roster: Roster | None = None, **said: Any) -> int:
        """Who may take part from here on."""
        fields: dict[str, Any] = {"roster": json.loads(self.signed_roster(roster))}
        return self.append(Enrolment(time=TIME, **{**fields, **said}))

    def approve(
        self, owner: str, number: int = 0, *, key: Ed25519PrivateKey | None = None, plan_digest: str | None = None
    ) -> int:
        """An owner approves."""
        statement = Approval(client=owner, number=number)
        statement = signed(statement, key or self.keys[owner], plan_digest or self.plan.digest)
        return self.append(PlanApproved(time=TIME, statement=statement))

    def withdraw(
        self,
        owner: str,
        number: int = 1,
        rounds: tuple[int, ...] | None = None,
        *,
        key: Ed25519PrivateKey | None = None,
    ) -> int:
        """An owner withdraws."""
        statement = signed(Withdrawal(client=owner, number=number), key or self.keys[owner], self.plan.digest)
        rounds = self.history.survived.get(owner, ()) if rounds is None else rounds
        return self.append(OwnerWithdrawn(time=TIME, statement=statement, rounds=rounds))

    def open(self, **said: Any) -> int:
        """The next attempt at a round: the first owners that may still be asked, those asked least first."""
        history, rounds = self.history, self.plan.rounds
        last = history.last_opened
        number = 1 if history.closed is None else history.closed[1].round + 1
        again = last is not None and last.round == number
        may = [owner for owner in self.owners if owner in history.approved and owner in history.roster.members]  # type: ignore[union-attr]
        asked = sorted(may, key=lambda owner: (history.asked.get(owner, 0), owner))[: rounds.cohort_size]
        if again and last is not None:
            asked = [owner for owner in last.cohort if owner in may]
        fields: dict[str, Any] = {
            "round": number,
            "attempt": last.attempt + 1 if again and last is not None else 0,
            "model_digest": history.model_digest or digest_of("model", 0),
            "cohort": tuple(sorted(asked)),
            "clip": self.plan.outer.max_update_norm if self.plan.adapts_clip else None,
        }
        return self.append(RoundOpened(time=TIME, **{**fields, **said}))

    def draw_groups(self, members: Sequence[str] | None = None, **said: Any) -> int:
        """Groups of the open attempt, of all of its cohort or of some."""
        opened = self.opened
        coin = digest_of("coin", opened.round, opened.attempt)
        size = self.plan.secure_aggregation.group_size
        fields: dict[str, Any] = {
            "round": opened.round,
            "attempt": opened.attempt,
            "coin": coin,
            "groups": partition(bytes.fromhex(coin), members or opened.cohort, size),
        }
        return self.append(GroupsDrawn(time=TIME, **{**fields, **said}))

    def contribution(self, owner: str, *, key: Ed25519PrivateKey | None = None, **said: Any) -> Contribution:
        """What an owner says of its update in the open attempt, signed."""
        number, attempt = said.get("round", self.opened.round), said.get("attempt", self.opened.attempt)
        self._ledgers[owner] = self._ledgers.get(owner, 0) + 1
        fields: dict[str, Any] = {
            "round": number,
            "attempt": attempt,
            "commitment": commitment_to(self.salt(owner, number, attempt), self.update_digest(owner, number, attempt)),
            "ledger": digest_of("ledger", owner, self._ledgers[owner]),
        }
        return signed(Contribution(client=owner, **{**fields, **said}), key or self.keys[owner], self.plan.digest)

    def receive(self, owner: str, statement: Contribution | None = None, **said: Any) -> int:
        """An owner's update."""
        return self.append(UpdateReceived(time=TIME, statement=statement or self.contribution(owner, **said)))

    def reject(self, clients: Mapping[str, Reason] | None = None, **said: Any) -> int:
        """Whoever of the cohort sent nothing, or whoever is named."""
        opened = self.opened
        missing = {owner: Reason.NO_REPLY for owner in opened.cohort if owner not in self.history.received}
        fields: dict[str, Any] = {
            "round": opened.round,
            "attempt": opened.attempt,
            "clients": missing if clients is None else dict(clients),
        }
        return self.append(UpdatesRejected(time=TIME, **{**fields, **said}))

    def close(self, *, forgets: bool = False, **said: Any) -> int:
        """The round, with everybody that sent an update and was not rejected, in groups large enough.

        Whoever else was asked is rejected first, if nobody was yet and the log is not to forget it.
        """
        there = {client for group in said.get("survivors", self.survivors) for client in group}
        missing = [client for client in self.opened.cohort if client not in there]
        if missing and not forgets and self.history.opened is not None and self.history.rejected is None:
            self.reject(dict.fromkeys(missing, Reason.UNUSABLE))
        history, opened = self.history, self.opened
        example, client = history.next_accounts()
        fields: dict[str, Any] = {
            "round": opened.round,
            "attempt": opened.attempt,
            "model_digest": digest_of("model", opened.round),
            "survivors": self.survivors,
            "rule": self.plan.robust_rule,
            "withstood": 0,
            "example": example,
            "client": client,
        }
        return self.append(RoundClosed(time=TIME, **{**fields, **said}))

    def evaluate(self, **said: Any) -> int:
        """Scores of the last round."""
        closed = self.history.closed
        assert closed is not None
        fields: dict[str, Any] = {
            "round": closed[1].round,
            "metrics": {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}},
            "noise": {"before": {"accuracy": 0.01}, "after": {"accuracy": 0.01}},
        }
        return self.append(Evaluation(time=TIME, **{**fields, **said}))

    def drill(self, *, passed: bool = True) -> int:
        """A leakage drill."""
        return self.append(LeakageDrill(time=TIME, report=digest_of("drill"), passed=passed))

    def release(self, to: str = "the pilot shops", **said: Any) -> int:
        """The last model leaves."""
        history = self.history
        fields: dict[str, Any] = {
            "round": history.closed[1].round if history.closed else 0,
            "model_digest": history.model_digest or digest_of("model", 0),
            "to": to,
        }
        return self.append(ModelReleased(time=TIME, **{**fields, **said}))

    def incident(self, kind: IncidentKind = IncidentKind.NOTED, note: str = "the office moved") -> int:
        """Something that happened."""
        return self.append(Incident(time=TIME, kind=kind, note=note))

    # Several at once.

    def attempt(self, *, silent: Iterable[str] = ()) -> None:
        """An attempt, up to its updates: opened, groups, everybody's update but those of ``silent``."""
        self.open()
        if self.plan.secure:
            self.draw_groups()
        quiet = set(silent)
        for owner in self.opened.cohort:
            if owner not in quiet:
                self.receive(owner)

    def round(self, *, silent: Iterable[str] = ()) -> int:
        """A whole round; the index of the entry that closes it."""
        self.attempt(silent=silent)
        self.reject()
        index = self.close()
        if self.plan.evaluates_in(self.history.closed[1].round):  # type: ignore[index]
            self.evaluate()
        return index

    def rounds(self, count: int) -> None:
        """Whole rounds."""
        for _ in range(count):
            self.round()

    @property
    def survivors(self) -> tuple[tuple[str, ...], ...]:
        """Who would be in the open round if it closed now."""
        history = self.history
        there = set(history.received) - set(history.rejected or ())
        if not self.plan.secure:
            return tuple((owner,) for owner in sorted(there))
        groups = () if history.groups is None else history.groups[1].groups
        left = [tuple(sorted(there.intersection(group))) for group in groups]
        return tuple(sorted(group for group in left if len(group) >= self.plan.secure_aggregation.min_group))

    @property
    def opened(self) -> RoundOpened:
        """The attempt that was opened last."""
        opened = self.history.last_opened
        assert opened is not None, "no round was opened"
        return opened

    # What an owner keeps.

    @staticmethod
    def salt(owner: str, round_number: int, attempt: int = 0) -> bytes:
        """Of the owner's commitment, 32 bytes."""
        return bytes.fromhex(digest_of("salt", owner, round_number, attempt))

    @staticmethod
    def update_digest(owner: str, round_number: int, attempt: int = 0) -> str:
        """What the owner committed to, hex."""
        return digest_of("update", owner, round_number, attempt)

    # Notes.

    def note(
        self, size: int | None = None, cosigners: Iterable[str] | None = None, *, log_key: PrivateKey | None = None
    ) -> bytes:
        """The checkpoint of the first ``size`` entries, cosigned by everybody or by those named."""
        size = len(self.entries) if size is None else size
        text = Checkpoint(self.watch.origin, size, self.root(size)).text()
        log = Signer(self.watch.log.name, log_key or self.log_key)
        lines = [log.sign(text, SECONDS)]
        for owner in self.owners if cosigners is None else cosigners:
            lines.append(Signer(witness_name(owner), self.keys[owner], cosigner=True).sign(text, SECONDS))
        return Note(text, tuple(lines)).encode()

    def exported(self, size: int | None = None, cosigners: Iterable[str] | None = None) -> bytes:
        """The log as a file."""
        return encode_extension(self.entries[:size], self.note(size, cosigners))


def _price(spending: Spending) -> Price:
    return Price(example=_events(spending.example), client=_events(spending.client))


def _events(events: Events) -> tuple[tuple[float, float, int], ...]:
    return tuple((event.noise_multiplier, event.sample_rate, event.steps) for event in events)


def full_log(plan: FederationPlan, owners: int = 8, **more: Any) -> AuditLogBuilder:
    """A log with every kind of entry in it, over four rounds: an attempt that failed, a dropout, a withdrawal."""
    log = AuditLogBuilder(plan, owners, **more)
    log.round()
    log.attempt(silent=log.owners)
    log.incident(IncidentKind.ROUND_FAILED, "too few replied")
    log.round(silent=(log.history.last_opened.cohort[0],))  # type: ignore[union-attr]
    log.drill()
    log.withdraw(log.owners[-1])
    log.round()
    log.release()
    log.approve(log.owners[-1], 2)
    log.round()
    return log
