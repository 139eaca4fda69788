"""The rounds of a federation: draw a cohort, ask for group means, aggregate, step, keep. Never imports Flower."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from testudo_common.errors import RoundError
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import TrainRequest
from testudo_server.aggregate import mean
from testudo_server.cohort import draw_cohort
from testudo_server.exchange import Collected, Exchange
from testudo_server.outer_step import init_outer, outer_step
from testudo_server.store import RoundRecord, RunState, RunStore

OnRound = Callable[[RunState, RoundRecord], None]


def _no_report(_state: RunState, _record: RoundRecord) -> None:
    """Report nothing."""


class Coordinator:
    """Runs a plan's rounds over an exchange.

    Args:
        plan: Complete.
        exchange: Where group means come from.
        store: Where every round is kept.
        on_round: Told of every finished round, after it was kept.
    """

    def __init__(
        self, plan: FederationPlan, exchange: Exchange, store: RunStore, on_round: OnRound = _no_report
    ) -> None:
        self._plan = plan
        self._plan_digest = plan.digest
        self._exchange = exchange
        self._store = store
        self._on_round = on_round

    def begin(self, initial_model: Vector, clients: Iterable[str]) -> RunState:
        """The state before the first round, kept."""
        state = RunState(
            self._plan_digest,
            0,
            initial_model,
            init_outer(self._plan.outer, len(initial_model)),
            dict.fromkeys(sorted(clients), 0),
        )
        self._store.save(state, None)
        return state

    def resume(self, clients: Iterable[str]) -> RunState:
        """The state kept last; clients that came since are added.

        Raises:
            CheckpointError: See :meth:`RunStore.load`.
        """
        state = self._store.load(self._plan_digest)
        counts = {client: state.participations.get(client, 0) for client in clients}
        return RunState(state.plan_digest, state.round, state.model, state.outer, {**state.participations, **counts})

    def run(self, state: RunState) -> RunState:
        """All rounds that are left.

        Raises:
            RoundError: Too few clients may still take part, or too few replies were usable. What was finished is kept.
        """
        while state.round < self._plan.rounds.count:
            state = self.run_round(state)
        return state

    def run_round(self, state: RunState) -> RunState:
        """One round, kept and reported.

        Raises:
            RoundError: As in :meth:`run`.
        """
        started = time.perf_counter()
        rounds = self._plan.rounds
        number = state.round + 1
        cohort = draw_cohort(
            state.participations,
            rounds.cohort_size,
            limit=rounds.max_participations,
            seed=self._plan.seed,
            round_number=number,
        )
        if len(cohort) < rounds.min_replies:
            raise RoundError(
                f"round {number} needs {rounds.min_replies} clients, and {len(cohort)} may still take part",
                where="rounds",
                remedy="raise rounds.max_participations (it costs epsilon), or lower rounds.count",
            )
        request = TrainRequest(self._plan_digest, number, 0, vector_digest(state.model), state.model)
        collected = self._exchange.group_means(request, cohort)
        self._check_enough(number, collected)
        update = mean(np.stack([group.mean for group in collected.groups]))
        model, outer = outer_step(
            self._plan.outer, state.outer, state.model, update, progress=state.round / rounds.count
        )
        asked = {client: count + (client in cohort) for client, count in state.participations.items()}
        following = RunState(self._plan_digest, number, model, outer, asked)
        record = RoundRecord(
            round=number,
            model_digest=vector_digest(model),
            cohort=cohort,
            excluded=collected.excluded,
            mean_update_norm=float(np.linalg.norm(update.astype(np.float64))),
            seconds=time.perf_counter() - started,
            bytes_down=len(cohort) * state.model.nbytes,
            bytes_up=sum(group.mean.nbytes for group in collected.groups),
        )
        self._store.save(following, record)
        self._on_round(following, record)
        return following

    def _check_enough(self, number: int, collected: Collected) -> None:
        usable = sum(len(group.members) for group in collected.groups)
        if usable < self._plan.rounds.min_replies:
            reasons = "; ".join(f"{client}: {reason}" for client, reason in collected.excluded[:5])
            raise RoundError(
                f"round {number} brought {usable} usable replies and needs {self._plan.rounds.min_replies} ({reasons})",
                where="rounds.min_replies",
                remedy="look at the clients named, then go on with --resume",
            )
