"""What ``testudo-simulate split-views`` does: play a split against so many colluders, and say who finds it out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from testudo_common.audit.checkpoints import colluders_found, default_quorum
from testudo_common.audit.wording import counted
from testudo_common.errors import UsageError
from testudo_simulations.split_views import ForkedLog, Outcome, absent_allowed, chance_of_waiting, worst_split

if TYPE_CHECKING:
    from rich.console import Console

_ALL_ROWS = 24  # up to so many witnesses the table has a row for every number of colluders


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """What the command line asks for.

    Attributes:
        witnesses: n.
        quorum: k; None: more than two thirds.
        colluders: f; None: as many as are found out.
        dropout: Chance of a witness to be absent in a round.
        window: Rounds for which a cosignature counts.
    """

    witnesses: int
    quorum: int | None
    colluders: int | None
    dropout: float
    window: int


def run_split_views(request: SplitRequest, *, as_json: bool) -> None:
    """Print the table over colluders.

    Raises:
        UsageError: The quorum or the colluders are more than there are witnesses.
    """
    witnesses = request.witnesses
    quorum = default_quorum(witnesses) if request.quorum is None else request.quorum
    limit = colluders_found(witnesses, quorum)
    colluders = max(limit, 0) if request.colluders is None else request.colluders
    for name, value in (("--quorum", quorum), ("--colluders", colluders)):
        if value > witnesses:
            raise UsageError(f"{name} {value}, and there are {witnesses} witnesses", remedy=f"at most {witnesses}")
    log = ForkedLog(witnesses)
    asked = _rows(witnesses, limit, colluders)
    rows = {number: worst_split(log, number).under(quorum) for number in asked}
    data: dict[str, Any] = {
        "witnesses": witnesses,
        "quorum": quorum,
        "colluders": colluders,
        "found": rows[colluders].found,
        "colluders_found": limit,
        "absent_allowed": absent_allowed(witnesses, quorum),
        "dropout": request.dropout,
        "window": request.window,
        "chance_of_waiting": chance_of_waiting(witnesses, quorum, request.dropout, request.window),
        "splits": [
            {"colluders": number, **asdict(found), "found": found.found, "refusing": found.refusing}
            for number, found in rows.items()
        ],
    }
    if as_json:
        typer.echo(json.dumps(data, indent=2))
        return
    from rich.console import Console

    _print(data, rows, Console())


def _rows(witnesses: int, limit: int, colluders: int) -> list[int]:
    """Numbers of colluders to play: all of them, or those around the turn."""
    if witnesses <= _ALL_ROWS:
        return list(range(witnesses + 1))
    around = {0, limit - 1, limit, limit + 1, limit + 2, colluders}
    return sorted(number for number in around if 0 <= number <= witnesses)


def _print(data: dict[str, Any], rows: dict[int, Outcome], console: Console) -> None:
    from rich.table import Table

    witnesses, quorum, limit = data["witnesses"], data["quorum"], data["colluders_found"]
    table = Table(
        title=f"The worst split of {witnesses} witnesses, {quorum} of whom have to cosign",
        title_justify="left",
    )
    for head in ("colluders", "honest", "cosignatures", "go on", "honest that refuse"):
        table.add_column(head, justify="right")
    table.add_column("found out")
    for number, found in rows.items():
        cells = [
            str(number),
            " | ".join(map(str, found.honest)),
            " | ".join(map(str, found.cosignatures)),
            f"{sum(found.accepted)} of 2",
            str(found.refusing),
            "yes" if found.found else "no",
        ]
        table.add_row(*cells, style="bold" if number == data["colluders"] else "")
    console.print(table)
    if limit < 0:
        said = f"{quorum} of {witnesses} is no quorum: two halves reach it without a single colluder."
    else:
        most = counted(limit, "colluder")
        said = f"Up to {most} (2 x {quorum} - {witnesses} - 1) are found out, {limit + 1} are not."
    console.print(
        f"{said} {data['absent_allowed']} witnesses may be absent at once; where each is absent in "
        f"{100 * data['dropout']:g} % of the rounds and a cosignature counts for {data['window']}, "
        f"{100 * data['chance_of_waiting']:.2g} % of the rounds have to wait for their quorum.",
        markup=False,
    )
