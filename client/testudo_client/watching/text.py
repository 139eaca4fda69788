"""What a check came to, as a line for a person and as an object for a program. No value of a cell is in either."""

from __future__ import annotations

from typing import Any

from testudo_client.watching.check import Found
from testudo_client.watching.policy import Step
from testudo_client.watching.watch import Report

EXIT_CODES = {Step.NOTHING: 0, Step.WARN: 10, Step.READAPT: 11, Step.PROPOSE: 12}
"""What ``--once`` and ``--data`` end with, so that a timer can act on it."""
_SHOWN = 5


def line_of(report: Report) -> str:
    """One line."""
    begin = f"{report.time}  version {report.version}: {report.rows} rows"
    if report.left_out:
        begin += f" ({report.left_out} more were adapted on, and say nothing of others)"
    if report.found is None:
        before = "Nothing is flagged so far." if report.step is Step.NOTHING else _next(report)
        return f"{begin}, and a check takes {report.needed}: not checked. {before}"
    found = report.found
    again = "" if report.counted else " The same rows as at the last check: not counted again."
    untested = f" Not tested: {'; '.join(found.untested)}." if found.untested else ""
    return f"{begin}, {found.labelled} outcomes, {_tested(found)}: {_verdict(found)}.{untested}{again} {_next(report)}"


def as_dict(report: Report) -> dict[str, Any]:
    """For JSON."""
    return {
        "time": report.time,
        "version": report.version,
        "rows": report.rows,
        "left_out": report.left_out,
        "needed": report.needed,
        "checked": report.found is not None,
        "counted": report.counted,
        "check": None if report.found is None else report.found.as_dict(),
        "state": report.remembered.state.model_dump(mode="json"),
        "next": report.step.value,
        "exit_code": EXIT_CODES[report.step],
    }


def _tested(found: Found) -> str:
    counts = dict.fromkeys(("inputs", "outputs", "outcomes"), 0)
    for test in found.tests:
        counts[test.family] += 1
    return (
        f"{len(found.tests)} tests ({', '.join(f'{count} of {family}' for family, count in counts.items() if count)})"
    )


def _verdict(found: Found) -> str:
    parts = [f"{one.family} {one.name!r} (p {one.adjusted:.2g})" for one in found.flagged[:_SHOWN]]
    if more := len(found.flagged) - _SHOWN:
        parts += [f"{more} more"] if more > 0 else []
    if found.change is not None and found.change.at is not None:
        parts.append(f"losses grew by outcome {found.change.at} of {found.change.seen}")
    if parts:
        return f"flagged {', '.join(parts)}"
    least = min((test.adjusted for test in found.tests), default=1.0)
    return f"nothing flagged (least p {least:.2g})"


def _next(report: Report) -> str:
    flags = report.remembered.state.flags
    match report.step:
        case Step.NOTHING:
            return "Fine."
        case Step.WARN:
            known = report.found is not None and report.found.worse is False
            so_far = "answers are not worse so far" if known else "tell outcomes, to know whether answers are worse"
            return f"Warned, {flags} in a row: look at what drifts; {so_far}."
        case Step.READAPT:
            return "Answers are worse: adapt again with recent rows, by testudo-client adapt."
        case Step.PROPOSE:
            return (
                "A federated round is proposed, which would cost epsilon, so that you decide:"
                f" testudo-client watch {report.folder} --proposals."
            )
