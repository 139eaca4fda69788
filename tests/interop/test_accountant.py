"""Epsilon against an independent oracle, Google's dp-accounting: never below it, and within one per cent."""

from __future__ import annotations

import itertools
import logging
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

import testudo_common
from helpers import make_plan
from testudo_common.errors import PrivacyError
from testudo_common.privacy.accountant import (
    _ORDERS,
    AccountantName,
    _rdp_of_one_step,
    epsilon_of,
    noise_multiplier_for,
)
from testudo_common.privacy.events import SampledGaussian, compose
from testudo_common.privacy.planned import (
    participations_for,
    planned_event,
    planned_noise_multiplier,
    run_spending,
    steps_per_round,
)
from testudo_common.privacy.renyi import renyi_divergences

DELTA = 1e-5
TWENTY_ROUNDS = (SampledGaussian(1.0, 0.1, 20 * 10),)
MIXED = (SampledGaussian(2.0, 0.1, 10), SampledGaussian(3.0, 0.2, 20), SampledGaussian(2.0, 1.0, 3))
HISTORIES = {
    "20 rounds of 10 steps": TWENTY_ROUNDS,
    "one round": (SampledGaussian(1.0, 0.1, 10),),
    "one step": (SampledGaussian(1.0, 0.1, 1),),
    "little noise": (SampledGaussian(0.6, 0.1, 2),),
    "much noise": (SampledGaussian(20.0, 0.5, 20),),
    "no sampling": (SampledGaussian(1.5, 1.0, 10),),
    "rare samples": (SampledGaussian(1.0, 0.01, 1000),),
    "tiny epsilon": (SampledGaussian(5.0, 0.01, 10),),
    "mixed": MIXED,
}


@pytest.fixture(autouse=True)
def quiet_oracle() -> Iterator[None]:
    """It warns of orders that it leaves out."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@lru_cache
def oracle(events: tuple[SampledGaussian, ...], accountant: AccountantName, delta: float = DELTA) -> float:
    """dp-accounting's epsilon: PLD for PRV (two ways to the same exact value), RDP for RDP."""
    book = PLDAccountant() if accountant == "prv" else RdpAccountant()
    for event in events:
        step = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        book.compose(dp_accounting.PoissonSampledDpEvent(event.sample_rate, step), event.steps)
    return float(book.get_epsilon(delta))


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("events", HISTORIES.values(), ids=HISTORIES.keys())
def test_epsilon_is_the_oracles(events: tuple[SampledGaussian, ...], accountant: AccountantName) -> None:
    ours, theirs = epsilon_of(events, DELTA, accountant), oracle(events, accountant)
    # Ours may be above by PRV's absolute error, which is more than one per cent of the tiniest epsilon.
    assert 0.99 * theirs <= ours <= 1.01 * theirs + 1e-4


@pytest.mark.parametrize("events", HISTORIES.values(), ids=HISTORIES.keys())
def test_neither_accountant_reports_less_than_is_spent(events: tuple[SampledGaussian, ...]) -> None:
    """PLD's own value is exact to 1e-4 here; a Gaussian (GDP) approximation is far below it."""
    spent = oracle(events, "prv")
    for accountant in ("prv", "rdp"):
        assert epsilon_of(events, DELTA, accountant) >= spent - 1e-4  # type: ignore[arg-type]


