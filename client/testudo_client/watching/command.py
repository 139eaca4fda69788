"""What ``testudo-client watch`` does, option by option: checks once or again and again, references, proposals."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from testudo_client.home import STATE_FOLDER
from testudo_client.personal.own_model import Answerer
from testudo_client.personal.versions import VersionStore
from testudo_client.reference import keep_reference
from testudo_client.watching.metrics import WatchMetrics
from testudo_client.watching.proposals import read_proposals
from testudo_client.watching.sources import answers, rows_of_file
from testudo_client.watching.text import EXIT_CODES, as_dict, line_of
from testudo_client.watching.watch import Report, WatchRequest, answer_proposal, watch_once
from testudo_common.console import working
from testudo_common.errors import UsageError

Say = Callable[[str], None]


def utc_now() -> datetime:
    """By this computer's clock."""
    return datetime.now(UTC)


def check_once(request: WatchRequest, say: Say, *, as_json: bool) -> int:
    """One check; the status to end with.

    Raises:
        TestudoError: As :func:`watch_once` does.
    """
    with working("checking"):
        report = watch_once(request, utc_now())
    say(_said(report, as_json))
    return EXIT_CODES[report.step]


def keep_watching(request: WatchRequest, say: Say, *, every_seconds: float, metrics: str | None, as_json: bool) -> None:
    """Checks until SIGTERM or SIGINT; a check that was begun is ended. Without new rows nothing is said.

    Raises:
        TestudoError: As :func:`watch_once` does.
    """
    stop = threading.Event()

    def asked_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    with ExitStack() as stack:
        shown = WatchMetrics()
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, asked_to_stop))
        if metrics is not None:
            port = stack.enter_context(shown.listening(metrics))
            Console(stderr=True).print(f"Metrics of the last check: port {port}, path /metrics", highlight=False)
        first = True
        while not stop.is_set():
            report = watch_once(request, utc_now())
            shown.show(report)
            if report.found is not None or first:
                say(_said(report, as_json))
            first = False
            request = replace(request, settings={})  # they are remembered, and another command may change them
            stop.wait(every_seconds)


def adapting_again(folder: Path, meta_model: Path, rows: Path, client: str | None) -> Callable[[], bool]:
    """What adapts again and says whether the gate let the new version through.

    Never privately: that would spend epsilon, which a person decides. So under a private plan the new version has to
    stay with its owner, as ``adapt --stays-here`` has it.

    Args:
        folder: The owner's.
        meta_model: The published file.
        rows: The owner's table.
        client: Only this client's rows.

    Raises:
        UsageError: A file is not there.
    """
    from testudo_client.personal.adapt_command import AdaptRequest, adapt

    for path, option in ((meta_model, "--readapt"), (rows, "--rows")):
        if not path.is_file():
            raise UsageError("there is no such file", where=f"{option} {path}", remedy="check the path")

    def again() -> bool:
        return adapt(AdaptRequest(meta_model, folder, rows, client, stays_here=True), utc_now()).record.promoted

    return again


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """Rows to compare with.

    Attributes:
        folder: The owner's.
        data: A CSV file.
        client: Only this client's rows of it.
    """

    folder: Path
    data: Path
    client: str | None


def take_reference(request: ReferenceRequest) -> dict[str, object]:
    """Make the reference of the version in use; what was made, for JSON.

    Of all rows the inputs; answers and outcomes of those whose outcome is there and that the version was not made from.

    Raises:
        UsageError: No own model is in use, or it cannot be written.
        DataError: The file cannot be used; the old reference stays.
    """
    version = VersionStore(request.folder).current()
    rows = rows_of_file(request.folder, version, request.data, request.client)
    chosen = rows.known & rows.fresh
    outputs = answers(Answerer(version.own), rows.inputs[chosen])
    path = keep_reference(request.folder, version.record.id, rows.inputs, outputs, rows.targets[chosen])
    return {
        "version": version.record.id,
        "reference": str(path),
        "rows": len(rows.inputs),
        "outcomes": len(outputs),
    }


def proposals_of(folder: Path, say: Say, *, as_json: bool) -> None:
    """List them.

    Raises:
        UsageError: One is damaged.
    """
    found = read_proposals(folder / STATE_FOLDER)
    if as_json:
        say(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    for one in found:
        say(one.sentence())
    if not found:
        say("There are no proposals.")


def answer(folder: Path, number: int, say: Say, *, accepted: bool, as_json: bool) -> None:
    """A person's answer to a proposal. Nothing is sent.

    Raises:
        UsageError: There is no open proposal of that number.
    """
    proposal = answer_proposal(folder, number, "accepted" if accepted else "dismissed", utc_now())
    if as_json:
        say(json.dumps(proposal.model_dump(mode="json"), indent=2))
        return
    say(proposal.sentence())
    if accepted:
        say("Nothing was sent. Tell the federation's operator; the plan of a new round comes to you as always:")
        say("testudo-client preview PLAN FOLDER shows what it costs, and testudo-client approve PLAN FOLDER allows it.")


def existing_folder(folder: Path) -> Path:
    """The folder.

    Raises:
        UsageError: It is not there.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=str(folder), remedy="testudo-client init makes one")
    return folder


def _said(report: Report, as_json: bool) -> str:
    return json.dumps(as_dict(report)) if as_json else line_of(report)
