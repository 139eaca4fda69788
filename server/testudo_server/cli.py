"""``testudo-server``: for those who run a federation. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import testudo_server.deployment.cli as deployment_cli
import testudo_server.provisioning.cli as provisioning_cli
from testudo_common.commands import run_command

if TYPE_CHECKING:
    from testudo_common.audit.entries import AnyEntry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepare a federation, and look at its audit log.\n\nExample: testudo-server check plan.toml --clients 12",
)


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


audit = typer.Typer(
    no_args_is_help=True,
    help="Look at a run's audit log, hand it out, and write into it.\n\nExample: testudo-server audit show runs/shops",
)
app.add_typer(audit, name="audit")
Out = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
Keys = Annotated[
    Path | None, typer.Option(help="The folder of the federation's keys; none: keys in the run's.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@audit.command("show", epilog="Example: testudo-server audit show runs/shops | less")
def audit_show(out: Out, as_json: AsJson = False) -> None:
    """Print what stands in the log, an entry a line."""
    from testudo_server.audit_command import shown

    entries = shown(out)
    if as_json:
        typer.echo(json.dumps([{"index": index, **entry} for index, _, entry in entries], indent=2))
        return
    for index, line, _ in entries:
        typer.echo(f"{index:>6} {line}")


@audit.command(
    "prove", epilog="Example: testudo-server audit prove runs/shops --round 3 --client shop-1 --to shop-1.tlog-proof"
)
def audit_prove(
    out: Out,
    entry: Annotated[int | None, typer.Option(min=0, help="The entry's index.", show_default=False)] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, help="Of a client's update in this round.", show_default=False)
    ] = None,
    client: Annotated[str | None, typer.Option(help="The client's name.", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option(help="Write it into this file.", show_default=False)] = None,
    keys: Keys = None,
) -> None:
    """Print the receipt of an entry: that it is in the log, under a checkpoint that a quorum cosigned."""
    from testudo_common.files import write_atomically
    from testudo_server.audit_command import proved

    receipt = proved(out, keys, entry=entry, round_number=round_number, client=client)
    if to is None:
        typer.echo(receipt.decode(), nl=False)
        return
    write_atomically(to, receipt)
    typer.echo(f"{to}: a receipt of {len(receipt)} bytes")


@audit.command("export", epilog="Example: testudo-server audit export runs/shops --to shops.tlog")
def audit_export(
    out: Out,
    to: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole log into one file, for whoever wants to verify it."""
    from testudo_server.audit_command import exported

    found = exported(out, keys, to)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(
        f"{to}: {found['entries']} entries in {found['bytes']} bytes; {found['cosigners']} owners cosigned the last "
        f"checkpoint, and a quorum of {found['quorum']} saw {found['entries_that_a_quorum_saw']} entries"
    )
    if found["left_out"]:
        typer.echo(f"Left out: {found['left_out']} entries that no checkpoint covers yet; the run was stopped there.")
    typer.echo(f"To verify it: testudo-client audit verify {to} --federation-key federation.pub")


@audit.command("record", epilog='Example: testudo-server audit record runs/shops --release "the shops, all four"')
def audit_record(
    out: Out,
    drill: Annotated[Path | None, typer.Option(help="The report of a leakage drill.", show_default=False)] = None,
    passed: Annotated[
        bool | None, typer.Option("--passed/--failed", help="Of the drill: whether nothing was found.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="Whom the last model is given to, in words.", show_default=False)
    ] = None,
    incident: Annotated[str | None, typer.Option(help="What happened, in words.", show_default=False)] = None,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Write something into the log that only a person knows. What is written stays."""
    from testudo_common.errors import UsageError
    from testudo_server import audit_command

    if sum(each is not None for each in (drill, release, incident)) != 1 or (drill is None) != (passed is None):
        raise UsageError(
            "it is not clear what to write down",
            remedy="name one of --drill REPORT with --passed or --failed, --release WORDS, and --incident WORDS",
        )
    entry: AnyEntry
    if drill is not None:
        entry = audit_command.drill_of(drill, passed=bool(passed))
    elif release is not None:
        entry = audit_command.release_of(out, keys, release)
    else:
        entry = audit_command.incident_of(incident or "")
    found = audit_command.recorded(out, keys, entry)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"Entry {found['index']}: {found['type']}. The owners see it when the run goes on.")


@app.command(epilog='Example: testudo-server publish runs/shops --to meta-model.safetensors --for "the shops"')
def publish(
    out: Out,
    to: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    whom: Annotated[
        str, typer.Option("--for", help="Whom it is given to, in words, for the audit log.")
    ] = "all owners",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Although rounds of the plan are left.")] = False,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's meta-model into a file that data owners adapt, with a model card; its release is logged first."""
    from testudo_server.publish_command import card_beside
    from testudo_server.publish_command import publish as publish_model

    done = publish_model(out, keys, to, whom, unfinished=unfinished)
    published = done.published
    if as_json:
        sizes = [prior.shots for prior in published.priors]
        found = {"file": str(to), "round": published.round, "model": published.digest, "plan": published.plan_digest}
        typer.echo(json.dumps({**found, "calibrated_for_shots": sizes, "log_entry": done.entry}, indent=2))
        return
    typer.echo(f"{to}: the model after round {published.round}, digest {published.digest}")
    if done.entry is not None:
        typer.echo(f"Entry {done.entry} of the audit log says so.")
    typer.echo(f"Model card: {card_beside(to)}")
    if not published.priors:
        typer.echo("Without a calibration by newcomers: see calibration.held_back in docs/plan.md.")


provisioning_cli.add_to(app)
deployment_cli.add_to(app)


def main() -> None:
    """Entry point of ``testudo-server``."""
    run_command(app)


if __name__ == "__main__":
    main()
