"""What can stand in the audit log: frozen values, each with one canonical form in bytes (RFC 8785). No rule, no tree.

An entry in bytes, broken here into lines::

    {"attempt":0,"clip":null,"cohort":["shop-1","shop-2","shop-3"],"model_digest":"9f86...","round":3,
     "barred":[],"time":"2026-03-01T12:00:00Z","type":"round_opened","version":1}

Nothing of a single client's data has a place to stand in: no norm, no loss, no number of examples, and of its update
only a salted commitment. What must follow what is history.py's.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import rfc8785
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from testudo_common.audit.statements import (
    Approval,
    Attempt,
    Contribution,
    Hex,
    Record,
    Round,
    Withdrawal,
    canonical_words,
)
from testudo_common.errors import AuditError, AuditFault

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 1 << 24
_REMEMBERED_BYTES: Final = 1 << 16


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Time = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
    AfterValidator(_is_a_time),
]
Names = tuple[str, ...]
Event = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=0)]]
"""Noise multiplier, sample rate, steps: one mechanism, as testudo_common.privacy.events has it."""


class Reason(StrEnum):
    """Why an update is not in the round. Coarse on purpose."""

    NO_REPLY = "no_reply"
    REFUSED = "refused"
    UNUSABLE = "unusable"
    LEFT_OUT = "left_out"
    GROUP_NOT_OPENED = "group_not_opened"
    NOT_ENROLLED = "not_enrolled"


class IncidentKind(StrEnum):
    """What an incident was."""

    ROUND_FAILED = "round_failed"
    RESUMED = "resumed"
    NO_QUORUM = "no_quorum"
    NOTED = "noted"
    """Written down by a person."""


class Entry(Record):
    """Base of every entry.

    Attributes:
        version: Of the format.
        time: UTC, by the server's clock.
    """

    version: Literal[1] = VERSION
    time: Time


class Price(Record):
    """What something costs in privacy, in each unit's own account."""

    example: tuple[Event, ...] = ()
    client: tuple[Event, ...] = ()


class Account(Record):
    """One unit's account of the client that was asked most often.

    Attributes:
        events: Everything so far, composed: equal mechanisms merged, sorted.
        delta: At which epsilon is told.
        epsilon: By RDP, whatever the plan's accountant, so that anybody can recompute it; None: there is no bound.
    """

    events: tuple[Event, ...]
    delta: float
    epsilon: float | None


class Charter(Entry):
    """The first entry: what this log is of.

    Attributes:
        federation: Its name.
        plan: All of the plan, as its digest covers it.
        plan_digest: SHA-256, hex.
        code: Digest of the server's installed packages, see testudo_common.code_digest.
        environment: SHA-256 over ``name==version`` of all installed distributions, one a line, sorted.
        bundle: SHA-256 of the Flower app bundle, where the server knows it.
        quorum: k, witnesses that have to cosign.
        window: Rounds for which a cosignature counts.
        training: What training for one round costs a client.
        scores: What scoring the model once costs it.
        sum: What taking part in one secure sum costs it.
    """

    type: Literal["charter"] = "charter"
    federation: str
    plan: dict[str, Any]
    plan_digest: Hex
    code: Hex
    environment: Hex
    bundle: Hex | None = None
    quorum: Annotated[int, Field(ge=1)]
    window: Annotated[int, Field(ge=1)]
    training: Price
    scores: Price
    sum: Price


class Enrolment(Entry):
    """Who may take part from here on, and whose keys count; the second entry, and whenever the roster changed.

    Attributes:
        roster: ``roster.json`` as an object, with the federation's signature.
    """

    type: Literal["enrolment"] = "enrolment"
    roster: dict[str, Any]


class PlanApproved(Entry):
    """An owner approves the plan."""

    type: Literal["plan_approved"] = "plan_approved"
    statement: Approval


class OwnerWithdrawn(Entry):
    """An owner takes no further part: a tombstone. It does not say that anything was unlearned.

    Attributes:
        statement: The owner's.
        rounds: Closed rounds that its updates are in.
    """

    type: Literal["owner_withdrawn"] = "owner_withdrawn"
    statement: Withdrawal
    rounds: tuple[Round, ...]


class RoundOpened(Entry):
    """An attempt at a round begins; clients train when they have seen this.

    Attributes:
        round: 1 and up.
        attempt: 0 and up.
        model_digest: Of the model that everybody trains from.
        cohort: Who is asked, sorted.
        barred: Whom strikes had singled out, sorted.
        clip: S of the round, where the plan adapts it.
    """

    type: Literal["round_opened"] = "round_opened"
    round: Round
    attempt: Attempt
    model_digest: Hex
    cohort: Names
    barred: Names = ()
    clip: float | None = None


