"""How far a run is: for its terminal, and in ``status.json`` for everybody else. Decides nothing.

On a terminal a bar, otherwise a line for every round; always on standard error, so that standard output stays free for
what a script reads.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT, scores_spending, sum_spending, training_spending
from testudo_server.deployment.run_status import RunStatus, State, write_status
from testudo_server.store import RoundRecord, RunState

_SECONDS_KEPT = 100


@dataclass
class RunProgress:
    """A run's progress; a context manager, so that the screen is left as it was found.

    Args:
        folder: Of the run.
        status: As it begins.
        plan: Of the run.
        console: Where it is shown.
    """

    folder: Path
    status: RunStatus
    plan: FederationPlan
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _attempts: int = 0

    def __post_init__(self) -> None:
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self.status.rounds, completed=self.status.round, what="")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        self.change()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def change(self, **changes: Any) -> None:
        """Write the status with these fields changed; from any thread."""
        with self._lock:
            self.status = self.status.model_copy(update={**changes, "updated": datetime.now(UTC)})
            write_status(self.folder, self.status)

    def say(self, sentence: str) -> None:
        """A line of its own."""
        self.console.print(sentence, markup=False, soft_wrap=True)

    def waiting(self, present: int, needed: int) -> None:
        """So many owners are there of those that are waited for."""
        if present >= needed:
            self._show("running", present, needed, "")
        else:
            self._show("waiting", present, needed, f"waiting for owners: {present} of {needed} connected")

    def _show(self, state: State, present: int, needed: int, what: str) -> None:
        known = self.status.state, self.status.connected, self.status.expected
        self._bar.update(self._task, what=what)
        if known == (state, present, needed):
            return
        if what and not self.console.is_terminal:
            self.say(what)
        self.change(state=state, connected=present, expected=needed)

    def earlier(self, state: RunState, records: Sequence[RoundRecord]) -> None:
        """What a resumed run had before."""
        for record in records:
            self._count(record)
        seconds = tuple(round(record.seconds, 3) for record in records[-_SECONDS_KEPT:])
        down, up = (sum(getattr(record, name) for record in records) for name in ("bytes_down", "bytes_up"))
        epsilon = self._epsilon(state.participations, state.round)
        self.change(round=state.round, round_seconds=seconds, bytes_down=down, bytes_up=up, epsilon=epsilon)
        self._bar.update(self._task, completed=state.round)

    def finished_round(self, state: RunState, record: RoundRecord) -> None:
        """A round is kept."""
        self._count(record)
        before = self.status
        left_out = len({client for client, _ in record.excluded})
        counted, log = len(record.cohort) - left_out, record.log
        epsilon = self._epsilon(state.participations, state.round)
        self.change(
            state="running",
            round=record.round,
            asked=len(record.cohort),
            counted=counted,
            left_out=left_out,
            attempts=1 + _last_attempt(record),
            round_seconds=(*before.round_seconds, round(record.seconds, 3))[-_SECONDS_KEPT:],
            bytes_down=before.bytes_down + record.bytes_down,
            bytes_up=before.bytes_up + record.bytes_up,
            epsilon=epsilon,
            log_size=0 if log is None else log.closed + 1,
            cosigned_by=0 if log is None else log.cosigners,
        )
        spent = "".join(f", epsilon {value:.3g} for one {unit}" for unit, value in epsilon.items())
        logged = "" if log is None else f", log {log.closed + 1}, {log.cosigners} cosigned"
        what = f"{counted} of {len(record.cohort)} count, {record.seconds:.1f} s{logged}{spent}"
        self._bar.update(self._task, completed=record.round, what=what)
        if not self.console.is_terminal:
            self.say(f"round {record.round} of {self.status.rounds}: {what}")

    def _count(self, record: RoundRecord) -> None:
        self._attempts += _last_attempt(record)

    def _epsilon(self, participations: Mapping[str, int], rounds: int) -> dict[str, float]:
        """The most that an owner can have spent: of whoever was asked most often, and in every attempt that failed."""
        often = max(_counts(participations)) + self._attempts
        return spent_by(self.plan, often, rounds)


def spent_by(plan: FederationPlan, often: int, rounds: int) -> dict[str, float]:
    """Unit of privacy -> epsilon of an owner that took part so often in so many rounds.

    Args:
        plan: Of the run.
        often: Attempts that it was asked in.
        rounds: Finished, of which some scored the model.
    """
    found: dict[str, float] = {}
    if often and plan.private:
        every = plan.evaluation.federated_every_rounds
        evaluated = 0 if every is None else rounds // every
        scored = min(often, max(evaluated, int(plan.calibrates_in(rounds))))
        spent = training_spending(plan).times(often)
        if scored:
            spent += scores_spending(plan).times(scored)
        found["example"] = epsilon_of(spent.example, plan.privacy.delta, plan.privacy.accountant)
    if often and plan.client_private:
        found["client"] = epsilon_of(
            sum_spending(plan).times(often).client, plan.client_privacy.delta, CLIENT_ACCOUNTANT
        )
    return found


def _last_attempt(record: RoundRecord) -> int:
    return max((group.attempt for group in record.groups), default=0)


def _counts(participations: Mapping[str, int]) -> Collection[int]:
    return participations.values() or (0,)
