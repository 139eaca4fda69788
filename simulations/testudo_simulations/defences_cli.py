"""The commands that try a federation's defences. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.errors import UsageError
from testudo_simulations.options import (
    CORES,
    DataOption,
    JobsOption,
    JsonOption,
    OutOption,
    PlanArgument,
    SetOption,
    listed,
)


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    for name, command, example in (
        ("attacks", _attacks, "attacks attacks-digits --poisoned 4 --attack alie --defence mean,recommended"),
        ("frontier", _frontier, "frontier --clients 1000 --cohort 100 --corruption 0.05 --min-group 3"),
        ("split-views", _split_views, "split-views --witnesses 10 --quorum 7 --colluders 2"),
    ):
        app.command(name, epilog=f"Example: testudo-simulate {example}")(command)


def _attacks(
    plan: PlanArgument = "attacks-digits",
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    attack: Annotated[
        list[str] | None,
        typer.Option("--attack", help="Attacks, parted by commas; default: the best known.", show_default=False),
    ] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option(
            "--defence",
            help="Defences, parted by commas: rules joined by +, recommended, +unshared_head, +tasks=K, +groups=M.",
            show_default=False,
        ),
    ] = None,
    poisoned: Annotated[
        list[int] | None,
        typer.Option("--poisoned", min=1, help="Poisoned clients; repeat for more.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Seeds for each cell.")] = 2,
    jobs: JobsOption = CORES,
    masks: Annotated[bool, typer.Option("--masks", help="Mask secure sums too: slower, and the same bits.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the matrix in --out, or let it grow.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Poison clients of a federation, and show which defences hold: attack x defence, as table, CSV and heat map."""
    from testudo_simulations.attacks.command import MatrixRequest, run_attacks

    folder = out or Path("runs") / f"attacks-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if resume and out is None:
        raise UsageError("--resume needs the folder of the matrix to go on with", remedy="name it by --out")
    request = MatrixRequest(
        plan=plan,
        data=data,
        settings=tuple(settings or ()),
        attacks=listed(attack),
        defences=listed(defence),
        poisoned=tuple(sorted(set(poisoned or ()))),
        seeds=seeds,
        masks=masks,
    )
    run_attacks(request, folder, jobs=jobs, resume=resume, as_json=as_json)


def _frontier(
    clients: Annotated[int, typer.Option(min=1, help="Clients of the federation.")] = 100,
    cohort: Annotated[
        int | None, typer.Option(min=1, help="Clients asked a round; default: all of them.", show_default=False)
    ] = None,
    corruption: Annotated[float, typer.Option(help="Share of the clients that may be poisoned.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of a group that may drop out.")] = 0.2,
    min_group: Annotated[
        int, typer.Option(help="Fewest clients in a sum that the owners accept; 1: the server may see each update.")
    ] = 3,
    max_failure: Annotated[
        float, typer.Option(help="Chance, a round, of more bad rows than the rule outvotes.")
    ] = 1e-3,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the drawing and the data.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Privacy against robustness: the groups and the rule for a federation, or which number to move."""
    from testudo_common.robustness import Wish
    from testudo_simulations.frontier_command import run_frontier

    wish = Wish(
        clients=clients,
        cohort=min(cohort or clients, clients),
        corruption=corruption,
        dropout=dropout,
        min_group=min_group,
        max_failure=max_failure,
    )
    run_frontier(wish, out, as_json=as_json)


def _split_views(
    witnesses: Annotated[int, typer.Option(min=1, max=1000, help="Clients that cosign the audit log.")] = 10,
    quorum: Annotated[
        int | None,
        typer.Option(min=1, help="How many have to cosign; default: more than two thirds.", show_default=False),
    ] = None,
    colluders: Annotated[
        int | None,
        typer.Option(
            min=0, help="Witnesses that sign both histories; default: as many as are found out.", show_default=False
        ),
    ] = None,
    dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rounds that a witness is absent in.")
    ] = 0.1,
    window: Annotated[int, typer.Option(min=1, max=100, help="Rounds for which a cosignature counts.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Split the clients between two histories of the audit log, and show how many colluders it takes to get away."""
    from testudo_simulations.split_views_command import SplitRequest, run_split_views

    run_split_views(SplitRequest(witnesses, quorum, colluders, dropout, window), as_json=as_json)
