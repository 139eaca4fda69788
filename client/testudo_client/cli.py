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
    help="A data owner's side of a federation: its key, and whether its data fits a plan.\n\n"
    "Example: testudo-client check plan.toml --data mine.csv",
)


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


@app.command(epilog="Example: testudo-client key my-keys")
def key(
    folder: Annotated[Path, typer.Argument(help="A folder for your key, which only you can read.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Make your key for secure aggregation, once; print its public half, which the federation puts on its roster."""
    from testudo_client.membership import FEDERATION_KEY_FILE, IDENTITY_FILE, ROSTER_FILE
    from testudo_common.key_files import create_key, public_hex

    public = public_hex(create_key(folder / IDENTITY_FILE))
    if as_json:
        typer.echo(json.dumps({"identity": str(folder / IDENTITY_FILE), "public_key": public}, indent=2))
        return
    typer.echo(f"Your key: {folder / IDENTITY_FILE}. It never leaves this computer.")
    typer.echo(f"Its public half, for the federation's roster: {public}")
    typer.echo(f"Put {ROSTER_FILE} and {FEDERATION_KEY_FILE} beside it when you get them.")


@app.command(epilog="Example: testudo-client roster my-keys --client shop-1")
def roster(
    folder: Annotated[Path, typer.Argument(help="The folder of your key, with the roster in it.", show_default=False)],
    client: Annotated[str, typer.Option(help="Your name in the federation.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check that the roster is the federation's, and that it holds you with your key."""
    from testudo_client.membership import read_membership

    membership = read_membership(folder)
    membership.identity_of(client)
    found = membership.roster
    answer = {"federation": found.federation, "members": len(found.members), "digest": found.digest.hex()}
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(f"{client} is one of {answer['members']} members of {found.federation!r}; digest {answer['digest']}")


@app.command(epilog="Example: testudo-client ledger my-folder --plan plan.toml --data mine.csv")
def ledger(
    folder: Annotated[Path, typer.Argument(help="Your folder, with the ledger in it.", show_default=False)],
    plan: Annotated[Path | None, typer.Option(help="Say how many more rounds of this plan fit.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your table, as --plan encodes it: the data asked about.")] = None,
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    last: Annotated[int, typer.Option(min=0, help="How many entries to show.")] = 20,
    show_all: Annotated[bool, typer.Option("--all", help="Show all entries.")] = False,
    delta: Annotated[float, typer.Option(help="Epsilon at this delta.")] = 1e-5,
    new_data: Annotated[
        str | None, typer.Option(help="State that --data shares no record with any data that was charged, and why.")
    ] = None,
    charge_elsewhere: Annotated[
        str | None, typer.Option(help="Charge NOISE_MULTIPLIER,SAMPLE_RATE,STEPS, spent with another tool.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Whose account to charge: example or client.")] = "example",
    adopt: Annotated[
        str | None, typer.Option(help="Accept a restored or moved ledger against its anchors, and say why.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show what was spent on your data, and what is left; or write down what only you can say."""
    from testudo_client.ledger_command import LedgerRequest, answer

    answer(
        LedgerRequest(
            folder, plan, data, client, None if show_all else last, delta, new_data, charge_elsewhere, unit, adopt,
            as_json,
        )
    )  # fmt: skip


def main() -> None:
    """Entry point of ``testudo-client``."""
    run_command(app)


if __name__ == "__main__":
    main()
