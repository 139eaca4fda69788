"""The same ServerApp and ClientApp on Flower's own simulation runtime, which is Ray. Needs the extra ``ray``."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from testudo_client.app import build_client_app
from testudo_common.commands import DEBUG_VARIABLE
from testudo_common.errors import RoundError, TestudoError
from testudo_common.files import write_atomically
from testudo_common.plan.load import dump_plan
from testudo_server.app import build_server_app, run_federation
from testudo_server.coordinator import OnRound
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations.base import Federation
from testudo_simulations.flower_dispatcher import widen_dispatcher
from testudo_simulations.keys import SimulatedKeys, needs_keys
from testudo_simulations.owners import OwnersByFile
from testudo_simulations.ray_cluster import ray_cluster
from testudo_simulations.ray_grid import WatchedGrid
from testudo_simulations.ray_machines import Shared, check_machines, expect_free_cores, gone_among, machines_now


def federate_on_ray(
    federation: Federation,
    data: Path | None,
    out: Path,
    store: RunStore,
    *,
    address: str = "",
    resume: bool = False,
    on_round: OnRound | None = None,
) -> RunState:
    """The plan's rounds with every client in a Ray worker, one for each core.

    Args:
        federation: With a complete plan.
        data: Path of its data, or None.
        out: Folder of the run; like ``data``, at the same path on every machine of the cluster.
        store: Of the server.
        address: Of the cluster, as from :func:`ray_cluster.address_of`; empty: it is started on this machine.
        resume: Go on where ``store`` stands.
        on_round: Told of every finished round.

    Raises:
        UsageError: Ray is not installed or not to be reached, or a machine of the cluster is not set up as this one.
        RoundError: A worker was lost; every finished round is kept.
        TestudoError: As from :func:`run_federation`.
    """
    # A worker loads the federation by itself, from the completed plan.
    plan_file = out.absolute() / "plan.toml"
    write_atomically(plan_file, dump_plan(federation.plan).encode(), durable=False)
    seen = str(data.absolute()) if data else ""
    owners = OwnersByFile(str(plan_file), seen, str(plan_file.parent / "clients"), str(plan_file.parent / "keys"))
    keys = SimulatedKeys.of(federation, out / "keys") if needs_keys(federation.plan) else None
    with ray_cluster(address), _quiet_flower():
        machines = machines_now()
        if address:
            check_machines(machines, Shared(str(plan_file), seen, federation.plan.model.name))
            expect_free_cores(machines)
        widen_dispatcher(sum(machine.cores for machine in machines))

        final: list[RunState] = []
        ended = threading.Event()

        def serve(grid: Grid, _context: Context) -> None:
            final.append(
                run_federation(
                    WatchedGrid(grid, partial(gone_among, machines), ended),
                    federation.plan,
                    store,
                    clients=len(federation.training),
                    keys=None if keys is None else lambda: keys.server_keys,
                    resume=resume,
                    on_round=on_round,
                )
            )

        from flwr.simulation import run_simulation

        try:
            run_simulation(
                build_server_app(serve),
                build_client_app(owners),
                num_supernodes=len(federation.training),
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
        except TestudoError:
            raise
        except Exception as error:
            raise RoundError(
                f"Flower's simulation runtime ended ({type(error.__cause__ or error).__name__})",
                remedy="finished rounds are kept: the same command with --resume and --out goes on",
            ) from error
        finally:
            ended.set()
        return final[0]


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower tells of every lost message by a traceback; what matters of it is said once, by us."""
    logger = logging.getLogger("flwr")
    level = logger.level
    if not os.environ.get(DEBUG_VARIABLE):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
