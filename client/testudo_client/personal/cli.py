"""The commands that make, list and take back own models. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from testudo_client.personal.adapt_command import Adapted
    from testudo_client.personal.versions import VersionRecord

EXIT_NOT_PROMOTED = 3
"""Adapting went well, and the gate refused: what was in use stays so."""

Folder = Annotated[Path, typer.Argument(help="Your folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
_METRICS = ("accuracy", "balanced_accuracy", "ece", "brier", "rmse", "mae")


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command("adapt", epilog="Example: testudo-client adapt meta-model.safetensors my-folder --data mine.csv")(
        _adapt
    )
    app.command("models", epilog="Example: testudo-client models my-folder")(_models)
    app.command("rollback", epilog="Example: testudo-client rollback my-folder")(_rollback)


def _adapt(
    meta_model: Annotated[Path, typer.Argument(help="The meta-model that was published.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Your folder; made if it is not there.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="Your table, a CSV file.", show_default=False)],
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Steps of adaptation; default: as the plan evaluates.")
    ] = None,
    stays_here: Annotated[
        bool,
        typer.Option(
            "--stays-here",
            help="Under a private plan: adapt without privacy and charge nothing; the model may then never leave.",
        ),
    ] = False,
    epsilon: Annotated[
        float | None, typer.Option(help="To spend under a private plan; default: the plan's.", show_default=False)
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="The federation's log, exported: is this its model?", show_default=False),
    ] = None,
    federation_key: Annotated[
        Path | None, typer.Option(help="With --log: federation.pub, whose signatures count.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the meta-model your own, and put it in use if it beats what you have. Nothing leaves this computer.

    Exit status 3: it did not, and nothing changed.
    """
    from testudo_client.personal.adapt_command import AdaptRequest, adapt
    from testudo_common.console import working

    request = AdaptRequest(meta_model, folder, data, client, steps, stays_here, epsilon, log, federation_key)
    with working("adapting") as say:
        done = adapt(request, datetime.now(UTC), say)
    if as_json:
        typer.echo(json.dumps({"log": done.log, "priors": done.priors, **_plain(done.record)}, indent=2))
    else:
        typer.echo("\n".join(_told(done)))
    if not done.record.promoted:
        raise typer.Exit(EXIT_NOT_PROMOTED)


def _models(folder: Folder, as_json: AsJson = False) -> None:
    """List your own models: which is in use, how each came about, and why it was promoted or not."""
    from testudo_client.personal.versions import VersionStore

    store = VersionStore(folder)
    records, current = [store.record(number) for number in store.ids()], store.current_id()
    if as_json:
        found = {"in_use": current, "versions": [_plain(record) for record in records], "history": store.history()}
        typer.echo(json.dumps(found, indent=2))
        return
    if not records:
        typer.echo("No own model yet. Make one: testudo-client adapt META_MODEL FOLDER --data mine.csv")
    for record in records:
        mark = "in use" if record.id == current else "      "
        typer.echo(f"{mark} {record.id:>3} {record.created} {record.kind}, {record.rows} rows: {record.reason}")


def _rollback(
    folder: Folder,
    to: Annotated[
        int | None, typer.Option(min=1, help="Which version; default: the one that was in use before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put an earlier version of your own model in use again."""
    from testudo_client.personal.adapt_command import roll_back

    record = roll_back(folder, to, datetime.now(UTC))
    typer.echo(json.dumps(_plain(record), indent=2) if as_json else f"Version {record.id} is in use again.")


def _plain(record: VersionRecord) -> dict[str, object]:
    """Without what stands for single rows."""
    return record.model_dump(mode="json", exclude={"rows_digest", "losses"})


def _told(done: Adapted) -> list[str]:
    record = done.record
    state = "is in use" if record.promoted else "was made, and is not in use"
    lines = [f"Version {record.id} {state}: {record.reason}."]
    names = [name for name in _METRICS if name in record.contenders[0].metrics]
    lines.append(f"{'Out of fold':<16}" + "".join(f"{name.replace('_', ' '):>19}" for name in names) + f"{'loss':>9}")
    for one in record.contenders:
        values = "".join(f"{one.metrics[name]:>19.3f}" if name in one.metrics else f"{'':>19}" for name in names)
        lines.append(f"{one.name.replace('_', ' '):<16}{values}{one.loss:>9.3f}")
    if "rmse" in names:
        lines.append("Errors are of the target as the plan scales it, its logarithm where it takes one.")
    known = "the federation's calibration" if done.priors else "no calibration: the plan has no calibration.held_back"
    lines.append(f"{record.rows} rows; {known}; the federation's log: {_LOG[done.log.value]}.")
    if record.private:
        lines.append(f"Charged to your ledger: epsilon {record.epsilon:.3g} by itself.")
    if record.stays:
        lines.append("It was adapted without privacy: keep the model, and who may ask it, to yourself.")
    return lines


_LOG = {
    "named": "names this meta-model",
    "not yet": "your mirror does not reach its last round yet",
    "no mirror": "you have no mirror of it, so nobody checked where this file comes from",
}