@pytest.mark.parametrize(("sample_rate", "noise_multiplier"), [(0.05, 0.3), (0.1, 1.0), (0.5, 2.0), (1.0, 1.5)])
@pytest.mark.parametrize("order", [1.1, 1.5, 2.0, 3.3, 10.0, 20])
def test_renyi_divergence_of_a_step_equals_its_integral(
    sample_rate: float, noise_multiplier: float, order: float
) -> None:
    """Mironov, Talwar, Zhang 2019, theorem 4: E over N(0, sigma^2) of (mixture / N(0, sigma^2))^order."""
    sigma = noise_multiplier
    points = np.linspace(-40 * sigma - 2, 40 * sigma + order + 2, 400_001)
    base = -(points**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    with np.errstate(divide="ignore"):
        rest = np.log1p(-np.float64(sample_rate))
    ratio = np.logaddexp(rest, math.log(sample_rate) + (2 * points - 1) / (2 * sigma**2))
    exponent = order * ratio + base
    integral = np.exp(exponent - exponent.max()).sum() * (points[1] - points[0])
    expected = (exponent.max() + math.log(integral)) / (order - 1)
    found = _rdp_of_one_step(sample_rate, noise_multiplier)[_ORDERS.index(order)]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sample_rate", [1e-4, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("noise_multiplier", [0.05, 1.24, 300.0])
def test_renyi_divergences_are_opacus_sums(sample_rate: float, noise_multiplier: float) -> None:
    """Term by term to rounding; what rounds is the logarithm of A_alpha, which is near 0 where noise is plenty."""
    orders = (1.1, 1.5, 2.0, 3.3, 10.9, 17.0, 63.0, 1024.0)
    theirs = np.asarray(compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)))
    log_a = renyi_divergences(sample_rate, noise_multiplier, orders) * (np.asarray(orders) - 1)
    np.testing.assert_allclose(log_a, theirs * (np.asarray(orders) - 1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("history", ["20 rounds of 10 steps", "rare samples", "mixed"])
def test_prv_is_opacus(history: str) -> None:
    """Its own accountant, which finds the domain by itself, at the error that is asked for here."""
    book, events = PRVAccountant(), HISTORIES[history]
    book.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in events]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = book.get_epsilon(DELTA, eps_error=0.004 * epsilon_of(events, DELTA, "rdp"))
    assert epsilon_of(events, DELTA, "prv") == pytest.approx(theirs, rel=1e-9)


def test_gaussian_approximation_would_fail_the_test_above() -> None:
    """Bu et al. 2020 (GDP): mu = q sqrt(T (e^(1/sigma^2) - 1)), and epsilon from delta by Balle & Wang 2018."""
    (event,) = TWENTY_ROUNDS
    mu = event.sample_rate * math.sqrt(event.steps * (math.exp(event.noise_multiplier**-2) - 1))

    def delta_of(epsilon: float) -> float:
        def tail(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        return tail(mu / 2 - epsilon / mu) - math.exp(epsilon) * tail(-mu / 2 - epsilon / mu)

    low, high = 0.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > DELTA else (low, middle)
    assert high < 0.99 * oracle(TWENTY_ROUNDS, "prv")


@pytest.mark.parametrize("delta", [1e-9, 1e-3])
def test_other_deltas(delta: float) -> None:
    events = (SampledGaussian(3.0, 0.1, 20),)
    theirs = oracle(events, "prv", delta)
    assert 0.99 * theirs <= epsilon_of(events, delta, "prv") <= 1.01 * theirs


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_epsilon_grows_with_the_rounds(accountant: AccountantName) -> None:
    """A PrivacyEngine of its own in every round forgets: it would report the first of these for ever."""
    step = SampledGaussian(1.0, 0.1, 10)
    history: list[SampledGaussian] = []
    spent = []
    for _ in range(5):
        history.append(step)
        spent.append(epsilon_of(history, DELTA, accountant))
    assert all(later > 1.05 * earlier for earlier, later in itertools.pairwise(spent))
    forgetful = epsilon_of([step], DELTA, accountant)
    assert spent[0] == forgetful
    assert epsilon_of([step] * 20, DELTA, accountant) > 3 * forgetful
    assert epsilon_of([step] * 20, DELTA, accountant) == epsilon_of(TWENTY_ROUNDS, DELTA, accountant)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_no_noise_and_nothing_spent(accountant: AccountantName) -> None:
    assert epsilon_of([], DELTA, accountant) == 0.0
    assert epsilon_of([SampledGaussian(1.0, 0.1, 0)], DELTA, accountant) == 0.0
    assert epsilon_of([SampledGaussian(0.0, 0.1, 0)], DELTA, accountant) == 0.0
    assert epsilon_of([SampledGaussian(0.0, 0.1, 1)], DELTA, accountant) == math.inf
    assert epsilon_of([*TWENTY_ROUNDS, SampledGaussian(0.0, 1e-9, 1)], DELTA, accountant) == math.inf


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_epsilon_is_never_negative(accountant: AccountantName) -> None:
    """At a delta this large nothing is spent that epsilon 0 does not cover."""
    assert epsilon_of([SampledGaussian(1.0, 0.1, 2)], 0.4, accountant) == 0.0


def test_delta_too_small_for_prv() -> None:
    events = [SampledGaussian(0.9, 0.1, 30)]
    with pytest.raises(PrivacyError, match=r'privacy\.delta.*accountant = "rdp"'):
        epsilon_of(events, 1e-15, "prv")
    assert epsilon_of(events, 1e-15, "rdp") > epsilon_of(events, 1e-9, "rdp")


# --- composition

mechanisms = st.builds(
    SampledGaussian, st.sampled_from([0.0, 0.7, 1.5]), st.sampled_from([0.1, 1.0]), st.integers(0, 9)
)


@given(st.lists(mechanisms, max_size=8), st.randoms())
@settings(max_examples=50, deadline=None)
def test_composition_is_free_of_order_and_additive(events: list[SampledGaussian], rng: object) -> None:
    shuffled = list(events)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert compose(shuffled) == compose(events)
    half = len(events) // 2
    assert compose([*compose(events[:half]), *compose(events[half:])]) == compose(events)
    assert compose(compose(events)) == compose(events)
    for event in compose(events):
        same = [e.steps for e in events if (e.noise_multiplier, e.sample_rate) == _mechanism(event)]
        assert event.steps == sum(same) > 0
    assert sum(e.steps for e in compose(events)) == sum(e.steps for e in events)


def _mechanism(event: SampledGaussian) -> tuple[float, float]:
    return event.noise_multiplier, event.sample_rate


def test_epsilon_is_free_of_order() -> None:
    for order in itertools.permutations(MIXED):
        assert epsilon_of(order, DELTA, "rdp") == epsilon_of(MIXED, DELTA, "rdp")


@pytest.mark.parametrize(
    ("noise_multiplier", "sample_rate", "steps"),
    [
        (-1.0, 0.1, 1),
        (math.nan, 0.1, 1),
        (1.0, 0.0, 1),
        (1.0, 1.1, 1),
        (1.0, -0.1, 1),
        (1.0, math.nan, 1),
        (1.0, 0.1, -1),
    ],
)
def test_no_such_event(noise_multiplier: float, sample_rate: float, steps: int) -> None:
    with pytest.raises(PrivacyError, match="no such event"):
        SampledGaussian(noise_multiplier, sample_rate, steps)


# --- the noise that a target needs


@pytest.mark.parametrize(
    ("epsilon", "sample_rate", "steps", "accountant"),
    [
        (8.0, 1.0, 100, "rdp"),
        (1.0, 0.1, 10, "prv"),
        (20.0, 1.0, 2, "prv"),
        (50.0, 1.0, 20, "rdp"),
        (0.05, 0.1, 100, "rdp"),
    ],
)
def test_noise_is_enough_and_no_more(
    epsilon: float, sample_rate: float, steps: int, accountant: AccountantName
) -> None:
    found = noise_multiplier_for(epsilon, DELTA, sample_rate, steps, accountant)
    spent = epsilon_of([SampledGaussian(found, sample_rate, steps)], DELTA, accountant)
    assert 0.99 * epsilon <= spent <= epsilon
    assert epsilon_of([SampledGaussian(found / 1.001, sample_rate, steps)], DELTA, accountant) > epsilon
    assert oracle((SampledGaussian(found, sample_rate, steps),), "prv") <= epsilon + 1e-4


def test_prv_needs_less_noise_than_rdp() -> None:
    prv, rdp = (noise_multiplier_for(1.0, DELTA, 0.1, 10, name) for name in ("prv", "rdp"))
    assert prv < rdp


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_impossible_target(accountant: AccountantName) -> None:
    with pytest.raises(PrivacyError, match=r"privacy\.epsilon: no noise up to 1000 keeps 100 steps"):
        noise_multiplier_for(0.001, DELTA, 0.1, 100, accountant)


# --- from a plan to its mechanism

PRIVATE = ('privacy.unit="example"', 'privacy.accountant="rdp"', "inner.sample_rate=1.0")


def test_plan_without_privacy_spends_nothing() -> None:
    assert planned_noise_multiplier(make_plan()) is None
    assert planned_event(make_plan()) is None


def test_noise_as_written() -> None:
    plan = make_plan(*PRIVATE, "privacy.noise_multiplier=1.5", "task.tasks_per_client=3")
    assert planned_event(plan) == SampledGaussian(1.5, 1.0, 3 * 2)


def test_target_is_spent_by_all_participations_together() -> None:
    plan = make_plan(*PRIVATE, "privacy.epsilon=4", "rounds.max_participations=3", "task.tasks_per_client=2")
    event = planned_event(plan)
    assert event is not None
    assert event.steps == steps_per_round(plan) == 4
    assert 0.99 * 4 <= epsilon_of([event] * 3, DELTA, "rdp") <= 4
    assert epsilon_of([event] * 4, DELTA, "rdp") > 4


def test_target_spent_on_other_steps() -> None:
    plan = make_plan(*PRIVATE, "privacy.epsilon=4")
    noise_multiplier = planned_noise_multiplier(plan, 30)
    assert noise_multiplier is not None
    assert 0.99 * 4 <= epsilon_of([SampledGaussian(noise_multiplier, 1.0, 30)], DELTA, "rdp") <= 4


SCORED = ("evaluation.federated_every_rounds=2", 'secure_aggregation.mode="secure"', "secure_aggregation.min_group=3")


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_scores_are_paid_from_the_same_target_and_training_gets_more_noise_for_it(accountant: AccountantName) -> None:
    """All that one client spends at the most, by the oracle: four rounds, two of which score the model."""
    more = (f"privacy.accountant={accountant}", "rounds.cohort_size=5", "rounds.max_participations=4")
    plan = make_plan(*PRIVATE, *more, *SCORED, "privacy.epsilon=4", "evaluation.federated_noise_multiplier=3")
    without = make_plan(*PRIVATE, *more, "privacy.epsilon=4", 'secure_aggregation.mode="plain"')
    noise, less = planned_noise_multiplier(plan), planned_noise_multiplier(without)
    assert noise is not None and less is not None
    assert noise > 1.05 * less
    spent = run_spending(plan).example
    assert set(spent) == {SampledGaussian(noise, 1.0, 4 * 2 + 2 * 2), SampledGaussian(3.0, 1.0, 2)}
    assert 0.98 * 4 <= oracle(spent, accountant, plan.privacy.delta) <= 4 * 1.001
    # the same noise as without scores would not be enough
    careless = (SampledGaussian(less, 1.0, 4 * 2 + 2 * 2), SampledGaussian(3.0, 1.0, 2))
    assert oracle(careless, accountant, plan.privacy.delta) > 4.1


def test_target_needs_the_number_of_participations() -> None:
    with pytest.raises(PrivacyError, match=r"rounds\.max_participations.*rounded up"):
        planned_noise_multiplier(make_plan(*PRIVATE, "privacy.epsilon=4"))


@pytest.mark.parametrize(
    ("rounds", "cohort", "clients", "expected"),
    [(50, 20, 100, 10), (50, 20, 99, 11), (50, 20, 20, 50), (50, 20, 3, 50), (1, 1, 1000, 1), (3, 2, 4, 2)],
)
def test_participations(rounds: int, cohort: int, clients: int, expected: int) -> None:
    plan = make_plan(f"rounds.count={rounds}", f"rounds.cohort_size={cohort}")
    assert participations_for(plan, clients) == expected


WITHOUT_TORCH = """
import sys
sys.path[:0] = {paths}
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian
for events in {histories}:
    print(repr(epsilon_of([SampledGaussian(*event) for event in events], {delta}, "rdp")))
print("loaded:", *sorted({{"torch", "opacus", "flwr"}} & set(sys.modules)))
"""


def test_rdp_needs_no_torch_and_is_still_opacus(tmp_path: Path) -> None:
    """In a new interpreter: the figures are those of the package that is imported here to rounding, and the oracle's
    to its accuracy."""
    histories = [[(e.noise_multiplier, e.sample_rate, e.steps) for e in events] for events in HISTORIES.values()]
    paths = [str(Path(testudo_common.__file__).resolve().parents[1])]
    probe = WITHOUT_TORCH.format(paths=paths, histories=histories, delta=DELTA)
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    *printed, loaded = ran.stdout.splitlines()
    assert loaded == "loaded:"
    assert len(printed) == len(HISTORIES)
    for text, events in zip(printed, HISTORIES.values(), strict=True):
        total = sum(
            e.steps
            * np.asarray(compute_rdp(q=e.sample_rate, noise_multiplier=e.noise_multiplier, steps=1, orders=_ORDERS))
            for e in events
        )
        assert float(text) == pytest.approx(
            float(get_privacy_spent(orders=_ORDERS, rdp=total, delta=DELTA)[0]), rel=1e-10
        )
        assert float(text) == pytest.approx(oracle(events, "rdp"), rel=0.01)
