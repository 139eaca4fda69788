"""Speed, as a ratio against a peer or a limit in the same run, and accuracy beside a published one; never a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_simulations.benchmarks.measure import Measurement


def _exchange(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.exchange import measure_exchange

    return measure_exchange(repeats)


def _training(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.training import measure_training

    return measure_training(repeats)


def _secagg(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.secagg import measure_secagg

    return measure_secagg(repeats)


def _robust(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.robust import measure_robust

    return measure_robust(repeats)


def _bucketing(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.bucketing import measure_bucketing

    return measure_bucketing(repeats)


def _ledger(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.ledger import measure_ledger

    return measure_ledger(repeats)


def _audit(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.audit import measure_audit

    return measure_audit(repeats)


def _deployment(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.deployment import measure_deployment

    return measure_deployment(repeats)


def _serving(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.serving import measure_serving

    return measure_serving(repeats)


def _simulation(repeats: int) -> list[Measurement]:
    from testudo_simulations.benchmarks.simulation import measure_simulation

    return measure_simulation(repeats)


BENCHMARKS: dict[str, Callable[[int], list[Measurement]]] = {
    "exchange": _exchange,
    "training": _training,
    "secagg": _secagg,
    "robust": _robust,
    "bucketing": _bucketing,
    "ledger": _ledger,
    "audit": _audit,
    "deployment": _deployment,
    "serving": _serving,
    "simulation": _simulation,
}


def _adaptation(repeats: int, data: Mapping[str, Path]) -> list[Measurement]:
    from testudo_simulations.benchmarks.adaptation import measure_adaptation

    return measure_adaptation(repeats, data)


def _drift(repeats: int, data: Mapping[str, Path]) -> list[Measurement]:
    from testudo_simulations.benchmarks.drift import measure_drift

    return measure_drift(repeats, data)


OnData = Callable[[int, Mapping[str, Path]], list[Measurement]]
ON_DATA: dict[str, OnData] = {"adaptation": _adaptation, "drift": _drift}
"""Those that also measure on real data, where a file of some federation is given by its name."""


def _with_data(measure: OnData, data: Mapping[str, Path], repeats: int) -> list[Measurement]:
    return measure(repeats, data)


def run_benchmarks(name: str, *, repeats: int, as_json: bool, data: Mapping[str, Path] | None = None) -> None:
    """Run one benchmark, or all, and print what they measured.

    Args:
        name: A key of ``BENCHMARKS`` or of ``ON_DATA``, or ``all``.
        repeats: Each figure is the median of so many; an accuracy is the mean over so many seeds.
        as_json: Print a list of measurements instead of a table.
        data: Federation -> file with its data.

    Raises:
        UsageError: There is no such benchmark.
    """
    files = data or {}
    every: dict[str, Callable[[int], list[Measurement]]] = dict(BENCHMARKS)
    every.update({each: partial(_with_data, measure, files) for each, measure in ON_DATA.items()})
    from rich.console import Console
    from rich.table import Table

    if name != "all" and name not in every:
        raise UsageError(f"there is no benchmark {name!r}", remedy=f"name one of {', '.join(every)}, or all")
    with Console(stderr=True).status("measuring") as status:
        found: list[Measurement] = []
        for each in every if name == "all" else [name]:
            status.update(f"measuring {each}, {repeats} times")
            found += every[each](repeats)
    if as_json:
        print(json.dumps([measurement.as_dict() for measurement in found], indent=2))
        return
    columns = ("case", "metric", "ours", "reference", "ratio")
    table = Table(*columns, title=f"{repeats} repeats", title_justify="left")
    for measurement in found:
        known = measurement.reference is not None and measurement.ratio is not None
        reference = f"{measurement.reference:.3g} {measurement.unit}\n{measurement.reference_name}" if known else "none"
        table.add_row(
            measurement.case,
            measurement.metric,
            f"{measurement.ours:.3g} {measurement.unit}",
            reference,
            f"{measurement.ratio:.3g}" if known else "",
        )
    Console().print(table)
