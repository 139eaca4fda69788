"""``testudo-client``: for a data owner. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import testudo_client.deployment.cli as deployment_cli
import testudo_client.exporting.cli as exporting_cli
import testudo_client.judging.cli as judging_cli
import testudo_client.personal.cli as personal_cli
import testudo_client.provisioning.cli as provisioning_cli
import testudo_client.quality.cli as quality_cli
import testudo_client.reporting.cli as reporting_cli
import testudo_client.serving.cli as serving_cli
import testudo_client.watching.cli as watching_cli
from testudo_client import audit_cli
from testudo_common.commands import EXIT_FAILED, at_a_terminal, run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A data owner's side of a federation: key, policy, approvals, and what was spent on its data.\n\n"
    "Example: testudo-client check plan.toml --data mine.csv",
)


ApprovingKey = Annotated[
    Path | None,
    typer.Option(
        "--key", help="The key that signs your approvals, where the node does not hold it.", show_default=False
    ),
]


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


@app.command(epilog="Example: testudo-client init my-folder --client shop-1")
def init(
    folder: Annotated[Path, typer.Argument(help="A folder of your own, which only you can read.", show_default=False)],
    client: Annotated[str | None, typer.Option(help="Your name in the federation.", show_default=False)] = None,
    epsilon_per_run: Annotated[float, typer.Option(help="The most that one plan may spend.")] = 8.0,
    epsilon_for_life: Annotated[float, typer.Option(help="The most that all plans may ever spend.")] = 10.0,
    delta: Annotated[float, typer.Option(help="Well under one over the number of your examples.")] = 1e-5,
    no_privacy: Annotated[bool, typer.Option("--no-privacy", help="Allow plans without differential privacy.")] = False,
    min_cohort: Annotated[int, typer.Option(help="Fewer clients must never be grouped.")] = 10,
    min_group: Annotated[int, typer.Option(help="A sum over fewer clients must never be opened.")] = 4,
    max_participations: Annotated[int, typer.Option(help="Rounds of one plan that you may take part in.")] = 100,
    model: Annotated[list[str] | None, typer.Option(help="Allow this model; repeat for more.")] = None,
    max_bytes: Annotated[int, typer.Option(help="Of one update.")] = 4_000_000,
    federation_key: Annotated[str | None, typer.Option(help="The federation's key, as it told you.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the policy holds.")] = 365,
    anchor: Annotated[list[Path] | None, typer.Option(help="A further file for the ledger's anchor.")] = None,
    approval_key: Annotated[
        Path | None, typer.Option(help="Sign approvals with this key; made if it is not there.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the options.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON; asks nothing.")] = False,
) -> None:
    """Make your folder: your key, once, and a strict policy; print the key's public half, for the roster."""
    from testudo_client.home import OwnerHome
    from testudo_client.init_command import InitRequest, make_home, refuse_if_there, unasked
    from testudo_client.init_questions import asked
    from testudo_common.errors import UsageError

    refuse_if_there(OwnerHome(folder))
    if client is None and (yes or as_json):
        raise UsageError("your name in the federation is missing", remedy="add --client NAME")
    request = InitRequest(
        folder, client or "", epsilon_per_run, epsilon_for_life, delta, no_privacy, min_cohort, min_group,
        max_participations, model or ["mlp", "conv", "linear"], max_bytes, federation_key, days, anchor or [],
        approval_key,
    )  # fmt: skip
    made = make_home(unasked(request) if yes or as_json else asked(request))
    if as_json:
        typer.echo(json.dumps(made, indent=2))
        return
    typer.echo(f"Your policy: {made['policy']}. Read it through: what it does not allow is refused.")
    typer.echo(f"Your key: {made['identity']}. It never leaves this computer.")
    typer.echo(f"Its public half, for the federation's roster: {made['public_key']}")
    if made["federation_key"]:
        typer.echo(f"Pinned as the federation's key: {made['federation_key'][0]}. Compare it with the federation.")
    else:
        typer.echo("Put roster.json and federation.pub beside it when you get them, and the key into [pins].")


