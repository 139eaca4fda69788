"""Whether the charter's prices are the plan's: else every account in the log would add up, and mean nothing.

How many steps, on which share of the examples, the plan says outright. Its noise is stated, or follows from its target
epsilon; if by RDP, it can be found again here. Where PRV found it, which needs torch, only a bound is checked: PRV is
the tighter one, and never asks for more noise than RDP. The owners, who add the noise, check the figure itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NoReturn

from testudo_common.audit.accounts import spending_of
from testudo_common.audit.entries import Charter
from testudo_common.audit.state import History, plan_of
from testudo_common.errors import AuditError, AuditFault
from testudo_common.privacy.events import Events, SampledGaussian, Spending, compose

PRICE_TOLERANCE: Final = 2e-3
"""Relative: twice what the search for a noise multiplier leaves open."""


def example_price_is_the_plans(state: History, charter: Charter) -> None:
    """Stops a charter in which training, or scoring, costs an example less than it does.

    Raises:
        AuditError: EPSILON.
    """
    plan = plan_of(state)
    if not plan.private:
        return
    from testudo_common.privacy.planned import scored_participations, steps_per_round

    rate, scored = plan.inner.sample_rate, scored_participations(plan)
    noise = charter.training.example[0][0] if charter.training.example else 0.0
    release = SampledGaussian(plan.evaluation.federated_noise_multiplier or 0.0, 1.0, 1)

    def training(multiplier: float) -> Spending:
        return Spending(example=(SampledGaussian(multiplier, rate, steps_per_round(plan)),))

    def scores(multiplier: float) -> Spending:
        return Spending(example=compose([SampledGaussian(multiplier, rate, plan.inner.steps), release]))

    def run(multiplier: float) -> Events:
        often = plan.rounds.max_participations or 0
        return (training(multiplier).times(often) + scores(multiplier).times(scored)).example

    if spending_of(charter.training) != training(noise):
        _fail("training")
    if scored and spending_of(charter.scores) != scores(noise):
        _fail("scoring the model")
    privacy = plan.privacy
    if privacy.epsilon is None:
        _check_stated(noise, privacy.noise_multiplier, "training")
    else:
        _check_found(noise, run, privacy.epsilon, privacy.delta, exact=privacy.accountant == "rdp", what="training")


def client_price_is_the_plans(state: History, charter: Charter) -> None:
    """Stops a charter in which a secure sum costs a client less than it does.

    Raises:
        AuditError: EPSILON.
    """
    plan = plan_of(state)
    if not plan.client_private:
        return
    noise = charter.sum.client[0][0] if charter.sum.client else 0.0
    one = SampledGaussian(noise, 1.0, 1)

    def run(multiplier: float) -> Events:
        return (replace(one, noise_multiplier=multiplier, steps=plan.rounds.max_participations or 0),)

    if spending_of(charter.sum) != Spending(client=(one,)):
        _fail("a secure sum")
    private = plan.client_privacy
    if private.epsilon is None:
        _check_stated(noise, private.noise_multiplier, "a secure sum")
    else:
        _check_found(noise, run, private.epsilon, private.delta, exact=True, what="a secure sum")


def _check_stated(noise: float, stated: float | None, what: str) -> None:
    if stated is None or not math.isclose(noise, stated, rel_tol=PRICE_TOLERANCE):
        _fail(what)


def _check_found(
    noise: float, run: Callable[[float], Events], epsilon: float, delta: float, *, exact: bool, what: str
) -> None:
    """Return only if ``noise`` is as much as the run's target asks for, and no more: more would be told as cheaper."""
    from testudo_common.privacy.accountant import epsilon_of

    if epsilon_of(run(noise / (1 + PRICE_TOLERANCE)), delta, "rdp") <= epsilon:
        _fail(what)
    if exact and epsilon_of(run(noise * (1 + PRICE_TOLERANCE)), delta, "rdp") > epsilon:
        _fail(what)


def _fail(what: str) -> NoReturn:
    raise AuditError(AuditFault.EPSILON, f"the charter's price of {what} is not the one that the plan gives")
