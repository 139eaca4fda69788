"""``testudo-client adapt`` and ``rollback``: from a published meta-model and a table to a version in use, or a refusal.

Nothing is overwritten: a candidate that is refused is kept beside the others, and what was in use stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from testudo_client.data import load_owner_examples, load_owner_table
from testudo_client.home import OwnerHome
from testudo_client.ledger import FINGERPRINT_KEY_FILE
from testudo_client.ledger.account import Ceiling
from testudo_client.ledger.entries import Occasion, Purpose
from testudo_client.ledger.fingerprint import fingerprint_key, fingerprint_of
from testudo_client.personal.adapting import Candidate, candidates_for
from testudo_client.personal.contract import FeatureContract
from testudo_client.personal.few_shot import FewShot
from testudo_client.personal.in_use import losses_in_use, row_digests
from testudo_client.personal.logged import Logged, logged_in
from testudo_client.personal.promotion import Numbers, Verdict, judge
from testudo_client.personal.versions import Version, VersionRecord, VersionStore
from testudo_client.policy.ceilings import policy_ceilings
from testudo_client.reference import keep_reference
from testudo_client.train import Mechanism
from testudo_common.errors import DataError, UsageError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.privacy.accountant import epsilon_of, noise_multiplier_for
from testudo_common.privacy.events import SampledGaussian, Spending
from testudo_common.publication import read_published

OnStep = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """What was asked.

    Attributes:
        meta_model: The published file.
        folder: The owner's.
        data: Its table.
        client: Only this client's rows.
        steps: Of the inner loop; None: as the plan evaluates.
        stays_here: Adapt without privacy, under a private plan too: then nothing of the model may leave.
        epsilon: To spend on adapting under a private plan; None: the plan's.
        log: The federation's log, exported, to find the meta-model in; None: the owner's mirror.
        federation_key: Whose signatures count in it.
    """

    meta_model: Path
    folder: Path
    data: Path
    client: str | None = None
    steps: int | None = None
    stays_here: bool = False
    epsilon: float | None = None
    log: Path | None = None
    federation_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it.

    Attributes:
        record: Of the version that was made.
        log: What the owner's mirror of the federation's log says about the meta-model.
        priors: Whether the federation's calibration was used.
    """

    record: VersionRecord
    log: Logged
    priors: bool


def adapt(request: AdaptRequest, now: datetime, on_step: OnStep = lambda _: None) -> Adapted:
    """Adapt, compare, and put in use what is better than all that could be used instead.

    Args:
        request: What was asked.
        now: By this computer's clock.
        on_step: Told what is being done.

    Raises:
        UsageError: Folder or meta-model cannot be used; or the log names another model.
        DataError: The table cannot be used.
        BudgetError: Adapting privately does not fit into the ledger. Nothing was trained.
    """
    torch.set_num_threads(1)
    home = OwnerHome(request.folder)
    on_step("reading meta-model and table")
    published = read_published(request.meta_model)
    plan = _adaptable(published.plan, request)
    table = load_owner_table(plan, request.data, request.client)
    examples = load_owner_examples(plan, request.data, request.client)
    _check_enough(examples, plan, request.data)
    log = logged_in(home, published, request.log, request.federation_key)
    store = VersionStore(request.folder)
    few = FewShot.of(plan, request.steps)
    private = plan.private and not request.stays_here
    with store.changing():
        number = store.next_id()
        keyed = row_digests(request.folder, examples)
        cost = _charge(home, plan, examples, few, request, number) if private else None
        on_step("adapting, five times out of fold and once on all rows")
        mechanism = None if cost is None else Mechanism.from_os(cost.noise_multiplier, plan.privacy.max_grad_norm)
        adapted, before, majority = candidates_for(published, examples, few, mechanism)
        on_step("comparing")
        others = {"majority": majority.losses, "initialisation": before.losses}
        contenders = [adapted.contender, before.contender, majority.contender]

        def reads(other: FederationPlan) -> Examples:
            return load_owner_examples(other, request.data, request.client)

        if (in_use := losses_in_use(store, plan, len(keyed), reads)) is not None:
            others["in_use"], contender = in_use
            contenders.append(contender)
        chosen, kind, verdict = _decide(adapted, before, others, first=store.current_id() is None)
        assert chosen.own is not None  # the majority guess is never chosen
        contract = FeatureContract.of(_table_data(plan), table)
        record = VersionRecord(
            id=number,
            created=now.isoformat(timespec="seconds"),
            kind=kind,
            meta_model=published.digest,
            meta_round=published.round,
            plan_digest=published.plan_digest,
            contract_digest=contract.digest,
            rows=len(examples),
            steps=few.loop.steps if kind == "adapted" else 0,
            private=private,
            epsilon=None if cost is None else epsilon_of((cost,), plan.privacy.delta, plan.privacy.accountant),
            stays=not private,
            contenders=tuple(contenders),
            promoted=verdict.promoted,
            reason=verdict.reason,
            rows_digest=keyed,
            losses=tuple(chosen.losses.tolist()),
        )
        record = store.add(Version(record, chosen.own, contract))
        keep_reference(request.folder, number, examples.inputs, chosen.outputs, examples.targets.astype(np.float64))
        if verdict.promoted:
            store.use(number, "promoted", now)
    return Adapted(record, log, bool(published.priors))


