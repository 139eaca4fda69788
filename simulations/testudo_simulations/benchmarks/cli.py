"""The command that measures. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testudo_common.errors import UsageError
from testudo_simulations.benchmarks import BENCHMARKS, ON_DATA
from testudo_simulations.benchmarks.simulation import DEFAULT_CLIENTS, PARTS, run_simulation_benchmark
from testudo_simulations.options import JsonOption, listed


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("bench", epilog="Example: testudo-simulate bench simulation --part rounds --clients 10000 --out bench")(
        _bench
    )


def _bench(
    name: Annotated[
        str, typer.Argument(help=f"Which benchmark: {', '.join([*BENCHMARKS, *ON_DATA])}; all for each of them.")
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
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="FEDERATION=FILE",
            help=f"{', '.join(ON_DATA)}: real data to measure on, such as retail=retail.csv; repeat for more.",
            show_default=False,
        ),
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

    if data and name not in {*ON_DATA, "all"}:
        raise UsageError(f"--data is of {', '.join(ON_DATA)}", where=f"bench {name}", remedy="leave it out")
    run_benchmarks(name, repeats=repeats, as_json=as_json, data=dict(map(_file_of, data or [])))


def _file_of(option: str) -> tuple[str, Path]:
    name, _, path = option.partition("=")
    if not path or not Path(path).is_file():
        raise UsageError("not a federation and its file", where=f"--data {option}", remedy="write FEDERATION=FILE")
    return name, Path(path)
