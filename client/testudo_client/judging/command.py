"""What ``testudo-client evaluate`` does: reads model and table, shows progress, prints or writes what was found."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from testudo_client.data import examples_of_rows, load_owner_table
from testudo_client.judging.few_shot import table_data_of
from testudo_client.judging.judge import Request, judge_own, judge_published
from testudo_client.judging.results import EVALUATION_FILE, Evaluation
from testudo_client.judging.terminal import print_evaluation
from testudo_client.personal.in_use import row_digests
from testudo_client.personal.versions import VersionStore
from testudo_common.console import working
from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.publication import read_published


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, as it was written."""

    meta_model: Path | None
    data: Path | None
    own: Path | None
    client: str | None
    shots: str | None
    slices: tuple[str, ...]
    shifts: bool
    before: Path | None
    margin: float
    gate: bool
    seed: int
    out: Path | None
    as_json: bool


def evaluate(asked: Asked) -> bool:
    """Judge, and say what was found.

    Returns:
        Whether the gate, if there is one, lets the model through.

    Raises:
        UsageError: Options do not fit together, or ``--out`` cannot be written to.
        DataError: The table cannot be used.
        PlanError: The meta-model is of data that no owner has as a table.
        ModelError: A model does not fit its plan, or training diverged.
    """
    _check(asked)
    assert asked.data is not None
    request = Request(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=asked.data.name,
        shots=parse_shots(asked.shots),
        slices=tuple(dict.fromkeys(asked.slices)),
        shifts=asked.shifts,
        margin=asked.margin,
        seed=asked.seed,
    )
    found = _own(asked, request) if asked.meta_model is None else _published(asked, asked.meta_model, request)
    return report(found, asked.out, gate=asked.gate, as_json=asked.as_json)


def report(found: Evaluation, out: Path | None, *, gate: bool, as_json: bool) -> bool:
    """Print what was found, and write it to a folder where one is named.

    Returns:
        Whether the gate, if there is one, lets the model through.

    Raises:
        UsageError: The folder cannot be written to.
    """
    if out is not None:
        write_evaluation(found, out)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        print_evaluation(found, Console())
        if out is not None:
            whose = "the clients' rows" if found.kind == "simulation" else "your rows: keep it to yourself"
            print(f"As data: {out / EVALUATION_FILE}. It tells of {whose}.")
    if gate and not found.passed:
        print("The gate holds it back: it was not shown to be as good as the model before.", file=sys.stderr)
    return found.passed or not gate


def write_evaluation(found: Evaluation, folder: Path) -> None:
    """As ``evaluation.json``, whole or not at all, for this user alone.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        make_private(folder)
        write_atomically(folder / EVALUATION_FILE, found.model_dump_json(indent=2).encode())
    except OSError as error:
        problem = f"the evaluation cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(folder), remedy="Name a folder that may be written to") from error


def parse_shots(text: str | None) -> tuple[int, ...] | None:
    """Support sizes, as a list in one option has them.

    Raises:
        UsageError: Not whole numbers of 1 or more.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError("not support sizes", where="--shots", remedy="Write whole numbers above 0, such as 1,5,10")
    return tuple(sorted({int(part) for part in parts}))


def _check(asked: Asked) -> None:
    if (asked.meta_model is None) == (asked.own is None):
        raise UsageError(
            "name either a meta-model or --own, and not both",
            remedy="Write META_MODEL --data FILE, or --own FOLDER --data FILE",
        )
    if asked.data is None:
        raise UsageError("no rows to judge it on", remedy="Add --data FILE")
    if asked.own is not None and (asked.before is not None or asked.shots is not None):
        raise UsageError(
            "--shots and --before are of a meta-model",
            where="--own",
            remedy="Leave them out: a version in use is asked as it is",
        )
    if asked.gate and asked.before is None:
        raise UsageError("a gate needs a model to compare with", where="--gate", remedy="Add --before OLD_META_MODEL")


def _published(asked: Asked, path: Path, request: Request) -> Evaluation:
    assert asked.data is not None
    published = read_published(path)
    before = None if asked.before is None else read_published(asked.before)
    table = load_owner_table(published.plan, asked.data, asked.client)
    with working("reading") as working_on:

        def told(what: str, done: int, total: int) -> None:
            working_on(f"{what} ({done + 1} of {total})")

        return judge_published(published, table, request, before=before, progress=told)


def _own(asked: Asked, request: Request) -> Evaluation:
    assert asked.own is not None and asked.data is not None
    version = VersionStore(asked.own).current()
    table = load_owner_table(version.own.plan, asked.data, asked.client)
    examples = examples_of_rows(table_data_of(version.own.plan), version.own.plan.task.kind, table)
    made_from = set(version.record.rows_digest)
    known = sum(one in made_from for one in row_digests(asked.own, examples)) if made_from else 0
    return judge_own(version, table, request, known_rows=known)
