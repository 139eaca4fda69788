"""What each simulated client remembers between messages: its ledger, its store and its witness. Answers nothing.

In its folder, as at a real owner, or in memory; and then the same ones are given each time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from testudo_client.ledger import Ledger
from testudo_client.store import ClientStore
from testudo_simulations.consent import simulated_ledger
from testudo_simulations.federations.base import Federation
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.witnesses import SimulatedWitness, recalled_from

_ON_DISK = 200
"""The most clients of a round whose sessions are files. Each lists the whole cohort: held in memory, they share one
list, and a run that is resumed has forgotten which updates had been masked."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one client."""

    ledger: Ledger
    store: ClientStore
    witness: SimulatedWitness | None


class Memories:
    """Of all clients of a federation in one process, made when they are first asked for.

    Args:
        federation: Its training clients, in order of their ids, are the partitions.
        state: Holds a folder for each; None: all is in memory.
        keys: The clients'.
        masks: Whether secure sums are masked.
        mirrors: Whether each client's mirror of the log is a file in its folder; otherwise it is in memory.
        logged: File of the server's log, from which clients without mirrors recall what they signed before a restart.
    """

    def __init__(
        self,
        federation: Federation,
        state: Path | None,
        keys: SimulatedKeys | None,
        *,
        masks: bool,
        mirrors: bool,
        logged: Path | None,
    ) -> None:
        self._plan = federation.plan
        self._clients = list(federation.training)
        self._state = state
        self._keys = keys
        self._mirrors = mirrors
        self._recalled = {} if logged is None or mirrors else recalled_from(logged)
        self._holds_sessions = masks and self._plan.secure and self._plan.rounds.cohort_size > _ON_DISK
        self._kept: OrderedDict[int, Memory] = OrderedDict()

    def of(self, partition: int) -> Memory:
        """Of the client of a partition."""
        if partition in self._kept:
            return self._kept[partition]
        client = self._clients[partition]
        folder = None if self._state is None else self._state / f"{partition:05d}"
        ledger = simulated_ledger(folder)
        store = ClientStore(folder, durable=False, holds_sessions=self._holds_sessions)
        memory = Memory(ledger, store, self._witness_of(client, ledger, folder if self._mirrors else None))
        if folder is None or memory.witness is not None:
            self._kept[partition] = memory
        elif self._holds_sessions:
            self._kept[partition] = memory
            if len(self._kept) > 2 * self._plan.rounds.cohort_size:
                self._kept.popitem(last=False)  # of a round that is over
        return memory

    def _witness_of(self, client: str, ledger: Ledger, folder: Path | None) -> SimulatedWitness | None:
        if not self._plan.audited:
            return None
        assert self._keys is not None, "a log is of a federation with keys"
        membership, recalled = self._keys.membership_of(client), self._recalled.get(client)
        return SimulatedWitness(client, self._plan, membership, ledger, folder, recalled)

    @property
    def audit_cpu_seconds(self) -> float:
        """CPU seconds that all witnesses spent so far."""
        return sum(memory.witness.cpu_seconds for memory in self._kept.values() if memory.witness is not None)
