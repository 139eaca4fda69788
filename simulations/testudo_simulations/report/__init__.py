"""Reports: one ``report.json``, and two views of it that measure nothing of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_simulations.results import FORMAT_VERSION, Report

JSON_NAME, HTML_NAME, CARD_NAME = "report.json", "report.html", "model-card.md"
_AGAIN = "Run testudo-simulate again to make a new one"


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html``, and ``model-card.md`` of a single run, each in one step.

    Args:
        report: Of one or several runs.
        folder: Made where it is missing.

    Returns:
        The paths of the JSON file and of the page.

    Raises:
        UsageError: The folder cannot be written to.
    """
    from testudo_common.reporting.cards import as_markdown
    from testudo_simulations.report.accountability import card_of
    from testudo_simulations.report.html import write_html

    json_path, html_path = folder / JSON_NAME, folder / HTML_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(json_path, f"{report.model_dump_json(indent=2)}\n".encode())
        write_html(report, html_path)
        if len(report.runs) == 1 and (card := card_of(report.runs[0])) is not None:
            write_atomically(folder / CARD_NAME, as_markdown(card).encode())
    except OSError as error:
        raise UsageError(
            f"the report cannot be written: {error.strerror or 'no reason given'}",
            where=str(folder),
            remedy="Name a folder that may be written to",
        ) from error
    return json_path, html_path


def read_report(path: Path) -> Report:
    """Read ``report.json``; a number that was not finite when written (null in the file) comes back as NaN.

    Args:
        path: The file, or the folder it is in.

    Raises:
        UsageError: The file is missing, damaged, or of another version.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"the report cannot be read: {error.strerror or 'no reason given'}",
            where=str(file),
            remedy=f"Name a {JSON_NAME}, or the folder it is in",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError("the report is damaged: it is not JSON", where=str(file), remedy=_AGAIN) from error
    version = found.get("version") if isinstance(found, dict) else None
    if version is not None and version != FORMAT_VERSION:
        raise UsageError(
            f"the report is of version {version!r:.40}, and this program reads version {FORMAT_VERSION}",
            where=str(file),
            remedy="Read it with the program that made it",
        )
    return _validated(found, file)


def _validated(found: Any, file: Path) -> Report:
    """The report; each null where a number must be is taken for NaN, as ``ser_json_inf_nan`` wrote it."""
    try:
        return Report.model_validate(found)
    except ValidationError as error:
        faults = error.errors()
    nulls = [fault["loc"] for fault in faults if fault["type"] == "float_type" and fault["input"] is None]
    if nulls and len(nulls) == len(faults):
        for *parents, last in nulls:
            holder = found
            for key in parents:
                holder = holder[key]
            holder[last] = math.nan
        return Report.model_validate(found)
    first = faults[0]
    key = ".".join(map(str, first["loc"])) or "(whole file)"
    raise UsageError(f"the report is damaged at {key}: {first['msg']}", where=str(file), remedy=_AGAIN)
