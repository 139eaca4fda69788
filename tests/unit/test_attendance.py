"""Owners that come late, go away and come back: who is asked, waited for, and named when too few are there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from helpers import make_examples, make_participant, make_plan, request_for
from testudo_client.app import build_client_app
from testudo_common.errors import RoundError
from testudo_common.plan import FederationPlan
from testudo_server.app import GridTransport, run_federation
from testudo_server.attendance import Registered
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.grid import InProcessGrid
from watched_run import FIVE, WatchedRun

PLAN = make_plan()


def clients_of(plan: FederationPlan) -> ClientApp:
    """Any number of clients that answer alike; no client's name is ever asked for."""
    participants = {node: make_participant(plan, make_examples(seed=node)) for node in range(3)}
    return build_client_app(lambda context: participants[int(context.node_config["partition-id"])])


class LateGrid(InProcessGrid):
    """Some nodes come only after a round has gone by.

    Args:
        late: Node ids that are not there at first.
    """

    def __init__(self, app: ClientApp, nodes: int, late: set[int]) -> None:
        super().__init__(app, nodes)
        self.late = late
        self.sent_to: list[int] = []

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if node not in self.late]

    def push_messages(self, messages: Iterable[FlowerMessage]) -> list[str]:
        found = list(messages)
        self.sent_to += [message.metadata.dst_node_id for message in found]
        return list(super().push_messages(found))


def _registered(grid: InProcessGrid, **more: Any) -> Registered:
    nodes = {f"client-{node - 1000}": node for node in InProcessGrid.get_node_ids(grid)}
    return Registered(nodes, **{"wanted": 2, "least": 2, "wait_seconds": 0.0, **more})


def test_who_comes_after_the_beginning_is_asked_from_the_next_round_on(tmp_path: Path) -> None:
    plan = make_plan("rounds.cohort_size=3", "rounds.min_replies=2", "rounds.count=2")
    grid = LateGrid(clients_of(plan), 3, late={1002})
    cohorts: list[tuple[str, ...]] = []

    def on_round(_state: RunState, record: RoundRecord) -> None:
        cohorts.append(record.cohort)
        grid.late = set()

    state = run_federation(grid, plan, RunStore(tmp_path), on_round=on_round, registered=_registered(grid))
    assert cohorts == [("client-0", "client-1"), ("client-0", "client-1", "client-2")]
    assert state.participations == {"client-0": 2, "client-1": 2, "client-2": 1}


def test_registered_nodes_are_not_asked_who_they_are(tmp_path: Path) -> None:
    plan = make_plan("rounds.count=1")
    grid = LateGrid(clients_of(plan), 3, late=set())
    run_federation(grid, plan, RunStore(tmp_path), registered=_registered(grid))
    assert len(grid.sent_to) == plan.rounds.cohort_size


def test_nothing_is_sent_to_a_node_that_is_away(tmp_path: Path) -> None:
    grid = LateGrid(clients_of(PLAN), 3, late={1001})
    nodes = {"client-0": 1000, "client-1": 1001}
    asked = {client: request_for(PLAN) for client in nodes}
    transport = GridTransport(grid, nodes, online=grid.get_node_ids)
    assert [client for client, _ in transport.deliver(asked, deadline_seconds=5.0)] == ["client-0"]
    assert grid.sent_to == [1000]


def test_with_too_few_owners_the_run_names_those_that_are_not_there(tmp_path: Path) -> None:
    grid = LateGrid(clients_of(PLAN), 3, late={1001, 1002})
    with pytest.raises(RoundError, match="1 owners are connected and the plan needs 2; not there: client-1, client-2"):
        run_federation(grid, PLAN, RunStore(tmp_path), registered=_registered(grid))


def test_a_round_waits_for_owners_that_went_away(tmp_path: Path) -> None:
    plan = make_plan("rounds.cohort_size=3", "rounds.min_replies=3", "rounds.count=2")
    grid = LateGrid(clients_of(plan), 3, late=set())
    waited: list[tuple[int, int]] = []

    def on_waiting(present: int, needed: int) -> None:
        waited.append((present, needed))
        if present < needed:
            grid.late = set()

    def on_round(_state: RunState, _record: RoundRecord) -> None:
        grid.late = {1000}

    registered = _registered(grid, wanted=3, wait_seconds=60.0, on_waiting=on_waiting)
    state = run_federation(grid, plan, RunStore(tmp_path), on_round=on_round, registered=registered)
    assert state.round == 2
    assert waited == [(3, 3), (2, 3)]


def test_an_owner_that_comes_late_is_shown_the_log_before_it_is_asked(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, there=FIVE[:4])
    run.begin()
    late = FIVE[4]
    assert late in run.journal.not_asked(FIVE)
    run.journal.meet(FIVE)
    assert late not in run.journal.not_asked(FIVE)
    shown = len(run.owners.log)
    run.journal.meet(FIVE)
    assert len(run.owners.log) == shown