@app.command(epilog="Example: testudo-client preview plan.toml my-folder --data mine.csv")
def preview(
    plan: Annotated[Path, typer.Argument(help="The federation's plan, a TOML file.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    data: Annotated[Path | None, typer.Option(help="Your table, to count only what was spent on it.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="An app bundle to compare with the pin; none: your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show what a plan would mean for you: your policy's verdict, what would leave, to whom, and what it costs."""
    from testudo_client.approve_command import existing_home, refusals_logged
    from testudo_client.preview import preview as preview_of
    from testudo_client.preview_text import lines_of
    from testudo_common.plan.load import load_plan

    loaded, home = load_plan(plan), existing_home(folder)
    with refusals_logged(home, loaded.digest):
        found = preview_of(loaded, home, data=data, bundle=bundle)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines_of(found)))
    if not found["allowed"]:
        refused = ", ".join(rule["key"] for rule in found["rules"] if not rule["allowed"])
        home.log.write("refused", plan=loaded.digest, reason="preview", sentence=f"the policy refuses: {refused}")
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog="Example: testudo-client approve plan.toml my-folder")
def approve(
    plan: Annotated[Path, typer.Argument(help="The federation's plan, a TOML file.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    bundle: Annotated[Path | None, typer.Option(help="An app bundle to compare with the pin; none: your own.")] = None,
    key: ApprovingKey = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you have looked at the preview.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON; needs --yes.")] = False,
) -> None:
    """Approve a plan that your policy allows: shows the preview, asks, and signs with your key."""
    from testudo_client.approve_command import approve_plan, existing_home, refusals_logged
    from testudo_client.preview import preview as preview_of
    from testudo_client.preview_text import lines_of
    from testudo_common.errors import UsageError
    from testudo_common.plan.load import load_plan

    if not yes and (as_json or not at_a_terminal()):
        raise UsageError("nobody is there to confirm", remedy="run it in a terminal, or add --yes in a script")
    loaded, home = load_plan(plan), existing_home(folder)
    with refusals_logged(home, loaded.digest):
        if not yes:
            found = preview_of(loaded, home, bundle=bundle)
            typer.echo("\n".join(lines_of(found)))
            if found["allowed"] and not typer.confirm("\nApprove this plan?"):
                raise UsageError("not approved", remedy="nothing was changed")
        made = approve_plan(loaded, home, bundle, key)
    if as_json:
        typer.echo(json.dumps(made, indent=2))
        return
    typer.echo(f"Approved: {made['plan']!r}, digest {made['digest']}")


@app.command(epilog="Example: testudo-client withdraw plan.toml my-folder")
def withdraw(
    plan: Annotated[str, typer.Argument(help="The plan's file, or its digest.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    key: ApprovingKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Withdraw your approval: from the next round on nothing is trained. What is spent stays spent."""
    from testudo_client.approve_command import existing_home, withdraw_plan

    made = withdraw_plan(plan, existing_home(folder), key)
    typer.echo(json.dumps(made, indent=2) if as_json else f"Withdrawn: digest {made['digest']}")


@app.command(epilog="Example: testudo-client log my-folder --last 50")
def log(
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    last: Annotated[int, typer.Option(min=1, help="How many lines to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print all lines as JSON.")] = False,
) -> None:
    """Show your own log: what was refused, approved and withdrawn, and why. It never leaves this computer."""
    from dataclasses import asdict

    from testudo_client.approve_command import existing_home

    lines = list(existing_home(folder).log.lines())
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    for line in lines[-last:]:
        place = "" if line.round is None else f" round {line.round}.{line.attempt or 0}"
        typer.echo(f"{line.time} {line.event}{place} {line.plan[:16]} {line.sentence}")


@app.command(epilog="Example: testudo-client bundle --to testudo.fab")
def bundle(
    to: Annotated[Path | None, typer.Option(help="Also write the bundle to this file.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Make the app bundle that a server sends, from this installation; print its digest, which pins.bundle pins."""
    from testudo_client.bundle_command import made_bundle

    made = made_bundle(to)
    typer.echo(json.dumps(made, indent=2) if as_json else made["digest"])


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
    from testudo_client.ledger_rules import anchors_in, ceilings_in

    answer(
        LedgerRequest(
            folder, plan, data, client, None if show_all else last, delta, new_data, charge_elsewhere, unit, adopt,
            as_json,
        ),
        ceilings_in(folder, plan),
        anchors_in(folder),
    )  # fmt: skip


@app.command(epilog="Example: testudo-client statement my-folder --plan plan.toml")
def statement(
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    plan: Annotated[Path | None, typer.Option(help="Only of this plan, charged or not.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Print your privacy statements: what is guaranteed against whom, what was spent, and what is not covered."""
    from testudo_client import statement_command

    found, together = statement_command.owner_statements(folder, plan)
    if as_json:
        typer.echo(json.dumps(statement_command.as_json(found, together), indent=2))
        return
    typer.echo("\n\n".join([*(one.as_text() for one in found), "\n".join(together)]))


personal_cli.add_to(app)
audit_cli.add_to(app)
provisioning_cli.add_to(app)
deployment_cli.add_to(app)
quality_cli.add_to(app)
reporting_cli.add_to(app)
watching_cli.add_to(app)
judging_cli.add_to(app)
exporting_cli.add_to(app)
serving_cli.add_to(app)


def main() -> None:
    """Entry point of ``testudo-client``."""
    run_command(app)


if __name__ == "__main__":
    main()
