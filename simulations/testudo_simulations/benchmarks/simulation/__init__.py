"""Simulated rounds against a PyTorch loop, an Opacus loop, pfl-research and Flower's Ray simulation, all in one run.

Light to import; what is measured is in measured.py, by whom in peers.py, and how in children.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_simulations.benchmarks.measure import Measurement

DEFAULT_CLIENTS = 1000
PARTS = ("training", "rounds", "secure", "digits")


def run_simulation_benchmark(
    repeats: int, *, clients: int, parts: Sequence[str], out: Path | None, as_json: bool
) -> None:
    """Measure and print; draw where a folder is named.

    Args:
        repeats: Rounds that each figure is a median of.
        clients: The most in a round.
        parts: Of ``PARTS``; none: all.
        out: Folder of ``simulation.svg`` and ``simulation.json``; None keeps nothing.
        as_json: Print the measurements as JSON instead of tables.

    Raises:
        UsageError: There is no such part, or a peer failed.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"there is no part {unknown[0]!r}", remedy=f"name any of {', '.join(PARTS)}")
    from rich.console import Console

    from testudo_simulations.benchmarks.simulation.drawing import draw
    from testudo_simulations.benchmarks.simulation.figures import measurements
    from testudo_simulations.benchmarks.simulation.measured import measure
    from testudo_simulations.benchmarks.simulation.tables import print_tables

    with Console(stderr=True).status("measuring") as status:
        found = measure(repeats, clients, parts or PARTS, lambda what: status.update(f"measuring {what}"))
    data = json.dumps([each.as_dict() for each in measurements(found)], indent=2)
    drawing = draw(found)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "simulation.json", data.encode(), durable=False)
        if drawing is not None:
            write_atomically(out / "simulation.svg", drawing.encode(), durable=False)
    if as_json:
        print(data)
        return
    console = Console()
    print_tables(found, console)
    if out is not None:
        where = "simulation.json" if drawing is None else "simulation.svg and simulation.json"
        console.print(f"In {out}: {where}", markup=False)


def measure_simulation(repeats: int) -> list[Measurement]:
    """All parts at up to 1,000 clients, as the other benchmarks give them."""
    from testudo_simulations.benchmarks.simulation.figures import measurements
    from testudo_simulations.benchmarks.simulation.measured import measure

    return measurements(measure(repeats, DEFAULT_CLIENTS, PARTS, _say_nothing))


def _say_nothing(_what: str) -> None:
    """Tell nobody."""
