"""Epsilon of what a real ledger holds, over rounds, plans and owners' data, against Google's dp-accounting."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from ledger_cases import DATA, OTHER_DATA, OTHER_PLAN, PLAN, in_folder, reserve
from testudo_client.ledger import NewData, Purpose
from testudo_client.ledger.account import epsilons_of
from testudo_common.privacy.events import SampledGaussian, Spending, Unit

PRV_ERROR = 0.004  # relative to RDP's epsilon, as privacy/accountant.py states, or 1e-4
COARSE, FINE = SampledGaussian(1.2, 0.1, 10), SampledGaussian(0.9, 0.02, 25)
SCORES, ADAPTING = SampledGaussian(6.0, 1.0, 1), SampledGaussian(2.5, 0.3, 4)
SUM, OTHER_SUM = SampledGaussian(4.0, 1.0, 1), SampledGaussian(7.5, 1.0, 1)


@pytest.fixture(autouse=True)
def quiet_oracle() -> Iterator[None]:
    """It warns of orders that it leaves out."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def oracle(kind: type[PLDAccountant | RdpAccountant], events: list[SampledGaussian], delta: float) -> float:
    """Of the events as the test counts them, not as the ledger adds them up."""
    return float(_book(kind, frozenset(Counter(events).items())).get_epsilon(delta))


@lru_cache
def _book(
    kind: type[PLDAccountant | RdpAccountant], counted: frozenset[tuple[SampledGaussian, int]]
) -> PLDAccountant | RdpAccountant:
    book = kind()
    for event, times in counted:
        step = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        book.compose(dp_accounting.PoissonSampledDpEvent(event.sample_rate, step), event.steps * times)
    return book


@pytest.fixture
def spent(tmp_path: Path) -> Iterator[dict[tuple[str, str | None], tuple[Spending, dict[Unit, list[SampledGaussian]]]]]:
    """What the ledger says of data and plans, and what the test itself knows was spent."""
    ledger = in_folder(tmp_path)
    first: list[SampledGaussian] = []
    second: list[SampledGaussian] = []
    third: list[SampledGaussian] = []
    sums: list[SampledGaussian] = []
    for number in range(1, 13):
        reserve(ledger, number, spending=Spending((COARSE,), (SUM,)))
        first.append(COARSE)
        sums.append(SUM)
        if number % 3 == 0:
            reserve(ledger, number, purpose=Purpose.SCORES, spending=Spending((SCORES, ADAPTING)))
            first += [SCORES, ADAPTING]
        if number % 4 == 0:
            reserve(ledger, number, plan=OTHER_PLAN, spending=Spending((FINE,), (OTHER_SUM,)))
            second.append(FINE)
            sums.append(OTHER_SUM)
    ledger.append(NewData(OTHER_DATA, "another year"))
    for number in range(20, 30):
        reserve(ledger, number, plan=OTHER_PLAN, fingerprint=OTHER_DATA, spending=Spending((FINE,), (OTHER_SUM,)))
        third.append(FINE)
    later = [OTHER_SUM] * 10
    again = in_folder(tmp_path)
    yield {
        ("data", None): (again.spent(DATA), {Unit.EXAMPLE: first + second, Unit.CLIENT: sums}),
        ("new data", None): (again.spent(OTHER_DATA), {Unit.EXAMPLE: third, Unit.CLIENT: later}),
        ("unknown", None): (again.spent("?"), {Unit.EXAMPLE: first + second + third, Unit.CLIENT: sums + later}),
        ("plan", PLAN): (again.spent(DATA, PLAN), {Unit.EXAMPLE: first, Unit.CLIENT: [s for s in sums if s == SUM]}),
        ("plan", OTHER_PLAN): (
            again.spent(DATA, OTHER_PLAN),
            {Unit.EXAMPLE: second + third, Unit.CLIENT: [s for s in sums if s == OTHER_SUM] + later},
        ),
    }


@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_a_ledgers_epsilon_is_the_oracles(
    spent: dict[tuple[str, str | None], tuple[Spending, dict[Unit, list[SampledGaussian]]]], delta: float
) -> None:
    for account, (said, known) in spent.items():
        for unit in Unit:
            ours = epsilons_of(said, unit, delta)
            by_pld = oracle(PLDAccountant, known[unit], delta)
            by_rdp = oracle(RdpAccountant, known[unit], delta)
            assert ours.prv is not None
            assert 0.99 * by_pld <= ours.prv <= 1.01 * by_pld + 1e-4, (account, unit)
            assert ours.prv >= by_pld - max(1e-4, PRV_ERROR * ours.rdp), (account, unit)
            assert 0.99 * by_rdp <= ours.rdp <= 1.01 * by_rdp, (account, unit)
            assert ours.rdp >= by_pld - 1e-4, (account, unit)
