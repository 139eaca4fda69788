"""The benchmark of the audit log: each figure beside its limit. What the figures are is for a machine that is idle."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from testudo_simulations.benchmarks import BENCHMARKS, audit
from testudo_simulations.benchmarks.audited_log import audited_log
from testudo_simulations.benchmarks.measure import Measurement


@pytest.fixture(scope="module")
def found() -> list[Measurement]:
    with pytest.MonkeyPatch.context() as patch:
        for name, small in {
            "_ENTRIES": 300,
            "_BATCH": 100,
            "_PROOFS": 20,
            "_RECEIPT_ENTRIES": 50,
            "_VERIFIED_ENTRIES": 70,
        }.items():
            patch.setattr(audit, name, small)
        return BENCHMARKS["audit"](1)


def test_every_figure_is_there_once(found: list[Measurement]) -> None:
    figures = [(measurement.case, measurement.metric) for measurement in found]
    assert len(set(figures)) == len(figures)
    assert all(measurement.ours > 0 for measurement in found)


@pytest.mark.parametrize(
    ("metric", "case", "limit"),
    [
        ("appends_per_cpu_second", "append 300 entries of 582 bytes", 50_000.0),
        ("cpu_microseconds", "verify an inclusion proof", 50.0),
        ("bytes", "receipt among 50 entries, 5 cosignatures", 2048.0),
        ("cpu_seconds", "verify 70 entries of 2 rounds, with the start of the process", 2.0),
        ("wall_seconds", "verify 70 entries of 2 rounds, with the start of the process", 2.0),
    ],
)
def test_limits(found: list[Measurement], metric: str, case: str, limit: float) -> None:
    (measurement,) = [each for each in found if each.metric == metric and each.case.startswith(case)]
    assert measurement.reference == limit
    assert measurement.ratio == measurement.ours / limit


def test_a_receipt_is_small_enough(found: list[Measurement]) -> None:
    """Of fifty entries; up to five thousand there are seven further hashes of 45 bytes."""
    (measurement,) = [each for each in found if each.metric == "bytes"]
    assert measurement.ours + 7 * 45 < 2048


def test_a_log_that_does_not_hold_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spoilt = audited_log(70)
    monkeypatch.setattr(audit, "audited_log", lambda _: replace(spoilt, entries=spoilt.entries[:-1]))
    with pytest.raises(subprocess.CalledProcessError):
        audit._whole_log(tmp_path, 1)


def test_entries_are_of_the_length_that_is_said() -> None:
    entries = audit._entries(20)
    assert {len(entry) for entry in entries} == {audit._ENTRY_BYTES}
    assert len(set(entries)) == 20
