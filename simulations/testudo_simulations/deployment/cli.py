"""The commands that rehearse a deployment. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command("shops", epilog="Example: testudo-simulate shops tables --owners 3")(_shops)
    app.command("deploy-demo", epilog="Example: testudo-simulate deploy-demo --owners 5 --rounds 4")(_deploy_demo)


def _shops(
    folder: Annotated[Path, typer.Argument(help="Gets a CSV file for each shop, and plan.toml.", show_default=False)],
    owners: Annotated[int, typer.Option(help="How many shops, 3 to 50.")] = 3,
    rows: Annotated[int, typer.Option(min=20, max=1_000_000, help="In each table.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Another one makes other shops.")] = 0,
) -> None:
    """Write made-up tables of shops, and a plan for them: to try a deployment with nobody's data."""
    from testudo_simulations.deployment.command import shop_names
    from testudo_simulations.deployment.tables import write_tables

    plan = write_tables(folder, shop_names(owners), rows=rows, seed=seed)
    typer.echo(f"{folder}: {owners} tables of {rows} rows, and {plan.name}")


def _deploy_demo(
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder; default runs/deployment-TIME.", show_default=False)
    ] = None,
    owners: Annotated[int, typer.Option(help="Data owners, 3 to 50, two processes each.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds to train.")] = 4,
    parameters: Annotated[
        int | None,
        typer.Option(min=1000, max=100_000_000, help="Of a larger model, without noise.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which it gives up.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Run a server and data owners as processes of their own here, with everything on that a real deployment has."""
    from testudo_simulations.deployment.command import DeployRequest, run_deploy_demo

    folder = out or Path("runs") / f"deployment-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    run_deploy_demo(DeployRequest(folder, owners, rounds, timeout, parameters), as_json=as_json)
