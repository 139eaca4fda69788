"""``testudo-server``: for those who run a federation. Reads the command line; everything else is elsewhere."""

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
    help="Prepare a federation's plan.\n\nExample: testudo-server check plan.toml --clients 12",
)


@app.callback()
def _group() -> None:
    """Keep ``check`` a subcommand while it is the only one."""


@app.command(epilog="Example: testudo-server check plan.toml --clients 12 --json")
def check(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file.", show_default=False)],
    clients: Annotated[int | None, typer.Option(min=1, help="How many clients will take part.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check a plan; print its digest, and what it costs one client in privacy and in bytes."""
    from testudo_common.plan.load import load_plan
    from testudo_server.preview import preview

    found = preview(load_plan(plan), clients)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {'not stated' if value is None else value}")


def main() -> None:
    """Entry point of ``testudo-server``."""
    run_command(app)


if __name__ == "__main__":
    main()
