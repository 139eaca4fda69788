"""``testudo-client watch``: one check after another, each with its verdict, its next step, and a line of text.

Everything that lasts is written in this order, under a lock: a proposal, the owner's log, and then what watching
remembers. A process that dies in between makes the same check again and writes the same proposal again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from testudo_client.home import STATE_FOLDER, OwnerHome
from testudo_client.personal.versions import Version, VersionStore
from testudo_client.reference import read_reference
from testudo_client.watching.check import Against, Found, check
from testudo_client.watching.drift import LEAST
from testudo_client.watching.policy import Adapted, Answered, Event, Proposed, Step, after
from testudo_client.watching.proposals import Answer, Flagged, Proposal, answered, read_proposals, write_proposal
from testudo_client.watching.sources import Batch, of_file, served, table_of
from testudo_client.watching.state import Settings, WatchState, read_state, write_state
from testudo_common.files import create_private
from testudo_common.learning.columns import columns_of_table

_LOCK = ".watch.lock"
_STEPS = {"steady": Step.NOTHING, "warned": Step.WARN, "due": Step.READAPT, "proposed": Step.PROPOSE}


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch.

    Attributes:
        folder: The owner's.
        data: A CSV file of new rows; None: what was served.
        client: Only this client's rows of the file.
        settings: Those that are not as they were: field of ``Settings`` -> value.
        readapt: Adapts the model again and says whether the new one was promoted; None: the owner is told to.
    """

    folder: Path
    data: Path | None = None
    client: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    readapt: Callable[[], bool] | None = None

    @property
    def state(self) -> Path:
        """The owner's ``state`` folder."""
        return self.folder / STATE_FOLDER


@dataclass(frozen=True, slots=True)
class Report:
    """What one check came to.

    Attributes:
        folder: The owner's.
        time: UTC, ISO 8601.
        found: By the check; None where there were too few rows for one.
        rows: There were.
        left_out: Rows of a file that the version was made from.
        needed: It takes for a check.
        counted: Whether the policy took note of it; not of rows that it has seen.
        remembered: After it.
    """

    folder: Path
    time: str
    found: Found | None
    rows: int
    left_out: int
    needed: int
    counted: bool
    remembered: WatchState

    @property
    def version(self) -> int:
        """In use."""
        return self.remembered.version

    @property
    def step(self) -> Step:
        """What to do now."""
        return _STEPS[self.remembered.state.state]


def watch_once(request: WatchRequest, now: datetime) -> Report:
    """One check, and what follows from it.

    Raises:
        UsageError: No own model is in use, it has no reference, or files of watching cannot be used.
        DataError: The file of new rows cannot be used; nothing is changed.
    """
    store = VersionStore(request.folder)
    with _alone(request.state):
        version = store.current()
        remembered = _caught_up(request, store, now)
        batch = _batch(request, version, remembered)
        needed = LEAST if request.data is not None else remembered.settings.least
        rows, time = len(batch.asked.inputs), now.isoformat(timespec="seconds")
        if rows < needed:
            write_state(request.state, remembered)
            return Report(request.folder, time, None, rows, batch.left_out, needed, False, remembered)
        found = check(batch.asked, _against(request.folder, version, remembered.settings))
        counted = not batch.digest or batch.digest != remembered.table
        if counted:
            table = batch.digest or remembered.table
            changes = {"seen": batch.last or remembered.seen, "table": table, "checks": remembered.checks + 1}
            remembered = remembered.model_copy(update=changes)
            remembered = _stepped(request, remembered, found.event, now, found)
        write_state(request.state, remembered)
    report = Report(request.folder, time, found, rows, batch.left_out, needed, counted, remembered)
    if not counted or report.step is not Step.READAPT or request.readapt is None:
        return report
    promoted = request.readapt()  # takes the versions' own lock
    with _alone(request.state):
        remembered = _caught_up(request, store, now, found, refused=not promoted)
        write_state(request.state, remembered)
    return replace(report, remembered=remembered)


