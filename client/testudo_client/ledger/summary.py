"""What an owner wants to know of its ledger, as values: epsilon of every account, and what is left. Prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from testudo_client.ledger.account import (
    MOST_ROUNDS,
    Account,
    Ceiling,
    Epsilons,
    epsilon_under,
    epsilons_of,
    rounds_left,
)
from testudo_client.ledger.entries import Entry, NewData, Purpose, Reserved
from testudo_client.ledger.planned import plan_ceilings, round_spending
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Unit

ANY_DATA: Final = ""
"""The fingerprint of data that may share a record with any: spent elsewhere, on nobody can say which rows."""


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One account, of a data set or of a plan.

    Attributes:
        fingerprint: Of the data; None for a plan's account.
        plan_digest: Of the plan; None for a data set's account.
        plan_name: Its name; empty for a data set's account.
        unit: Of the account.
        delta: That the epsilons are at.
        epsilons: By both accountants.
    """

    fingerprint: str | None
    plan_digest: str | None
    plan_name: str
    unit: Unit
    delta: float
    epsilons: Epsilons


@dataclass(frozen=True, slots=True)
class Room:
    """What is left under one ceiling.

    Attributes:
        ceiling: Which.
        spent: Epsilon so far, by the ceiling's accountant.
        rounds: How many more rounds of the plan that was asked about fit; None if none was.
    """

    ceiling: Ceiling
    spent: float
    rounds: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A ledger's accounts.

    Attributes:
        fingerprint: Of the data that ``rooms`` are about; None where the ledger knows none and none was named.
        accounts: Every account that something was spent on.
        rooms: Under the given ceilings, and under the plan's own.
        rounds: How many more rounds of the plan fit under everything; None if no plan was asked about.
    """

    fingerprint: str | None
    accounts: tuple[AccountLine, ...]
    rooms: tuple[Room, ...]
    rounds: int | None


def summarise(
    entries: Sequence[Entry],
    ceilings: Sequence[Ceiling],
    *,
    delta: float,
    fingerprint: str | None = None,
    plan: FederationPlan | None = None,
) -> Summary:
    """The accounts of a ledger, and what is left.

    Args:
        entries: All, in order.
        ceilings: The owner's own.
        delta: At which the accounts' epsilons are.
        fingerprint: The data that is asked about; without, what stands in the ledger last.
        plan: The plan that is asked about.

    Raises:
        PrivacyError: A delta is too small for PRV's arithmetic, or the plan leaves its price open.
    """
    account = Account(entries)
    about = fingerprint if fingerprint is not None else _latest(entries)
    all_ceilings = [*ceilings, *(plan_ceilings(plan) if plan else ())]
    one = round_spending(plan) if plan else None
    rooms = []
    for ceiling in all_ceilings:
        spent = account.spent(about if about is not None else ANY_DATA, ceiling.plan_digest)
        epsilon = epsilon_under(spent, ceiling)
        rooms.append(Room(ceiling, epsilon, None if one is None else rounds_left(spent, one, ceiling)))
    rounds = None
    if plan:
        left = [room.rounds for room in rooms if room.rounds is not None]
        most = plan.rounds.max_participations
        if most is not None:
            left.append(max(0, most - account.answers(plan.digest, Purpose.TRAINING)))
        rounds = min([MOST_ROUNDS, *left])
    return Summary(about, _accounts(entries, account, delta), tuple(rooms), rounds)


def _latest(entries: Sequence[Entry]) -> str | None:
    for entry in reversed(entries):
        if isinstance(entry.content, Reserved | NewData) and entry.content.fingerprint != ANY_DATA:
            return entry.content.fingerprint
    return None


def _accounts(entries: Sequence[Entry], account: Account, delta: float) -> tuple[AccountLine, ...]:
    reserved = [entry.content for entry in entries if isinstance(entry.content, Reserved)]
    names = {content.occasion.plan_digest: content.plan_name for content in reserved}
    data = dict.fromkeys(content.fingerprint for content in reserved)
    found = [(fingerprint, None, "", account.spent(fingerprint)) for fingerprint in data]
    plans = [(None, digest, name, account.spent(ANY_DATA, digest)) for digest, name in names.items()]
    return tuple(
        AccountLine(fingerprint, digest, name, unit, delta, epsilons_of(spent, unit, delta))
        for fingerprint, digest, name, spent in [*found, *plans]
        for unit in Unit
        if spent.of(unit)
    )
