"""The same ServerApp and ClientApp on Flower's own simulation runtime, which is Ray. Needs the extra ``ray``."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from testudo_client.app import build_client_app
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.plan.load import dump_plan
from testudo_server.app import build_server_app, run_federation
from testudo_server.coordinator import OnRound
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations.base import Federation
from testudo_simulations.keys import SimulatedKeys, needs_keys
from testudo_simulations.owners import OwnersByFile


def federate_on_ray(
    federation: Federation,
    data: Path | None,
    out: Path,
    store: RunStore,
    *,
    resume: bool = False,
    on_round: OnRound | None = None,
) -> RunState:
    """The plan's rounds with every client in a Ray worker.

    Raises:
        UsageError: Ray is not installed.
        TestudoError: As from :func:`run_federation`.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "the Ray backend is not installed", remedy="pip install 'testudo-fl[ray]', or --backend inline"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from flwr.simulation import run_simulation

    # A worker loads the federation by itself, from the completed plan.
    plan_file = out / "plan.toml"
    write_atomically(plan_file, dump_plan(federation.plan).encode(), durable=False)
    owners = OwnersByFile(
        str(plan_file.resolve()),
        str(data.resolve()) if data else "",
        str((out / "clients").resolve()),
        str((out / "keys").resolve()),
    )
    keys = SimulatedKeys.of(federation, out / "keys") if needs_keys(federation.plan) else None
    final: list[RunState] = []

    def serve(grid: Grid, _context: Context) -> None:
        clients = len(federation.training)
        final.append(
            run_federation(
                grid,
                federation.plan,
                store,
                clients=clients,
                keys=None if keys is None else lambda: keys.server_keys,
                resume=resume,
                on_round=on_round,
            )
        )

    run_simulation(
        build_server_app(serve),
        build_client_app(owners),
        num_supernodes=len(federation.training),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return final[0]
