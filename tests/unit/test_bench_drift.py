"""The benchmark of drift: the index it is compared with, and that it can be run without real data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from testudo_simulations.benchmarks import drift
from testudo_simulations.benchmarks.drift_cases import populations


def test_the_index_as_worked_out_by_hand() -> None:
    """Half on either side of the median before, three quarters above it now: (1/4) log(3/2) + (-1/4) log(1/2)."""
    reference, new = np.arange(100.0), np.concatenate([np.zeros(25), np.full(75, 99.0)])
    expected = 0.25 * math.log(1.5) - 0.25 * math.log(0.5)
    assert drift.psi(reference, new, bins=2) == pytest.approx(expected)
    assert drift.psi(reference, reference) == 0.0


def test_without_real_data_it_measures_the_made_up_population(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "SIZES", (50,))
    monkeypatch.setattr(drift, "_REFERENCES", {"made up": 20})
    monkeypatch.setattr(drift, "_SEARCHES", {"made up": 1})
    found = drift.measure_drift(1, {})
    alarms, in_a_row, *searched = found
    assert (alarms.metric, in_a_row.metric) == ("false_alarms_per_check", "5_false_alarms_in_a_row")
    assert alarms.ours <= 25  # at most five of twenty checks
    assert alarms.reference == 100.0  # the rule alarms at every one of so few rows
    (population,) = populations({})
    assert {one.case for one in searched} == {f"made up, {name}" for name in population.shifts}
    assert {one.unit for one in searched} == {"%", "batches"}


def test_a_shift_of_the_benchmark_changes_rows_and_not_their_number() -> None:
    (population,) = populations({})
    rows = population.clients[0].take(slice(0, 60))
    for name, shift in population.shifts.items():
        moved = shift(rows, np.random.default_rng(1))
        assert len(moved) == 60, name
        same = np.array_equal(moved.inputs, rows.inputs) and np.array_equal(moved.targets, rows.targets)
        assert not same, name
