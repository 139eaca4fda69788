"""``testudo-client report``: gathers, writes ``report.json``, the page and the model card, and prints a summary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from testudo_client.reporting.gather import gather
from testudo_client.reporting.pages import to_html
from testudo_client.reporting.values import OwnerReport
from testudo_common.console import working
from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.reporting.cards import as_markdown

FOLDER: Final = "report"
JSON_NAME, PAGE_NAME, CARD_NAME = "report.json", "report.html", "model-card.md"


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What was asked on the command line; the options' own help says what each is."""

    folder: Path
    out: Path | None = None
    evaluation: Path | None = None
    glance_only: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """Where it lies."""

    json_path: Path
    page: Path


def make_report(request: ReportRequest) -> Made:
    """Make the report; nothing is written before all of it is gathered.

    Raises:
        UsageError: There is nothing to report on, or the report cannot be written.
    """
    with working("reading") as on_step:
        report = gather(
            request.folder,
            datetime.now(UTC),
            software=_software(),
            evaluation=request.evaluation,
            on_step=on_step,
        )
        on_step("page")
        page = to_html(report, glance_only=request.glance_only)
    made = write_report(report, page, request.out or request.folder / FOLDER)
    if not request.as_json:
        from rich.console import Console

        from testudo_client.reporting.terminal import print_report

        print_report(report, Console(), glance_only=request.glance_only)
    return made


def write_report(report: OwnerReport, page: str, out: Path) -> Made:
    """Write what was made into ``out``, each file in one step, for this user alone.

    Raises:
        UsageError: It cannot be written.
    """
    made = Made(out / JSON_NAME, out / PAGE_NAME)
    try:
        make_private(out)
        write_atomically(made.json_path, f"{report.model_dump_json(indent=2)}\n".encode())
        write_atomically(made.page, page.encode())
        if report.card is not None:
            write_atomically(out / CARD_NAME, as_markdown(report.card).encode())
    except OSError as error:
        problem = f"the report cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(out), remedy="Name a folder that may be written to") from error
    return made


def _software() -> str:
    try:
        return version("testudo-fl")
    except PackageNotFoundError:
        return "of an unknown version"
