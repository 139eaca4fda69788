"""The command that measures. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testudo_common.errors import UsageError
from testudo_simulations.benchmarks import BENCHMARKS
from testudo_simulations.benchmarks.simulation import DEFAULT_CLIENTS, PARTS, run_simulation_benchmark
from testudo_simulations.options import JsonOption, listed


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("bench", epilog="Example: testudo-simulate bench simulation --part rounds --clients 10000 --out bench")(
        _bench
    )


def _bench(
    name: Annotated[
        str, typer.Argument(help=f"Which benchmark: {', '.join(BENCHMARKS)}; all for each of them.")
    ] = "all",
    repeats: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="Each figure is the median of so many; an accuracy is the mean over so many seeds."
        ),
    ] = 3,
    clients: Annotated[
        int, typer.Option("--clients", min=100, max=100_000, help="simulation: the most clients in a round.")
    ] = DEFAULT_CLIENTS,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", help=f"simulation: {', '.join(PARTS)}, parted by commas; default: all.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="simulation: folder for the drawing and the data.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speed against a peer or a limit in the same run, and accuracy beside a published one."""
    if name == "simulation":
        run_simulation_benchmark(repeats, clients=clients, parts=listed(part), out=out, as_json=as_json)
        return
    if part or out is not None or clients != DEFAULT_CLIENTS:
        raise UsageError(
            "--clients, --part and --out are of the benchmark simulation",
            where=f"bench {name}",
            remedy="leave them out, or name simulation",
        )
    from testudo_simulations.benchmarks import run_benchmarks

    run_benchmarks(name, repeats=repeats, as_json=as_json)
