"""The first two entries of an audit log: what it is of, what taking part costs, and whose keys count. Pure but for what
is installed here, which it reads.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import testudo_common
import testudo_server
from testudo_common.audit.checkpoints import default_quorum
from testudo_common.audit.entries import Charter, Enrolment, Price
from testudo_common.code_digest import digest_of_environment, digest_of_sources
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Events, Spending
from testudo_common.privacy.planned import scores_spending, sum_spending, training_spending
from testudo_common.roster import Roster


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256, in hex, of the packages of common and server that this process imports; read once."""
    packages = (testudo_common, testudo_server)
    return digest_of_sources(Path(path) for package in packages for path in package.__path__)


def charter_of(plan: FederationPlan, roster: Roster, time: str, bundle: str | None = None) -> Charter:
    """The charter of a plan's log.

    Args:
        plan: Complete, with an audit log.
        roster: Of all who may take part.
        time: UTC.
        bundle: SHA-256 of the Flower app bundle, hex, where it is known.

    Raises:
        PrivacyError: No noise is enough for the plan's epsilon, or it is not known how often a client takes part.
    """
    return Charter(
        time=time,
        federation=roster.federation,
        plan=plan.model_dump(mode="json"),
        plan_digest=plan.digest,
        code=code_digest(),
        environment=digest_of_environment(),
        bundle=bundle,
        quorum=plan.audit.quorum or default_quorum(len(roster.members)),
        window=plan.audit.window,
        training=_price(training_spending(plan)),
        scores=_price(scores_spending(plan)),
        sum=_price(sum_spending(plan)),
    )


def enrolment_of(signed_roster: bytes, time: str) -> Enrolment:
    """The entry that a signed ``roster.json`` becomes."""
    return Enrolment(time=time, roster=json.loads(signed_roster))


def _price(spending: Spending) -> Price:
    return Price(example=_events(spending.example), client=_events(spending.client))


def _events(events: Events) -> tuple[tuple[float, float, int], ...]:
    return tuple((event.noise_multiplier, event.sample_rate, event.steps) for event in events)