class GroupsDrawn(Entry):
    """The groups of secure aggregation; clients mask when they have seen this.

    Attributes:
        round: 1 and up.
        attempt: 0 and up.
        coin: The public coin, which every client recomputes.
        groups: Members of each, in the order that the coin gives them.
    """

    type: Literal["groups_drawn"] = "groups_drawn"
    round: Round
    attempt: Attempt
    coin: Hex
    groups: tuple[Names, ...]


class UpdateReceived(Entry):
    """A client's update has arrived: masked, or in the open where the plan has it so."""

    type: Literal["update_received"] = "update_received"
    statement: Contribution


class GroupRejected(Record):
    """A group whose sum counts for nothing."""

    members: Names
    reason: str = Field(pattern=r"^[a-z_]{1,40}$")


class UpdatesRejected(Entry):
    """Who of the cohort is not in the round, and why.

    Attributes:
        round: 1 and up.
        attempt: 0 and up.
        clients: Client id -> why.
        groups: Groups that were not opened, each with a fixed word of secure aggregation.
    """

    type: Literal["updates_rejected"] = "updates_rejected"
    round: Round
    attempt: Attempt
    clients: dict[str, Reason]
    groups: tuple[GroupRejected, ...] = ()


class RoundClosed(Entry):
    """A round is finished.

    Attributes:
        round: 1 and up.
        attempt: The one that brought in enough.
        model_digest: Of the model after it.
        survivors: Whose updates are in it: those of each group; every client by itself in the open.
        rule: What made one update of the groups', in order.
        withstood: f, bad rows that the rule was run against.
        example: Account at the unit of one example.
        client: Account at the unit of one client.
    """

    type: Literal["round_closed"] = "round_closed"
    round: Round
    attempt: Attempt
    model_digest: Hex
    survivors: tuple[Names, ...]
    rule: Names
    withstood: Annotated[int, Field(ge=0)]
    example: Account | None = None
    client: Account | None = None


class Evaluation(Entry):
    """Scores of the model that round opened with, summed over all clients that scored it; noisy under privacy.

    Attributes:
        round: 1 and up.
        metrics: ``before`` and ``after`` adaptation -> metric -> value.
        noise: In the same places, the standard deviation that noise gives it.
    """

    type: Literal["evaluation"] = "evaluation"
    round: Round
    metrics: dict[str, dict[str, float]]
    noise: dict[str, dict[str, float]] = Field(default_factory=dict)


class LeakageDrill(Entry):
    """Somebody tried to read data out of what the server sees.

    Attributes:
        report: SHA-256 of the report.
        passed: Whether nothing was found.
    """

    type: Literal["leakage_drill"] = "leakage_drill"
    report: Hex
    passed: bool


class ModelReleased(Entry):
    """A model leaves the federation.

    Attributes:
        round: After which.
        model_digest: Of the model.
        to: For whom, in words.
    """

    type: Literal["model_released"] = "model_released"
    round: Annotated[int, Field(ge=0)]
    model_digest: Hex
    to: Annotated[str, StringConstraints(max_length=200)]


class Incident(Entry):
    """Something went wrong, or a person wrote something down.

    Attributes:
        kind: Fixed words.
        round: In which, where there is one.
        note: In words; never of data.
    """

    type: Literal["incident"] = "incident"
    kind: IncidentKind
    round: Annotated[int, Field(ge=0)] | None = None
    note: Annotated[str, StringConstraints(max_length=500)] = ""


AnyEntry = (
    Charter
    | Enrolment
    | PlanApproved
    | OwnerWithdrawn
    | RoundOpened
    | GroupsDrawn
    | UpdateReceived
    | UpdatesRejected
    | RoundClosed
    | Evaluation
    | LeakageDrill
    | ModelReleased
    | Incident
)
_ENTRIES: TypeAdapter[AnyEntry] = TypeAdapter(Annotated[AnyEntry, Field(discriminator="type")])


def encode_entry(entry: AnyEntry) -> bytes:
    """The entry's bytes, which the tree covers."""
    fields = entry.model_dump(mode="json")
    return canonical_words(fields) if isinstance(entry, UpdateReceived) else rfc8785.dumps(fields)


def decode_entry(data: bytes) -> AnyEntry:
    """The entry in ``data``. A short one is remembered, since in a simulation every client reads the same bytes.

    Raises:
        AuditError: It is not one, or not in canonical form.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise AuditError(AuditFault.FORMAT, "an entry that is too long")
    return _decoded(data) if len(data) <= _REMEMBERED_BYTES else _decoded.__wrapped__(data)


@lru_cache(maxsize=1 << 12)
def _decoded(data: bytes) -> AnyEntry:
    try:
        entry = _ENTRIES.validate_json(data)
        canonical = encode_entry(entry)
    except (ValidationError, ValueError, RecursionError) as error:
        # Its text could carry what the entry holds, so only the kind of fault is told.
        raise AuditError(AuditFault.FORMAT, "not an entry of a known type") from error
    if canonical != data:
        raise AuditError(AuditFault.FORMAT, "an entry that is not written in canonical form")
    return entry
