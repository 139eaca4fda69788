"""The rounds of a federation: draw a cohort, ask for group means, aggregate, step, keep. Never imports Flower.

A round that brings in too little is begun again, as a new attempt that is kept before it begins, so that no attempt is
ever made twice. Groups whose sums were not what honest clients send are strikes against their members; whom strikes
single out over rounds is not asked again. The journal is told of each step before it is taken, and may stop it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from testudo_common.errors import RoundError
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import TrainRequest
from testudo_server.attendance import EVERYBODY, NOT_CONNECTED, Attendance
from testudo_server.clipping import first_clip, next_clip
from testudo_server.cohort import draw_cohort, turn_of
from testudo_server.exchange import Collected, Exchange, ExchangeCost, GroupRecord
from testudo_server.journal import NO_JOURNAL, Journal
from testudo_server.outer_step import init_outer, outer_step
from testudo_server.robust import Reckoning, aggregate
from testudo_server.scores import priors_of, scores_of
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_server.strikes import GroupOutcome, culprits

_DRAWS_A_ROUND = 1000  # more than a plan may have attempts

OnRound = Callable[[RunState, RoundRecord], None]


def no_report(_state: RunState, _record: RoundRecord) -> None:
    """Report nothing."""


def outcomes_of(record: RoundRecord) -> tuple[GroupOutcome, ...]:
    """What a round's groups count for strikes. All members as drawn count, and bad luck is no strike: else a poisoner
    could choose by dropping out which rounds count against whom."""
    return tuple(
        GroupOutcome(record.round * _DRAWS_A_ROUND + group.attempt, group.members, opened=not group.blamed)
        for group in record.groups
    )


class Coordinator:
    """Runs a plan's rounds over an exchange.

    Args:
        plan: Complete.
        exchange: Where group means come from.
        store: Where every round is kept.
        on_round: Told of every finished round, after it was kept.
        journal: Of the audit log; without one, nothing is logged.
        attendance: Who can be asked at the moment; without it, everybody.
    """

    def __init__(
        self,
        plan: FederationPlan,
        exchange: Exchange,
        store: RunStore,
        on_round: OnRound = no_report,
        journal: Journal = NO_JOURNAL,
        attendance: Attendance = EVERYBODY,
    ) -> None:
        self._plan = plan
        self._plan_digest = plan.digest
        self._exchange = exchange
        self._store = store
        self._on_round = on_round
        self._journal = journal
        self._attendance = attendance
        self._outcomes: list[GroupOutcome] = []

    def begin(self, initial_model: Vector, clients: Iterable[str]) -> RunState:
        """The state before the first round, kept.

        Raises:
            CheckpointError: There is an audit log already.
            RoundError: Too few owners cosigned the log.
        """
        self._journal.prepare()
        state = RunState(
            self._plan_digest,
            0,
            initial_model,
            init_outer(self._plan.outer, len(initial_model)),
            dict.fromkeys(sorted(clients), 0),
            first_clip(self._plan),
        )
        self._store.save(state, None)
        self._journal.begin()
        return state

    def resume(self, clients: Iterable[str]) -> RunState:
        """The state kept last; clients that came since are added.

        Raises:
            CheckpointError: See :meth:`RunStore.load`; or the audit log is not of the same moment.
            RoundError: Too few owners cosigned the log.
        """
        state = self._store.load(self._plan_digest)
        records = self._store.records()
        self._journal.resume(state, records)
        self._outcomes = [outcome for record in records for outcome in outcomes_of(record)]
        counts = {client: state.participations.get(client, 0) for client in clients}
        return replace(state, participations={**state.participations, **counts})

    def run(self, state: RunState) -> RunState:
        """All rounds that are left.

        Raises:
            PlannerError: So many clients cannot outvote those that the plan takes for poisoned.
            RoundError: Too few clients may still take part, too few owners cosigned the log, or too few replies were
                usable. What was finished is kept.
            AuditError: The log cannot be written.
        """
        self._plan.check_withstood(len(state.participations))
        while state.round < self._plan.rounds.count:
            state = self.run_round(state)
        self._journal.end()
        return state

    def run_round(self, state: RunState) -> RunState:
        """One round, kept and reported.

        Raises:
            RoundError: As in :meth:`run`.
            AuditError: As in :meth:`run`.
        """
        started = time.perf_counter()
        rounds = self._plan.rounds
        number = state.round + 1
        barred = self._culprits()
        cohort = self._cohort(number, state, barred)
        reckoning = Reckoning(self._plan, len(state.participations), len(barred))
        collected, f = self._collect(number, state, cohort, barred, reckoning)
        found = aggregate(self._plan, collected, f)
        update, members = found.vector, [group.members for group in collected.groups]
        model, outer = outer_step(
            self._plan.outer, state.outer, state.model, update, progress=state.round / rounds.count
        )
        asked = {**state.participations, **{client: state.participations[client] + 1 for client in cohort}}
        clip = next_clip(self._plan, state.clip, collected)
        following = RunState(self._plan_digest, number, model, outer, asked, clip)
        scores = scores_of(self._plan, number, collected)
        record = RoundRecord(
            round=number,
            model_digest=vector_digest(model),
            cohort=cohort,
            excluded=collected.excluded,
            mean_update_norm=float(np.linalg.norm(update.astype(np.float64))),
            seconds=time.perf_counter() - started,
            bytes_down=collected.cost.bytes_down,
            bytes_up=collected.cost.bytes_up,
            groups=collected.records,
            barred=barred,
            secure_cpu_seconds=collected.cost.cpu_seconds,
            rule=self._plan.robust_rule,
            withstood=found.f,
            influence=tuple(zip(members, (float(share) for share in found.influence), strict=True)),
            merged=tuple(tuple(members[row] for row in alike) for alike in found.merged),
            metrics=scores.metrics,
            clip=state.clip,
            metric_noise=scores.noise,
            withheld=scores.withheld,
            calibration=self._calibration(number, state, collected),
        )
        record = self._journal.described(record)
        self._outcomes += outcomes_of(record)
        self._store.save(following, record)
        self._journal.close_round(record)
        self._on_round(following, record)
        return following

    def _calibration(self, number: int, state: RunState, collected: Collected) -> tuple[dict[str, Any], ...]:
        """What newcomers found out; nothing if one of them had trained the model, which it would know too well."""
        members = [client for group in collected.groups for client in group.members]
        if any(state.participations[client] for client in members):
            return ()
        return tuple(prior.model_dump(mode="json") for prior in priors_of(self._plan, number, collected))

    def _cohort(self, number: int, state: RunState, barred: tuple[str, ...]) -> tuple[str, ...]:
        rounds, least = self._plan.rounds, self._plan.fewest_asked
        began = time.monotonic()
        while True:
            there = self._attendance.present(state.participations)
            self._journal.meet(there)
            not_asked = self._journal.not_asked(state.participations)
            absent = {client: NOT_CONNECTED for client in state.participations if client not in there}
            apart = not_asked.keys() | absent.keys() | set(barred)
            turn = turn_of(self._plan, number, state.participations)
            cohort = draw_cohort(
                {
                    client: count
                    for client, count in self._journal.asked(state.participations).items()
                    if client in turn and client not in apart
                },
                rounds.cohort_size,
                limit=rounds.max_participations,
                seed=self._plan.seed,
                round_number=number,
            )
            if len(cohort) >= least:
                return cohort
            hopeless = len(cohort) + len(absent) < least
            if hopeless or not self._attendance.wait(len(there), least, time.monotonic() - began):
                raise self._too_few(number, len(cohort), {**not_asked, **absent})

    def _too_few(self, number: int, found: int, not_asked: Mapping[str, str]) -> RoundError:
        reasons = "; ".join(f"{client}: {reason}" for client, reason in list(not_asked.items())[:5])
        return self._failed(
            number,
            f"round {number} needs {self._plan.fewest_asked} clients, and {found} may still take part"
            + (f" ({reasons})" if reasons else ""),
            where="rounds",
            remedy="look at the clients named, then go on with --resume"
            if reasons
            else "raise rounds.max_participations (it costs epsilon), or lower rounds.count",
        )

    def _failed(self, number: int, problem: str, *, where: str, remedy: str) -> RoundError:
        """The error of a round that cannot go on, once the log has it."""
        self._journal.failed(number)
        return RoundError(problem, where=where, remedy=remedy)

    def _collect(
        self,
        number: int,
        state: RunState,
        cohort: tuple[str, ...],
        barred: tuple[str, ...],
        reckoning: Reckoning,
    ) -> tuple[Collected, int]:
        """What the first attempt that brings in enough brings in, with the records and cost of all attempts; and f.

        Enough is ``rounds.min_replies`` clients, in as many groups as the robust rule needs.
        """
        model_digest = vector_digest(state.model)
        records: tuple[GroupRecord, ...] = ()
        gone: tuple[tuple[str, str], ...] = ()
        cost = ExchangeCost()
        most = self._exchange.max_attempts
        while True:
            numbered = most > 1 or self._journal.tells_attempts_apart
            attempt = self._store.begin_attempt(number) if numbered else 0
            if attempt >= most and (most > 1 or self._plan.secure):
                raise self._failed(
                    number,
                    f"round {number} was begun {most} times and did not close",
                    where="secure_aggregation.max_attempts",
                    remedy="clients refuse more attempts: look at why they drop out, and start a run with a new plan",
                )
            asked = TrainRequest(self._plan_digest, number, attempt, model_digest, state.model, state.clip)
            request = self._journal.open_round(asked, cohort, barred)
            found = self._exchange.group_means(request, cohort, self._journal.round_log)
            found = replace(found, excluded=tuple(sorted(gone + found.excluded)))
            records, cost = records + found.records, cost + found.cost
            usable = sum(len(group.members) for group in found.groups)
            f = reckoning.bad_rows(found, len(cohort))
            rows = reckoning.rows_needed(f)
            enough = usable >= self._plan.rounds.min_replies and len(found.groups) >= rows
            vanished = frozenset(found.vanished)
            left = tuple(client for client in cohort if client not in vanished)
            if enough or attempt + 1 >= most or len(left) < self._plan.fewest_asked:
                self._check_enough(number, found, rows)
                return replace(found, records=records, cost=cost), f
            self._journal.give_up_attempt(found)
            cohort, asked_again = left, frozenset(left)
            gone = tuple((client, reason) for client, reason in found.excluded if client not in asked_again)

    def _culprits(self) -> tuple[str, ...]:
        """Whom bad groups single out so far; nobody, without looking, while there is no bad group."""
        if all(outcome.opened for outcome in self._outcomes):
            return ()
        return culprits(self._outcomes)

    def _check_enough(self, number: int, collected: Collected, rows: int) -> None:
        usable = sum(len(group.members) for group in collected.groups)
        reasons = "; ".join(f"{client}: {reason}" for client, reason in collected.excluded[:5])
        if usable < self._plan.rounds.min_replies:
            raise self._failed(
                number,
                f"round {number} brought {usable} usable replies and needs {self._plan.rounds.min_replies} ({reasons})",
                where="rounds.min_replies",
                remedy="look at the clients named, then go on with --resume",
            )
        if len(collected.groups) < rows:
            what = "groups" if self._plan.secure else "updates"
            raise self._failed(
                number,
                f"round {number} brought {len(collected.groups)} usable {what}, and the rule needs {rows} to outvote "
                f"those that may be bad ({reasons})",
                where="robust_aggregation",
                remedy="look at the clients named, then go on with --resume; it is never a plain mean instead",
            )
