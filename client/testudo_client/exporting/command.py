"""What ``testudo-client export`` does: reads version and rows, writes files with their card, prints the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testudo_client.data import examples_of_rows, load_owner_table
from testudo_client.exporting.card import CARD, CONTRACT, card_of
from testudo_client.exporting.exporting import Export, export
from testudo_client.exporting.files import require_onnx
from testudo_client.exporting.results import FORMATS, ExportedFile, ExportReport, Format, Latency
from testudo_client.exporting.rows import TrialRows, made_up
from testudo_client.judging.few_shot import table_data_of, true_targets
from testudo_client.personal.versions import Version, VersionStore
from testudo_common.console import working
from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically

_SEED = 0  # of made-up rows, distillation and the order of measurements


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, as it was written."""

    folder: Path
    to: Path
    formats: str | None
    data: Path | None
    client: str | None
    margin: float
    as_json: bool


def run_export(asked: Asked) -> None:
    """Export the version in use, and say what came of it.

    Raises:
        UsageError: No version is in use, a format is not known or not installed, or the folder is not empty.
        DataError: The table cannot be used.
    """
    formats = parse_formats(asked.formats)
    version = VersionStore(asked.folder).current()
    if set(formats) != {"torch"}:
        require_onnx()
    rng = np.random.default_rng(_SEED)
    rows = made_up(version.contract, rng) if asked.data is None else _owned(version, asked.data, asked.client)
    _make_empty(asked.to)
    with working("exporting") as told:
        report = export(Export(version, rows, asked.to, formats, asked.margin, on_step=told), rng)
    card = card_of(version, report)
    write_atomically(asked.to / CONTRACT, version.contract.model_dump_json(indent=2).encode())
    write_atomically(asked.to / CARD, json.dumps(card, indent=2).encode())
    if asked.as_json:
        print(json.dumps(card, indent=2))
    else:
        print_report(report, asked.to, Console())


def parse_formats(text: str | None) -> tuple[Format, ...]:
    """Formats, as a list in one option has them; None: all.

    Raises:
        UsageError: One is not known.
    """
    if text is None:
        return FORMATS
    named = {part.strip() for part in text.split(",")}
    if unknown := named - set(FORMATS):
        raise UsageError(
            f"there is no format {sorted(unknown)[0]!r}", where="--format", remedy=f"Name any of {', '.join(FORMATS)}"
        )
    return tuple(one for one in FORMATS if one in named)


def print_report(report: ExportReport, folder: Path, console: Console) -> None:
    """The table that the recommendation rests on."""
    score = "accuracy" if report.accuracy is not None else "MAE" if report.mae is not None else "agreement"
    columns = ("", "ms of 1 row\np50 / p99", "ms of 64\np50 / p99", "disk", "memory", score, "differs", "")
    source = "of your rows" if report.rows_are == "data" else "rows made up from the contract"
    table = Table(*columns, title=f"Measured on {report.rows} {source}, by one thread", title_justify="left")
    table.columns[0].no_wrap = True
    own = report.accuracy if report.accuracy is not None else report.mae
    table.add_row("in use, in torch", *_times(report.reference), "", "", "" if own is None else f"{own:.4g}", "", "")
    for one in report.files:
        table.add_row(*map(escape, _row(one)))
    console.print(table)
    for one in report.files:
        if not one.kept or one.model == "student":
            console.print(escape(f"{'Kept' if one.kept else 'Refused'}: {one.file}, {one.reason}."), soft_wrap=True)
    best = report.recommendation
    console.print(
        "No file was kept." if best is None else f"Recommended: {best.file}, on {_WHERE[best.where]}. {best.reason}.",
        soft_wrap=True,
    )
    if report.stays:
        console.print(
            "It was made from your rows without privacy: keep these files, and who may ask them, to yourself."
        )
    console.print(f"How to ask them: {folder / CARD}", soft_wrap=True)


_WHERE = {"edge": "a small device (edge)", "server": "a server"}


def _row(one: ExportedFile) -> list[str]:
    score = next((value for value in (one.accuracy, one.mae, one.agreement) if value is not None), None)
    return [
        one.file,
        *_times(one.latency),
        f"{one.bytes / 1024:.0f} KiB" if one.bytes else "",
        "" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:.0f} MiB",
        "" if score is None else f"{score:.4g}",
        "" if one.difference is None else f"{one.difference:.1g}",
        "kept" if one.kept else "refused",
    ]


def _times(latency: Mapping[int, Latency]) -> list[str]:
    return [_milliseconds(latency.get(rows)) for rows in (1, 64)]


def _milliseconds(one: Latency | None) -> str:
    return "" if one is None else f"{1000 * one.p50:.3f} / {1000 * one.p99:.3f}"


def _owned(version: Version, data: Path, client: str | None) -> TrialRows:
    plan = version.own.plan
    examples = examples_of_rows(table_data_of(plan), plan.task.kind, load_owner_table(plan, data, client))
    return TrialRows(examples.inputs, true_targets(plan, examples))


def _make_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("there is something already", where=str(folder), remedy="Name a new folder with --to")
    try:
        make_private(folder)
    except OSError as error:
        problem = f"the folder cannot be made: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(folder), remedy="Name one that may be written to") from error
