"""A round on made-up data, with made-up peers: to see that a machine can do it, and how long it takes. Keeps nothing.

Trains once as the plan says, under differential privacy where it says so, and takes part in one secure sum of a small
group, all of whose members are played here. No ledger, no log, no file and no real data are touched.
"""

from __future__ import annotations

import os
import resource
import secrets
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.meta_update import meta_update, os_mechanism
from testudo_common.errors import ModelError, TestudoError, UsageError
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg import client, server
from testudo_common.secagg.client import Identity
from testudo_common.secagg.primitives import verification_key
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.secagg.terms import LEAST_MIN_GROUP, Terms
from testudo_common.secure_terms import Attempt, terms_of
from testudo_common.vectors import Vector

MEMBERS = 5
"""Of the made-up group: enough for a threshold."""
_ROWS = 64


@dataclass(frozen=True, slots=True)
class DryRound:
    """How it went.

    Attributes:
        private: Whether it was trained under differential privacy.
        values: d.
        train_seconds: Of one training.
        sum_seconds: Of all members' parts in the sum, and the server's; None: the plan has no secure aggregation.
        peak_bytes: The most that this process held.
    """

    private: bool
    values: int
    train_seconds: float
    sum_seconds: float | None
    peak_bytes: int

    def __str__(self) -> str:
        """For a person."""
        how = "under differential privacy" if self.private else "without differential privacy"
        summed = "" if self.sum_seconds is None else f", {MEMBERS} members' secure sum {self.sum_seconds:.1f} s"
        return (
            f"trained {how} on made-up data in {self.train_seconds:.1f} s{summed}; {self.values:,} values, "
            f"{self.peak_bytes / 1e9:.2f} GB at the most"
        )


def play(plan: FederationPlan, rows: int = 0) -> DryRound:
    """Play it.

    Args:
        plan: That the policy allows.
        rows: Examples to make up; 0: as many as the plan asks for.

    Raises:
        TestudoError: It cannot be trained or summed here.
    """
    learner = Learner(plan)
    examples = made_up(plan, rows or max(_ROWS, getattr(plan.data, "min_rows", 0) or 0))

    def draw(rng: np.random.Generator) -> Examples:
        if plan.task.kind != "few_shot":
            return examples
        assert plan.task.ways is not None and plan.task.shots is not None
        return draw_episode(examples, plan.task.ways, plan.task.shots, 0, rng)[0]

    _warm_up(plan)
    started = time.perf_counter()
    try:
        update = meta_update(learner, plan, learner.vector(), draw, os_mechanism, np.random.default_rng(0))
    except TestudoError:
        raise
    except Exception as error:
        raise ModelError(
            f"the plan's model cannot be trained ({type(error).__name__})",
            where=plan.model.name,
            remedy="tell your federation",
        ) from error
    trained = time.perf_counter()
    summed = None
    if plan.secure:
        _sum_with_peers(plan, np.nan_to_num(update))
        summed = time.perf_counter() - trained
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return DryRound(plan.private, learner.size, trained - started, summed, peak)


def _warm_up(plan: FederationPlan) -> None:
    """What torch and Opacus load at their first step, which takes seconds, is not the model's doing."""
    if plan.task.kind != "few_shot":
        model = plan.model.model_copy(update={"name": "linear", "inputs": (1,), "unshared_head": False})
        small = plan.model_copy(update={"model": model})
        learner, examples = Learner(small), made_up(small, 2)
        meta_update(learner, small, learner.vector(), lambda _: examples, os_mechanism, np.random.default_rng(0))


def made_up(plan: FederationPlan, rows: int) -> Examples:
    """``rows`` examples of the plan's shapes that mean nothing.

    Raises:
        UsageError: The plan does not state its shapes.
    """
    if plan.model.inputs is None or plan.model.outputs is None:
        raise UsageError("the plan does not state the shapes of its model", remedy="ask your federation to state them")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, *plan.model.inputs)).astype(np.float32)
    if plan.task.kind == "regression":
        return Examples(inputs, rng.normal(size=rows).astype(np.float32))
    if plan.task.kind == "few_shot":
        assert plan.task.ways is not None and plan.task.shots is not None
        targets = np.repeat(np.arange(plan.task.ways), plan.task.shots + 1).astype(np.int64)
        return Examples(rng.normal(size=(len(targets), *plan.model.inputs)).astype(np.float32), targets)
    return Examples(inputs, (np.arange(rows) % plan.model.outputs).astype(np.int64))


def _sum_with_peers(plan: FederationPlan, update: Vector) -> None:
    members = {f"made-up-{number}": Identity(f"made-up-{number}", secrets.token_bytes(32)) for number in range(MEMBERS)}
    terms = _terms(plan, members, len(update))
    layout = terms.parameters.layout
    words = encode(layout, Contribution(update), os.urandom(32))
    others = np.zeros(layout.size, dtype=np.uint32)
    vectors = {name: words if number == 0 else others for number, name in enumerate(members)}
    total = _total(terms, members, vectors)
    if not np.array_equal(total, words):
        raise ModelError(
            "the secure sum came out wrong here", remedy="report it, with the versions of what is installed"
        )


def _terms(plan: FederationPlan, members: dict[str, Identity], values: int) -> Terms:
    keys = {name: verification_key(identity.signing_key) for name, identity in members.items()}
    silent = next((number for number in range(1, plan.rounds.count + 1) if not plan.scores_in(number)), 1)
    attempt = Attempt(plan.digest, silent, 0, "00" * 32, plan.outer.max_update_norm if plan.adapts_clip else None)
    terms = terms_of(plan, Roster("made-up", keys), attempt, values)
    layout = replace(terms.parameters.layout, count_bounds=(), count_steps=())
    parameters = replace(
        terms.parameters, group_size=MEMBERS, min_cohort=LEAST_MIN_GROUP, min_group=LEAST_MIN_GROUP, corruption=0.0,
        dropout=0.0, layout=layout, noise=None,
    )  # fmt: skip
    return replace(terms, parameters=parameters)


def _total(
    terms: Terms, members: dict[str, Identity], vectors: dict[str, npt.NDArray[np.uint32]]
) -> npt.NDArray[np.uint32]:
    """The opened sum, every step played in turn; all members stay."""
    states: dict[str, Any] = {}
    said: dict[str, Any] = {}

    def answer(told: dict[str, Any]) -> dict[str, Any]:
        for name, message in told.items():
            states[name], reply = client.step(terms, members[name], states[name], message, vectors[name].copy())
            said[name] = reply
        return {name: said[name].message for name in told}

    for name, identity in members.items():
        states[name], said[name] = client.commit(terms, identity)
    state: Any
    told: Any
    state, told = server.begin(terms, {name: reply.message for name, reply in said.items()})
    replies = answer(dict.fromkeys(members, told))
    (state,), told, _ = server.gather(terms, state, replies)
    replies = answer(dict.fromkeys(members, told))
    state, told, _ = server.share(terms, state, replies)
    answer(dict(told))
    for name in members:
        state = server.accept(state, name, said[name].vector)
    state, told = server.close_masking(terms, state)
    replies = answer(dict.fromkeys(members, told))
    state, told = server.confirm(terms, state, replies)
    replies = answer(dict(told))
    return server.open_sum(terms, state, replies).total
