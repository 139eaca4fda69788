"""What watching the model in use came to, as the report has it. Checks nothing: testudo-client watch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testudo_client.reporting.evidence import digest_of
from testudo_client.reporting.values import WatchTold
from testudo_client.watching.proposals import read_proposals
from testudo_client.watching.state import FILE, read_state
from testudo_common.audit.wording import counted
from testudo_common.reporting.rmf import Evidence, Kind

MEANINGS = {
    "steady": "the last check found nothing",
    "warned": "what it is asked, or what it answers, is not what it was; whether answers are worse is not known",
    "due": "its answers are worse: it is to be adapted again",
    "proposed": "adapting again did not help: a round of the federation is proposed, and a person decides",
}
_ADVICE = {
    "warned": "Look at what drifts, and tell outcomes, to know whether answers are worse: testudo-client watch.",
    "due": "Answers are worse: adapt again with recent rows, by testudo-client adapt.",
    "proposed": "Answer the proposal of a federated round, which would cost epsilon: testudo-client watch --proposals.",
}


def watch_of(state: Path) -> WatchTold | None:
    """What is remembered in the owner's ``state`` folder; None where nothing was watched yet.

    Raises:
        UsageError: It is damaged.
    """
    found = read_state(state)
    if found is None:
        return None
    return WatchTold(
        version=found.version,
        state=found.state.state,
        flags=found.state.flags,
        checks=found.checks,
        level=found.settings.level,
        proposals=tuple(one.sentence() for one in read_proposals(state)),
    )


def advice_of(watch: WatchTold | None) -> tuple[str, ...]:
    """What a person should do about it."""
    return (_ADVICE[watch.state],) if watch is not None and watch.state in _ADVICE else ()


def of_watch(state: Path, watch: WatchTold | None) -> Iterator[Evidence]:
    """Evidence only where a check was made."""
    if watch is not None and watch.checks:
        says = f"{counted(watch.checks, 'check')}; {watch.state}"
        digest = digest_of(state / FILE)
        yield Evidence(kind=Kind.WATCH, says=says, file=f"{state.name}/{FILE}", digest=digest, anchor="watch")
