"""What the rounds of a run ask of its audit log, and the answers where the plan has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from testudo_common.wire import TrainRequest
from testudo_server.exchange import NO_LOG, Collected, RoundLog
from testudo_server.store import RoundRecord, RunState


class Journal(Protocol):
    """What the rounds ask of the log.

    Attributes:
        tells_attempts_apart: Whether an attempt that a kill ended counts as one, also where an exchange makes only one.
        round_log: What the exchange of the open attempt writes to.
    """

    tells_attempts_apart: bool

    @property
    def round_log(self) -> RoundLog:
        """See above."""

    def prepare(self) -> None:
        """Before anything of a new run is kept: return only if there is no log of another run in its place."""

    def begin(self) -> None:
        """A new run, whose first state is kept, begins."""

    def resume(self, state: RunState, records: Sequence[RoundRecord]) -> None:
        """A run goes on from ``state``, which is kept, after the finished rounds ``records``."""

    def meet(self, clients: Iterable[str]) -> None:
        """These are connected; whoever was not there before is shown the log, and can decide."""

    def not_asked(self, clients: Iterable[str]) -> Mapping[str, str]:
        """Those of ``clients`` that may not be asked -> why, in words."""

    def asked(self, participations: Mapping[str, int]) -> Mapping[str, int]:
        """Client id -> rounds before this one that it was asked in: as counted, or more where the log says so."""

    def open_round(self, request: TrainRequest, cohort: tuple[str, ...], barred: tuple[str, ...]) -> TrainRequest:
        """An attempt is to begin; the request, with what shows the cohort that enough owners have seen it."""

    def give_up_attempt(self, collected: Collected) -> None:
        """An attempt brought in too little, and another one follows."""

    def described(self, record: RoundRecord) -> RoundRecord:
        """The record of a round that is about to close, with what is to be kept of the log in it."""

    def close_round(self, record: RoundRecord) -> None:
        """A round, whose record is kept, is finished."""

    def failed(self, round_number: int) -> None:
        """A round cannot go on, and neither can the run."""

    def end(self) -> None:
        """The run is over: everybody gets what it has not seen yet."""


class NoJournal:
    """Of a plan without a log."""

    tells_attempts_apart = False
    round_log: RoundLog = NO_LOG

    def prepare(self) -> None:
        """Nothing can be in the way."""

    def begin(self) -> None:
        """Write nothing."""

    def resume(self, state: RunState, records: Sequence[RoundRecord]) -> None:
        """Write nothing."""

    def meet(self, clients: Iterable[str]) -> None:
        """Show nothing."""

    def not_asked(self, clients: Iterable[str]) -> Mapping[str, str]:
        """Everybody may be asked."""
        del clients
        return {}

    def asked(self, participations: Mapping[str, int]) -> Mapping[str, int]:
        """As counted."""
        return participations

    def open_round(self, request: TrainRequest, cohort: tuple[str, ...], barred: tuple[str, ...]) -> TrainRequest:
        """The request as it is."""
        del cohort, barred
        return request

    def give_up_attempt(self, collected: Collected) -> None:
        """Write nothing."""

    def described(self, record: RoundRecord) -> RoundRecord:
        """The record as it is."""
        return record

    def close_round(self, record: RoundRecord) -> None:
        """Write nothing."""

    def failed(self, round_number: int) -> None:
        """Write nothing."""

    def end(self) -> None:
        """Send nothing."""


NO_JOURNAL: Journal = NoJournal()
