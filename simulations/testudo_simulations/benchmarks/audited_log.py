"""A log as a server writes it, of any length: valid from its charter on, and cosigned by everybody. For benchmarks.

Of a plan with secure aggregation and noise at both units, so that every rule has something to check: rounds of twenty
clients in groups, each an entry of its own, and two accounts whenever a round closes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.audit.checkpoints import Checkpoint, default_quorum, witness_name
from testudo_common.audit.entries import (
    AnyEntry,
    Charter,
    Enrolment,
    GroupsDrawn,
    PlanApproved,
    Price,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
    encode_entry,
)
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.notes import Note, Signer
from testudo_common.audit.statements import Approval, Contribution, signed
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.privacy.events import Events, Spending
from testudo_common.privacy.planned import scores_spending, sum_spending, training_spending
from testudo_common.roster import Roster, sign_roster
from testudo_common.secagg.groups import partition

OWNERS: Final = 20
_SECONDS: Final = 1_772_366_400
_TIME: Final = "2026-03-01T12:00:00Z"
_PLAN: Final[dict[str, Any]] = {
    "name": "benchmark",
    "data": {"federation": "sine"},
    "task": {"kind": "regression"},
    "model": {"name": "linear", "inputs": [7], "outputs": 1},
    "inner": {"steps": 2, "learning_rate": 0.1, "sample_rate": 0.5},
    "rounds": {"count": 1000, "cohort_size": OWNERS, "max_participations": 1000},
    "secure_aggregation": {"mode": "secure", "group_size": 5, "min_group": 3},
    "privacy": {"unit": "example", "noise_multiplier": 8.0},
    "client_privacy": {"noise_multiplier": 20.0, "delta": 1e-4},
}


@dataclass(frozen=True, slots=True)
class AuditedLog:
    """Entries, and who vouches for them.

    Attributes:
        entries: Each in canonical form.
        note: Over all of them, with everybody's cosignature.
        federation_key: Ed25519, 32 bytes.
        history: What they establish.
    """

    entries: tuple[bytes, ...]
    note: bytes
    federation_key: bytes
    history: History


def audited_log(least: int) -> AuditedLog:
    """A log of whole rounds, of at least ``least`` entries."""
    plan = parse_plan(_PLAN, source="a benchmark")
    keys = {f"owner-{number:02d}": _key(number) for number in range(1, OWNERS + 1)}
    members = {owner: key.public_key().public_bytes_raw() for owner, key in keys.items()}
    log, federation = _key(1000), _key(1001)
    roster = Roster("shops", members, b"\x01" + log.public_key().public_bytes_raw())
    history = begin_history(federation.public_key().public_bytes_raw(), plan.digest)
    entries: list[bytes] = []

    def append(new: list[AnyEntry]) -> None:
        nonlocal history
        data = tuple(encode_entry(entry) for entry in new)
        history = extend(history, data)
        entries.extend(data)

    append([_charter(plan), Enrolment(time=_TIME, roster=json.loads(sign_roster(roster, federation)))])
    approvals = {owner: signed(Approval(client=owner, number=0), key, plan.digest) for owner, key in keys.items()}
    append([PlanApproved(time=_TIME, statement=approval) for approval in approvals.values()])
    for number in range(1, plan.rounds.count + 1):
        if len(entries) >= least:
            break
        append(_begun(plan, keys, number))
        append(_finished(plan, history, number))
    assert history.watch is not None
    text = Checkpoint(history.watch.origin, history.size, history.root).text()
    signers = [Signer(history.watch.log.name, log)]
    signers += [Signer(witness_name(owner), key, cosigner=True) for owner, key in keys.items()]
    note = Note(text, tuple(signer.sign(text, _SECONDS) for signer in signers)).encode()
    return AuditedLog(tuple(entries), note, history.federation_key, history)


def _charter(plan: FederationPlan) -> Charter:
    return Charter(
        time=_TIME,
        federation="shops",
        plan=plan.model_dump(mode="json"),
        plan_digest=plan.digest,
        code=_digest("code"),
        environment=_digest("environment"),
        quorum=default_quorum(OWNERS),
        window=plan.audit.window,
        training=_price(training_spending(plan)),
        scores=_price(scores_spending(plan)),
        sum=_price(sum_spending(plan)),
    )


def _begun(plan: FederationPlan, keys: dict[str, Ed25519PrivateKey], number: int) -> list[AnyEntry]:
    """A round up to its updates, all of which arrive."""
    coin, model = _digest("coin", number), _digest("model", number - 1)
    groups = partition(bytes.fromhex(coin), tuple(keys), plan.secure_aggregation.group_size)
    said = [
        Contribution(
            client=owner,
            round=number,
            attempt=0,
            commitment=_digest("update", owner, number),
            ledger=_digest("ledger", owner, number),
        )
        for owner in keys
    ]
    return [
        RoundOpened(time=_TIME, round=number, attempt=0, model_digest=model, cohort=tuple(keys)),
        GroupsDrawn(time=_TIME, round=number, attempt=0, coin=coin, groups=groups),
        *(UpdateReceived(time=_TIME, statement=signed(each, keys[each.client], plan.digest)) for each in said),
    ]


def _finished(plan: FederationPlan, history: History, number: int) -> list[AnyEntry]:
    assert history.groups is not None
    example, client = history.next_accounts()
    closed = RoundClosed(
        time=_TIME,
        round=number,
        attempt=0,
        model_digest=_digest("model", number),
        survivors=tuple(sorted(tuple(sorted(group)) for group in history.groups[1].groups)),
        rule=plan.robust_rule,
        withstood=0,
        example=example,
        client=client,
    )
    return [UpdatesRejected(time=_TIME, round=number, attempt=0, clients={}), closed]


def _key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32))


def _digest(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


def _price(spending: Spending) -> Price:
    return Price(example=_events(spending.example), client=_events(spending.client))


def _events(events: Events) -> tuple[tuple[float, float, int], ...]:
    return tuple((event.noise_multiplier, event.sample_rate, event.steps) for event in events)
