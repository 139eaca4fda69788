"""The same rounds as Testudo runs them: ServerApp, every client's ClientApp, messages, ledgers; and the same on Ray.

Each client keeps its ledger and its memory in a folder, as in ``testudo-simulate run``. The first round is part of the
start: it asks the clients for their names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_server.coordinator import OnRound
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.benchmarks.simulation.loops import Turn
from testudo_simulations.benchmarks.simulation.workload import Work, federation_of, plan_of
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import federate_in_process
from testudo_simulations.scenarios import find_plan


def whole_rounds(work: Work, rounds: int, turn: Turn) -> None:
    """In this process."""
    _in_process(federation_of(work, 1 + rounds), turn)


def mask_free_rounds(work: Work, rounds: int, turn: Turn) -> None:
    """In this process, secure sums without their masks."""
    _in_process(federation_of(work, 1 + rounds), turn, masks=False)


def ray_rounds(work: Work, rounds: int, turn: Turn) -> None:
    """On Flower's Ray simulation; the workers draw the clients' digits as the plan says, which is of the same size."""
    _on_ray(load_federation(plan_of(work, 1 + rounds), None), turn)


def digits_in_process(_work: Work, rounds: int, turn: Turn) -> None:
    """The scenario as it comes."""
    _in_process(load_federation(_digits(rounds), None), turn)


def digits_on_ray(_work: Work, rounds: int, turn: Turn) -> None:
    """The scenario on Ray."""
    _on_ray(load_federation(_digits(rounds), None), turn)


def _digits(rounds: int) -> FederationPlan:
    tables, source = find_plan("digits")
    return parse_plan(tables, source=source, settings=[f"rounds.count={1 + rounds}"])


def _in_process(federation: Federation, turn: Turn, *, masks: bool = True) -> None:
    with tempfile.TemporaryDirectory(prefix="testudo-bench-") as folder:
        out = Path(folder)
        store = RunStore(out, durable=False)
        federate_in_process(federation, store, out / "clients", on_round=_ends_round(turn), masks=masks)


def _on_ray(federation: Federation, turn: Turn) -> None:
    from testudo_simulations.ray_backend import federate_on_ray

    with tempfile.TemporaryDirectory(prefix="testudo-bench-") as folder:
        out = Path(folder)
        store = RunStore(out, durable=False)
        federate_on_ray(federation, None, out, store, on_round=_ends_round(turn))


def _ends_round(turn: Turn) -> OnRound:
    def on_round(state: RunState, record: RoundRecord) -> None:
        if record.excluded:
            raise UsageError(
                f"{len(record.excluded)} of {len(record.cohort)} clients were left out of round {state.round}",
                where=record.excluded[0][1],
            )
        turn()

    return on_round
