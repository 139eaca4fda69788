"""``testudo-client``: for a data owner. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look at a federation's plan from the data owner's side.\n\n"
    "Example: testudo-client check plan.toml --data mine.csv",
)


@app.callback()
def _group() -> None:
    """Keep ``check`` a subcommand while it is the only one."""


@app.command(epilog="Example: testudo-client check plan.toml --data mine.csv --json")
def check(
    plan: Annotated[Path, typer.Argument(help="The federation's plan, a TOML file.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="Your table, a CSV file.", show_default=False)],
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check that your own table fits a plan. Nothing leaves this computer."""
    from testudo_client.data import load_owner_examples
    from testudo_common.plan.load import load_plan

    loaded = load_plan(plan)
    examples = load_owner_examples(loaded, data, client)
    answer = {
        "plan": loaded.name,
        "digest": loaded.digest,
        "rows": len(examples),
        "inputs": examples.inputs[0].size,
    }
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(f"{data} fits the plan {loaded.name!r}: {answer['rows']} rows, {answer['inputs']} inputs each.")
    typer.echo(f"Plan digest: {loaded.digest}")


def main() -> None:
    """Entry point of ``testudo-client``."""
    run_command(app)


if __name__ == "__main__":
    main()
