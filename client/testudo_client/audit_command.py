"""``testudo-client audit``: verifies logs, and shows their entries, without the server, torch or Flower."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from testudo_client.audit_sources import Source, exported, logs_in, mirrored, mirrors_in
from testudo_common.audit.entries import decode_entry
from testudo_common.audit.verify import Outcome, Verdict, verify
from testudo_common.audit.wording import counted, printable, told
from testudo_common.errors import AuditError

_LONG: Final = 2000
"""Entries from which on a person wants to see how far it is."""
_OFTEN: Final = 100


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What the command line asks.

    Attributes:
        path: An exported log, or an owner's folder.
        federation_key: The federation's public key; None: the folder's.
        receipts: Further ones to check.
        kept: An earlier checkpoint.
        as_json: Print the answer as JSON.
    """

    path: Path
    federation_key: Path | None = None
    receipts: Sequence[Path] = ()
    kept: Path | None = None
    as_json: bool = False


def verify_logs(request: VerifyRequest) -> bool:
    """Verify every log, print a line for each check, and say whether all of them hold.

    Raises:
        UsageError, AuditError, KeyFileError: There is no log to verify, or it cannot be read.
    """
    verdicts: list[tuple[Source, Verdict]] = []
    with _uncollected():
        for source in logs_in(request.path, request.federation_key, request.receipts, request.kept):
            with _progress(len(source.evidence.entries), shown=not request.as_json) as on_entry:
                verdict = verify(source.evidence, on_entry)
            verdicts.append((source, verdict))
            if not request.as_json:
                print("\n".join([*([""] if len(verdicts) > 1 else []), *_lines(source.name, verdict)]))
    holds = all(verdict.holds for _, verdict in verdicts)
    if request.as_json:
        logs = [{"file": source.name, **_as_json(verdict)} for source, verdict in verdicts]
        print(json.dumps({"holds": holds, "logs": logs}, indent=2))
    return holds


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look through the entries again and again; none of them is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _lines(name: str, verdict: Verdict) -> Iterator[str]:
    plan = f", of the plan {verdict.plan!r} {verdict.plan_digest}" if verdict.plan else ""
    yield printable(
        f"{name}: {verdict.origin or 'a log'}{plan}: {counted(verdict.entries, 'entry', 'entries')}, "
        f"{counted(verdict.rounds, 'round')}"
    )
    for check in verdict.checks:
        yield printable(f"{check.outcome.value:<8} {check.name}: {check.detail}")
    failed = sum(check.outcome is Outcome.FAILED for check in verdict.checks)
    made = sum(check.outcome is Outcome.OK for check in verdict.checks)
    first = verdict.first_failure
    if first is None:
        yield f"The log holds: {made} checks."
    else:
        yield printable(
            f"The log does not hold: {failed} of {failed + made} checks failed. The first, {first.name}: {first.detail}"
        )


def _as_json(verdict: Verdict) -> dict[str, Any]:
    first = verdict.first_failure
    return {
        "origin": verdict.origin,
        "plan": verdict.plan,
        "plan_digest": verdict.plan_digest,
        "entries": verdict.entries,
        "rounds": verdict.rounds,
        "holds": verdict.holds,
        "first_failure": None if first is None else first.name,
        "checks": [asdict(check) for check in verdict.checks],
    }


@contextmanager
def _progress(entries: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on the error stream, where somebody looks at it and the log is long."""
    if not shown or entries < _LONG or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=entries)

        def on_entry(index: int) -> None:
            if index % _OFTEN == 0:
                bar.update(task, completed=index)

        yield on_entry


def _nothing(_index: int) -> None:
    """Show nothing."""


def show_logs(path: Path, *, as_json: bool = False) -> bool:
    """Print every entry of an exported log, or of the mirrors in a folder, a line each; whether all could be read.

    Raises:
        UsageError, AuditError: There is no log, or it cannot be read.
    """
    logs = (
        [(str(mirror), mirrored(mirror)[0]) for mirror in mirrors_in(path)]
        if path.is_dir()
        else [(str(path), exported(path).entries)]
    )
    if as_json:
        found = [{"file": name, "entries": [_entry_as_json(data) for data in entries]} for name, entries in logs]
        print(json.dumps(found, indent=2))
    whole = True
    for name, entries in logs:
        if not as_json and len(logs) > 1:
            print(printable(f"{name}:"))
        for index, data in enumerate(entries):
            line, readable = _entry_in_words(data)
            whole = whole and readable
            if not as_json:
                print(f"{index:>6} {line}")
    return whole


def _entry_in_words(data: bytes) -> tuple[str, bool]:
    try:
        entry = decode_entry(data)
    except AuditError as error:
        return error.problem, False
    return f"{entry.time} {entry.type:<16} {told(entry)}", True


def _entry_as_json(data: bytes) -> dict[str, Any] | None:
    """The entry; None where it cannot be read."""
    try:
        return decode_entry(data).model_dump(mode="json")
    except AuditError:
        return None
