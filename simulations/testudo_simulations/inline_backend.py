"""The federation in this process: every client behind our own Grid. Ray's counterpart is ray_backend.py.

Clients that share the plan's model are trained at once, by the engine; where the engine cannot stack that model, or is
not wanted, each is trained by itself, through Opacus as on a real machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from testudo_client.app import build_client_app
from testudo_common.errors import ModelError, UsageError
from testudo_common.plan import FederationPlan
from testudo_server.app import run_federation
from testudo_server.attendance import Registered
from testudo_server.audit_file import AUDIT_LOG
from testudo_server.coordinator import OnRound
from testudo_server.store import RunState, RunStore
from testudo_simulations.attacks.adversary import Adversary
from testudo_simulations.engine import Engine
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys, needs_keys
from testudo_simulations.mask_free import NO_ROSTER, MaskFreeExchange
from testudo_simulations.owners import Owners

_AT_ONCE: Final = 128  # messages answered together, and so clients trained at once


@dataclass(frozen=True, slots=True)
class InProcessRun:
    """A finished run.

    Attributes:
        state: Of the server.
        secure_client_cpu_seconds: Of secure aggregation at all clients together; None where there was none.
        audit_client_cpu_seconds: Of the audit log, the same.
        training: How the clients were trained.
    """

    state: RunState
    secure_client_cpu_seconds: float | None
    audit_client_cpu_seconds: float | None
    training: TrainingPath


@dataclass(frozen=True, slots=True)
class Computing:
    """What the clients are trained on.

    Attributes:
        engine: Whether clients that share the model are trained at once.
        device: ``cpu`` or ``cuda``; of the engine only.
        threads: Of the CPU; of the engine only.
    """

    engine: bool = True
    device: str = "cpu"
    threads: int = 1


ONE_THREAD: Final = Computing()


@dataclass(frozen=True, slots=True)
class TrainingPath:
    """How the clients of a run were trained.

    Attributes:
        engine: The engine's path; empty where each client was trained by itself.
        why_not: Why there was no engine, in words.
        at_once: Trainings by the engine.
    """

    engine: str = ""
    why_not: str = ""
    at_once: int = 0


def computing_on(device: str, threads: int, *, engine: bool = True) -> Computing:
    """The same, with ``auto`` as a device: CUDA where there is some.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UsageError("torch finds no CUDA device here", where="--device cuda", remedy="use --device cpu")
    chosen = "cuda" if device == "auto" and there else device
    return Computing(engine, "cpu" if chosen == "auto" else chosen, threads)


def engine_for(plan: FederationPlan, computing: Computing) -> tuple[Engine | None, str]:
    """The engine for a plan's model, and otherwise in words why there is none."""
    if not computing.engine:
        return None, "switched off"
    try:
        return Engine(plan, device=computing.device, threads=computing.threads), ""
    except ModelError as error:
        return None, error.problem


def federate_in_process(
    federation: Federation,
    store: RunStore,
    state: Path | None,
    *,
    resume: bool = False,
    on_round: OnRound | None = None,
    masks: bool = True,
    adversary: Adversary | None = None,
    computing: Computing = ONE_THREAD,
) -> InProcessRun:
    """The plan's rounds with every client in this process.

    Args:
        federation: With a complete plan.
        store: Of the server.
        state: Folder of what each client remembers, or None for memory only.
        resume: Go on where ``store`` stands.
        on_round: Told of every finished round.
        masks: False leaves the masks of secure aggregation out; see mask_free.py.
        adversary: Answers for the poisoned clients; None: all are honest.
        computing: What the clients are trained on.
    """
    plan, clients = federation.plan, len(federation.training)
    folder = None if state is None else state.parent
    masked = masks and plan.secure
    signed = needs_keys(plan) and (masked or plan.audited)  # sums without masks need nobody's key
    keys = SimulatedKeys.of(federation, None if folder is None else folder / "keys") if signed else None
    logged = folder / AUDIT_LOG if folder is not None and resume else None
    engine, why_not = engine_for(plan, computing)
    owners = Owners(
        federation, state, keys, masks=masks or not plan.secure, adversary=adversary, logged=logged, engine=engine
    )
    grid = InProcessGrid(build_client_app(owners), clients, ahead=owners.train_ahead, at_once=_AT_ONCE)
    nodes = dict(zip(federation.training, grid.get_node_ids(), strict=True))
    final = run_federation(
        grid,
        plan,
        store,
        clients=clients,
        keys=None if keys is None else lambda: keys.server_keys,
        exchange_of=None
        if masked or not plan.secure
        else lambda transport: MaskFreeExchange(transport, plan, NO_ROSTER if keys is None else keys.roster),
        resume=resume,
        on_round=on_round,
        registered=Registered(nodes, wanted=clients, least=1, wait_seconds=0.0),  # nobody need be asked who it is
    )
    return InProcessRun(
        final,
        owners.secure_cpu_seconds if masked else None,
        owners.audit_cpu_seconds if plan.audited else None,
        TrainingPath("" if engine is None else engine.path, why_not, owners.trained_at_once),
    )
