"""Secure aggregation over real processes, of which one is killed in each round, each time somewhere else.

The last round is whole: whoever was killed has its mirror of the log again by then, and a receipt of what it gave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from process_grid import NODE_IS_GONE, Kill, Node, ProcessGrid
from secure_federation import layout_of, off_by
from testudo_client.membership import FEDERATION_KEY_FILE, IDENTITY_FILE, ROSTER_FILE
from testudo_client.own_record import AuditFiles
from testudo_common.audit.log import AuditLog
from testudo_common.files import write_atomically
from testudo_common.key_files import create_key, public_hex
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan, parse_plan
from testudo_common.vectors import Vector
from testudo_server.app import run_federation
from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit, keys_in
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.scenarios import find_plan

CLIENTS = tuple(f"wave-{number:06d}" for number in range(9))
SETTINGS = [
    f"data.clients={len(CLIENTS)}",
    "data.unseen_clients=1",
    "model.hidden=[8]",
    "inner.steps=3",
    "outer.anneal=false",
    "outer.max_update_norm=10",
    "rounds.count=13",
    f"rounds.cohort_size={len(CLIENTS)}",
    "secure_aggregation.group_size=4",
    "secure_aggregation.min_group=3",
    "secure_aggregation.step_deadline_seconds=5",
]
KILLS = (
    Kill(1, "TrainRequest", CLIENTS[0], handled=False),
    Kill(2, "TrainRequest", CLIENTS[1], handled=True),
    Kill(3, "CommitmentList", CLIENTS[2], handled=True),
    Kill(4, "Directory", CLIENTS[3], handled=False),
    Kill(5, "Directory", CLIENTS[4], handled=True, noticed=False),
    Kill(6, "Deliveries", CLIENTS[5], handled=False),
    Kill(7, "Deliveries", CLIENTS[6], handled=True),
    Kill(8, "SurvivorSet", CLIENTS[7], handled=True, noticed=False),
    Kill(9, "Confirmations", CLIENTS[8], handled=False),
    Kill(10, "Confirmations", CLIENTS[0], handled=True),
    Kill(11, "LogUpdate", CLIENTS[1], handled=False),
    Kill(12, "LogUpdate", CLIENTS[2], handled=True),
)
MASKED_BEFORE = ("SurvivorSet", "Confirmations")


@dataclass(frozen=True)
class Seen:
    """A round as it looked when it had closed.

    Attributes:
        model: After it.
        updates: Client id -> the update that its store holds, if it is of this round.
    """

    record: RoundRecord
    model: Vector
    updates: dict[str, Vector]


@pytest.fixture
def federation(tmp_path: Path) -> tuple[FederationPlan, list[Node], Path]:
    """Nine owners with keys of their own, admitted by a server; the plan, the owners, the server's folder."""
    tables, source = find_plan("sine")
    plan = load_federation(parse_plan(tables, source=source, settings=SETTINGS), None).plan
    server = tmp_path / "server"
    write_atomically(tmp_path / "plan.toml", dump_plan(plan).encode(), durable=False)
    nodes = [Node(client, tmp_path / client, tmp_path / "plan.toml") for client in CLIENTS]
    public = {node.client: public_hex(create_key(node.folder / "keys" / IDENTITY_FILE)) for node in nodes}
    admit(server, plan.name, public)
    for node in nodes:
        (node.folder / "keys" / FEDERATION_KEY_FILE).write_bytes((server / FEDERATION_PUBLIC).read_bytes())
        (node.folder / "keys" / ROSTER_FILE).write_bytes((server / ROSTER).read_bytes())
    return plan, nodes, server


@pytest.fixture
def grid(federation: tuple[FederationPlan, list[Node], Path]) -> Iterator[ProcessGrid]:
    running = ProcessGrid(federation[1], KILLS)
    yield running
    pids = running.pids.values()
    running.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_every_round_closes_though_a_client_is_killed_in_each(
    tmp_path: Path, federation: tuple[FederationPlan, list[Node], Path], grid: ProcessGrid
) -> None:
    plan, nodes, server = federation
    seen: list[Seen] = []
    first = grid.pids

    def on_round(state: RunState, record: RoundRecord) -> None:
        memories = {node.client: node.store.load(plan.digest) for node in nodes}
        of_this_round = {
            client: memory.last_update
            for client, memory in memories.items()
            if memory.last_round == record.round and memory.last_update is not None
        }
        seen.append(Seen(record, state.model, of_this_round))
        grid.revive()

    store = RunStore(tmp_path / "run", durable=False)
    run_federation(grid, plan, store, keys=lambda: keys_in(server), on_round=on_round)

    assert [kill for kill, _ in grid.killed] == list(KILLS)
    assert len({pid for _, pid in grid.killed}) == len(KILLS)
    assert set(first.values()).isdisjoint({grid.pids[kill.client] for kill in KILLS})
    assert [record.round for record in store.records()] == [*(kill.round for kill in KILLS), len(KILLS) + 1]
    models = [initial_of(store, seen, plan), *(each.model for each in seen)]
    off = off_by(layout_of(plan)) + 2**-22  # and the model's own float32, whose coordinates are under 4
    for kill, each, before in zip(KILLS, seen, models, strict=False):
        check_round(kill, each)
        survivors = [name for name in CLIENTS if name not in dict(each.record.excluded)]
        mean = np.mean([each.updates[name].astype(np.float64) for name in survivors], axis=0)
        moved = each.model.astype(np.float64) - before
        assert np.isfinite(each.model).all()
        np.testing.assert_allclose(moved, mean, rtol=0, atol=off, err_msg=str(kill))
        assert np.abs(mean).max() > 100 * off
    check_logs(tmp_path / "run" / "audit.db", plan, nodes, seen)


def check_logs(server: Path, plan: FederationPlan, nodes: list[Node], seen: list[Seen]) -> None:
    """Everybody has the server's log, has been stopped by nothing, and a receipt of each round that it is in."""
    entries = entries_in(server)
    for node in nodes:
        files = AuditFiles(node.folder, plan.digest)
        assert entries_in(files.mirror) == entries
        assert not files.halt.exists()
        for each in seen:
            given = [group.attempt for group in each.record.groups if node.client in group.survivors]
            assert all(files.receipt(each.record.round, attempt).exists() for attempt in given), each.record.round


def entries_in(path: Path) -> list[bytes]:
    log = AuditLog(path)
    try:
        return list(log.entries())
    finally:
        log.close()


def initial_of(store: RunStore, seen: list[Seen], plan: FederationPlan) -> Vector:
    assert store.load(plan.digest).round == len(seen) == len(KILLS) + 1
    return initial_vector(plan)


def check_round(kill: Kill, seen: Seen) -> None:
    """Whoever was killed before its masked input left is missing, and nobody else; who was killed later is not."""
    record = seen.record
    reason = f"Flower error {NODE_IS_GONE}" if kill.noticed else "no reply before the deadline"
    included = kill.step in MASKED_BEFORE
    assert record.excluded == (() if included else ((kill.client, reason),)), kill
    assert record.cohort == CLIENTS
    survivors = sorted(name for group in record.groups for name in group.survivors)
    assert survivors == [name for name in CLIENTS if included or name != kill.client], kill
    assert not any(group.fault or group.blamed for group in record.groups), kill
    assert {group.attempt for group in record.groups} == {int(kill.step == "CommitmentList")}, kill
    trained = kill.step != "LogUpdate" and (kill.handled or kill.step != "TrainRequest")
    assert (kill.client in seen.updates) is trained, kill
