"""What a federation is to the simulator: clients that train, clients that never do, and what the model must fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan


@dataclass(frozen=True, slots=True)
class UnseenClient:
    """A client that never trains: what it may adapt on, and what it is scored on.

    Attributes:
        support: Examples to adapt on, in the order they are taken.
        query: Examples to score on, disjoint from ``support``. None: whatever follows the first k of
            ``support`` (regression in time order), or, for few-shot tasks, episodes drawn from ``support``.
    """

    support: Examples
    query: Examples | None = None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A client left out, by name, and why; never silently."""

    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class Federation:
    """The data of a whole federation, as only a simulation ever sees it.

    Attributes:
        plan: The plan, complete: what it left open is filled in from the data.
        training: Client id -> the examples it trains on; ids sorted. Of simulated data made when it is asked for, so
            that whoever goes through all of them should need them.
        unseen: Client id -> a client kept for evaluation only; disjoint from ``training``.
        excluded: Clients left out.
        source: Where the data comes from and its licence, one line.
    """

    plan: FederationPlan
    training: Mapping[str, Examples]
    unseen: Mapping[str, UnseenClient]
    excluded: tuple[Exclusion, ...] = ()
    source: str = ""
