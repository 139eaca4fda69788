"""Servers in processes of their own that are killed, with SIGKILL, at a chosen write or send. No tests in here.

A point to die at, beside those of deadlines.py, is each message that is about to leave. Run as a program with the name
of a socket, it forks a server for everybody who connects, whose clients are at the other end; until it is sent None.
Imports no torch, so that a fork costs little.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from deadlines import Deadline
from testudo_common.code_digest import digest_of_environment
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_common.wire import Message, Parts, decode, encode
from testudo_server.audit_file import held_log
from testudo_server.charter import code_digest
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Exchange, PlainExchange, Transport
from testudo_server.log_journal import LogJournal
from testudo_server.secure_exchange import SecureExchange
from testudo_server.store import RunStore
from testudo_simulations.keys import SimulatedKeys

SECRET = b"s" * 32


class PipeTransport:
    """A transport to the clients behind a pipe, with a point to die at before each message."""

    def __init__(self, pipe: Connection, deadline: Deadline) -> None:
        self._pipe, self._deadline = pipe, deadline

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        del deadline_seconds, enough
        for client, message in requests.items():
            parts = encode(message)
            self._deadline.point()
            self._pipe.send((client, (parts.header, parts.body, parts.vector)))
            yield client, decode(Parts(*self._pipe.recv()))


def run_server(
    transport: Transport, folder: Path, plan: FederationPlan, clients: tuple[str, ...], model: Vector
) -> None:
    """A run from where it stands to its end."""
    keys = SimulatedKeys("small", clients, SECRET)
    exchange: Exchange = PlainExchange(transport, deadline_seconds=5.0, max_norm=plan.outer.max_update_norm)
    if plan.secure:
        exchange = SecureExchange(transport, plan, keys.roster)
    store = RunStore(folder)
    with held_log(folder) as log:
        journal = LogJournal(plan, keys.server_keys, log, transport, clients)
        coordinator = Coordinator(plan, exchange, store, journal=journal)
        coordinator.run(coordinator.resume(clients) if store.exists else coordinator.begin(model, clients))


def serve(pipe: Connection, at: int, *run: Any) -> None:
    """The same with the clients behind a pipe, up to its end or death; then the number of points passed."""
    deadline = Deadline(at)
    deadline.watch()
    run_server(PipeTransport(pipe, deadline), *run)
    pipe.send(deadline.passed)


def fork_servers(address: str) -> None:
    """A server for each connection, one after another."""
    code_digest()  # read once, and not by each fork
    digest_of_environment()
    gc.freeze()
    with Listener(address) as listener:
        while True:
            with listener.accept() as pipe:
                asked = pipe.recv()
                if asked is None:
                    return
                child = os.fork()
                if child == 0:
                    try:
                        serve(pipe, *asked)
                    except Exception:
                        pipe.send(traceback.format_exc())
                    os._exit(0)
            os.waitpid(child, 0)


if __name__ == "__main__":
    fork_servers(sys.argv[1])