def answer_proposal(folder: Path, number: int, answer: Answer, now: datetime) -> Proposal:
    """Write down a person's answer; watching goes on from Steady.

    Raises:
        UsageError: There is no open proposal of that number.
    """
    request = WatchRequest(folder)
    with _alone(request.state):
        proposal = answered(request.state, number, answer, now)
        OwnerHome(folder).log.write(
            "proposal", plan=proposal.plan_digest, reason=answer, sentence=f"proposal {number} of a round: {answer}"
        )
        if (remembered := read_state(request.state)) is not None:
            write_state(request.state, _reconciled(request, remembered))
    return proposal


def _caught_up(
    request: WatchRequest, store: VersionStore, now: datetime, found: Found | None = None, *, refused: bool = False
) -> WatchState:
    """What is remembered, after what others did meanwhile: an answer, a new version, a rollback."""
    current, newest = store.current_id() or 0, max(store.ids(), default=0)
    before = read_state(request.state) or WatchState(version=current, newest=newest)
    settings = Settings.model_validate({**before.settings.model_dump(), **request.settings})
    remembered = _reconciled(request, before.model_copy(update={"settings": settings}))
    if current != remembered.version:
        remembered = _stepped(request, remembered, Adapted(promoted=True), now, found)
    elif refused or newest > remembered.newest:
        remembered = _stepped(request, remembered, Adapted(promoted=False), now, found)
    return remembered.model_copy(update={"version": current, "newest": newest})


def _reconciled(request: WatchRequest, remembered: WatchState) -> WatchState:
    """Of a proposal the file says what became of it."""
    state = remembered.state
    if not isinstance(state, Proposed):
        return remembered
    is_open = any(one.number == state.number and one.answer == "open" for one in read_proposals(request.state))
    if is_open:
        return remembered
    next_state, _ = after(state, Answered(), remembered.settings.many, remembered.proposals)
    return remembered.model_copy(update={"state": next_state})


def _stepped(
    request: WatchRequest, remembered: WatchState, event: Event, now: datetime, found: Found | None
) -> WatchState:
    """One edge of the policy, with the proposal that it makes or overtakes."""
    before = remembered.state
    state, _ = after(before, event, remembered.settings.many, remembered.proposals)
    if isinstance(before, Proposed) and not isinstance(state, Proposed):
        answered(request.state, before.number, "overtaken", now)
    if isinstance(state, Proposed) and not isinstance(before, Proposed):
        _propose(request, state, event, now, found)
        remembered = remembered.model_copy(update={"proposals": state.number})
    return remembered.model_copy(update={"state": state})


def _propose(request: WatchRequest, state: Proposed, event: Event, now: datetime, found: Found | None) -> None:
    version = VersionStore(request.folder).current()
    flagged = () if found is None else found.flagged
    proposal = Proposal(
        number=state.number,
        time=now.isoformat(timespec="seconds"),
        version=version.record.id,
        plan=version.own.plan.name,
        plan_digest=version.record.plan_digest,
        meta_model=version.record.meta_model,
        reason="gate" if isinstance(event, Adapted) else "many",
        flags=state.flags,
        flagged=tuple(Flagged(family=one.family, name=one.name, adjusted=one.adjusted) for one in flagged),
    )
    write_proposal(request.state, proposal)
    OwnerHome(request.folder).log.write(
        "proposal", plan=proposal.plan_digest, reason=proposal.reason, sentence=proposal.sentence()
    )


def _batch(request: WatchRequest, version: Version, remembered: WatchState) -> Batch:
    if request.data is not None:
        return of_file(request.folder, version, request.data, request.client)
    return served(request.state, version.record.id, remembered.seen)


def _against(folder: Path, version: Version, settings: Settings) -> Against:
    return Against(
        reference=read_reference(folder, version.record.id),
        losses=np.array(version.record.losses, dtype=np.float64),
        columns=columns_of_table(table_of(version.own.plan).columns or ()),
        labels=version.own.labels,
        level=settings.level,
        stream=settings.stream,
    )


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One check or answer at a time: what is remembered is read, changed and written."""
    create_private(state / _LOCK, durable=False)
    with (state / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
