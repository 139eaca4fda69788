"""Small plans, examples and messages for tests; what they hold is as little as makes them valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from flwr.app import RecordDict

from testudo_client.consent import Consent
from testudo_client.gate import Gate
from testudo_client.ledger import Ledger
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_client.train import Mechanism
from testudo_common.flower_records import reply_in
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import Message, TrainRequest, decode
from testudo_simulations.consent import SimulatedConsent

CLASSIFICATION: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "digits"},
    "task": {"kind": "classification"},
    "model": {"name": "linear", "inputs": [3], "outputs": 2},
    "inner": {"steps": 2, "learning_rate": 0.5, "sample_rate": 0.5},
    "rounds": {"count": 4, "cohort_size": 2},
    "secure_aggregation": {"mode": "plain"},
}
REGRESSION: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "sine"},
    "task": {"kind": "regression"},
    "model": {"name": "linear", "inputs": [3], "outputs": 1},
    "inner": {"steps": 2, "learning_rate": 0.1, "sample_rate": 1.0},
    "rounds": {"count": 4, "cohort_size": 2},
    "secure_aggregation": {"mode": "plain"},
}
FEW_SHOT: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "omniglot"},
    "task": {"kind": "few_shot", "ways": 2, "shots": 1},
    "model": {"name": "linear", "inputs": [3], "outputs": 2},
    "inner": {"steps": 2, "learning_rate": 0.5, "sample_rate": 1.0},
    "rounds": {"count": 4, "cohort_size": 2},
    "secure_aggregation": {"mode": "plain"},
}

OWNERS_TABLE: dict[str, Any] = {
    "name": "shops",
    "data": {
        "federation": "csv",
        "client": "shop",
        "target": "sold",
        "columns": [{"name": "price"}, {"name": "size"}],
        "labels": ["no", "yes"],
        "min_rows": 2,
    },
    "task": {"kind": "classification"},
    "model": {"name": "linear", "inputs": [2], "outputs": 2},
}
"""For owners with a CSV file each, ``price,size,sold``."""


def make_plan(*settings: str, tables: Mapping[str, Any] = CLASSIFICATION) -> FederationPlan:
    """A small plan with ``section.key=value`` changed; without an audit log unless a setting asks for one."""
    return parse_plan(tables, source="a test", settings=("audit.mode=off", *settings))


def make_examples(count: int = 12, *, regression: bool = False, inputs: int = 3, seed: int = 0) -> Examples:
    """``count`` examples that mean nothing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, inputs)).astype(np.float32)
    if regression:
        return Examples(features, rng.normal(size=count).astype(np.float32))
    return Examples(features, (np.arange(count) % 2).astype(np.int64))


def message_in(records: RecordDict) -> Message:
    """What a client answered, signed or not."""
    return decode(reply_in(records)[0])


def request_for(
    plan: FederationPlan, model: Vector | None = None, *, round_number: int = 1, attempt: int = 0
) -> TrainRequest:
    """A proper request of the plan's server; from the plan's initial model unless another is given."""
    model = Learner(plan).vector() if model is None else model
    return TrainRequest(plan.digest, round_number, attempt, vector_digest(model), model)


def without_noise(noise_multiplier: float, max_grad_norm: float, seeded: np.random.Generator) -> Mechanism:
    """A repeatable mechanism for a noise multiplier of zero."""
    assert noise_multiplier == 0
    return Mechanism(noise_multiplier, max_grad_norm, torch.Generator(), seeded)


class Chosen:
    """A sampling generator that draws the rows it is told to: below any sample rate, or above."""

    def __init__(self, *steps: list[int]) -> None:
        self._steps = list(steps)

    def random(self, count: int) -> np.ndarray:
        numbers = np.ones(count)
        numbers[self._steps.pop(0)] = 0.0
        return numbers


_LEDGERS: WeakKeyDictionary[ClientStore, Ledger] = WeakKeyDictionary()


def ledger_of(store: ClientStore) -> Ledger:
    """The ledger that goes with a store: beside its files, or as long in memory as the store is."""
    folder = store._folder
    if folder is not None:
        return Ledger(folder / "ledger.db", durable=False)
    return _LEDGERS.setdefault(store, Ledger(None))


def gate_of(plan: FederationPlan, store: ClientStore, consent: Consent | None = None, **more: Any) -> Gate:
    """A gate that lets through all that the plan's own ceilings allow."""
    consent = SimulatedConsent(plan) if consent is None else consent
    return Gate(plan, ledger_of(store), consent, "ab" * 32, **more)


def make_participant(
    plan: FederationPlan, examples: Examples | None = None, store: ClientStore | None = None, **more: Any
) -> Participant:
    """A participant that remembers in memory only, unless it is given a store."""
    return Participant(
        "ada",
        plan,
        make_examples() if examples is None else examples,
        store := ClientStore(None) if store is None else store,
        **{"gate": gate_of(plan, store), **more},
    )
