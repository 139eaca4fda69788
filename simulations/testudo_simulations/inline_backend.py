"""The federation in this process: every client behind our own Grid. Ray's counterpart is ray_backend.py."""

from __future__ import annotations

from pathlib import Path

from testudo_client.app import build_client_app
from testudo_server.app import run_federation
from testudo_server.coordinator import OnRound
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.owners import Owners


def federate_in_process(
    federation: Federation,
    store: RunStore,
    state: Path | None,
    *,
    resume: bool = False,
    on_round: OnRound | None = None,
) -> RunState:
    """The plan's rounds with every client in this process.

    Args:
        federation: With a complete plan.
        store: Of the server.
        state: Folder of what each client remembers, or None for memory only.
        resume: Go on where ``store`` stands.
        on_round: Told of every finished round.
    """
    clients = len(federation.training)
    grid = InProcessGrid(build_client_app(Owners(federation, state)), clients)
    return run_federation(grid, federation.plan, store, clients=clients, resume=resume, on_round=on_round)