def roll_back(folder: Path, to: int | None, now: datetime) -> VersionRecord:
    """Put an earlier version in use again: ``to``, or the one that was in use before.

    Raises:
        UsageError: There is none.
    """
    store = VersionStore(folder)
    if not store.ids():
        raise UsageError("there is no version", where=str(folder), remedy="make one: testudo-client adapt")
    with store.changing():
        number = store.before_current() if to is None else to
        if number is None:
            raise UsageError(
                "no earlier version was in use",
                where=str(store.models),
                remedy=f"name one with --to: there are {', '.join(map(str, store.ids()))}",
            )
        store.load(number)  # whole, or it is not put in use
        store.use(number, "rolled back", now)
    return store.record(number)


def _adaptable(plan: FederationPlan, request: AdaptRequest) -> FederationPlan:
    if request.epsilon is not None and (request.stays_here or not plan.private):
        raise UsageError("nothing is charged here", where="--epsilon", remedy="take it out")
    _table_data(plan)
    return plan


def _table_data(plan: FederationPlan) -> TableData:
    if not isinstance(plan.data, TableData):
        raise UsageError(
            f"the meta-model was made on {plan.data.federation!r}, which has no table of a data owner",
            remedy='adapt one whose plan has data.federation = "csv"',
        )
    return plan.data


def _check_enough(examples: Examples, plan: FederationPlan, source: Path) -> None:
    if plan.task.kind == "regression":
        return
    counts = np.unique(examples.targets, return_counts=True)[1]
    if len(counts) < 2:
        raise DataError(
            "all rows are of one class, and from one there is nothing to tell apart",
            where=str(source),
            remedy="bring some rows of another class",
        )
    if counts.max() < 2:
        raise DataError(
            "every class has one row, so that nothing can be held out", where=str(source), remedy="bring more rows"
        )


def _charge(
    home: OwnerHome, plan: FederationPlan, examples: Examples, few: FewShot, request: AdaptRequest, number: int
) -> SampledGaussian:
    """Reserve the price of a private adaptation.

    Raises:
        UsageError: The plan says no epsilon, and neither did the request.
        PolicyError: There is no policy that could allow it.
        BudgetError: It does not fit.
    """
    policy, privacy, steps = home.policy(), plan.privacy, few.loop.steps
    if request.epsilon is None and privacy.epsilon is None:
        noise = privacy.noise_multiplier or 0.0
    else:
        epsilon = request.epsilon or privacy.epsilon or 0.0
        noise = noise_multiplier_for(epsilon, privacy.delta, plan.inner.sample_rate, steps, privacy.accountant)
    event = SampledGaussian(noise, plan.inner.sample_rate, steps)
    ceilings: tuple[Ceiling, ...] = policy_ceilings(policy, None)
    home.ledger(policy).reserve(
        Occasion("", 0, number, Purpose.ADAPTATION),
        plan_name=plan.name,
        fingerprint=fingerprint_of(examples, fingerprint_key(home.folder / FINGERPRINT_KEY_FILE)),
        spending=Spending(example=(event,)),
        ceilings=ceilings,
    )
    return event


def _decide(
    adapted: Candidate, before: Candidate, others: dict[str, Numbers], *, first: bool
) -> tuple[Candidate, Literal["adapted", "initialisation"], Verdict]:
    """The adapted model where the gate lets it through; the meta-model as it is where nothing is in use yet."""
    verdict = judge(adapted.losses, others)
    if verdict.promoted or not first:
        return adapted, "adapted", verdict
    as_it_is = judge(before.losses, {"majority": others["majority"]})
    if not as_it_is.promoted:
        return adapted, "adapted", Verdict(False, f"{verdict.reason}; the meta-model as it is: {as_it_is.reason}")
    reason = f"the meta-model as it is, {as_it_is.reason}; adapted it was {verdict.reason}"
    return before, "initialisation", Verdict(True, reason)
