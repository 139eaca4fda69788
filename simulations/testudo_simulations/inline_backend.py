"""The federation in this process: every client behind our own Grid. Ray's counterpart is ray_backend.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testudo_client.app import build_client_app
from testudo_server.app import run_federation
from testudo_server.audit_file import AUDIT_LOG
from testudo_server.coordinator import OnRound
from testudo_server.store import RunState, RunStore
from testudo_simulations.attacks.adversary import Adversary
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys, needs_keys
from testudo_simulations.mask_free import MaskFreeExchange
from testudo_simulations.owners import Owners


@dataclass(frozen=True, slots=True)
class InProcessRun:
    """A finished run.

    Attributes:
        state: Of the server.
        secure_client_cpu_seconds: Of secure aggregation at all clients together; None where there was none.
        audit_client_cpu_seconds: Of the audit log, the same.
    """

    state: RunState
    secure_client_cpu_seconds: float | None
    audit_client_cpu_seconds: float | None


def federate_in_process(
    federation: Federation,
    store: RunStore,
    state: Path | None,
    *,
    resume: bool = False,
    on_round: OnRound | None = None,
    masks: bool = True,
    adversary: Adversary | None = None,
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
    """
    plan, clients = federation.plan, len(federation.training)
    folder = None if state is None else state.parent
    keys = SimulatedKeys.of(federation, None if folder is None else folder / "keys") if needs_keys(plan) else None
    logged = folder / AUDIT_LOG if folder is not None and resume else None
    owners = Owners(federation, state, keys, masks=masks or not plan.secure, adversary=adversary, logged=logged)
    final = run_federation(
        InProcessGrid(build_client_app(owners), clients),
        plan,
        store,
        clients=clients,
        keys=None if keys is None else lambda: keys.server_keys,
        exchange_of=None
        if masks or keys is None or not plan.secure
        else lambda transport: MaskFreeExchange(transport, plan, keys.roster),
        resume=resume,
        on_round=on_round,
    )
    return InProcessRun(
        final,
        owners.secure_cpu_seconds if plan.secure and masks else None,
        owners.audit_cpu_seconds if plan.audited else None,
    )
