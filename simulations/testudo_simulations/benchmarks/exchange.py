"""What one exchange of messages costs beyond the work at the clients: our Grid against Flower's Ray simulation.

Clients answer each request with an update of the same size and do nothing else, so all that is timed is delivery.
CPU seconds of Ray are those of its driver process only; its workers' come on top.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from testudo_common.flower_records import from_records, identity_records, to_records
from testudo_common.vectors import vector_digest
from testudo_common.wire import TrainReply, TrainRequest
from testudo_server.app import GridTransport, build_server_app, identify_clients
from testudo_simulations.benchmarks.measure import Measurement, Seconds, compared, median_seconds
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.ray_cluster import ray_cluster

_SIZES = (10, 100, 1000)
_RAY_SIZES = (10, 100)
_PARAMETERS = 5114  # a small model
_DEADLINE_SECONDS = 300.0
_LIMIT_SECONDS = 0.1


def measure_exchange(repeats: int) -> list[Measurement]:
    """One message to each of 10, 100 and 1000 clients and back."""
    found: list[Measurement] = []
    for clients in _SIZES:
        ours = median_seconds(_one_exchange(InProcessGrid(_echo_app(), clients), clients), repeats)
        reference = _on_ray(clients, repeats) if clients in _RAY_SIZES else None
        name = "Flower's Ray simulation" if reference else "none: not run at this size, or Ray is not installed"
        found += compared(f"exchange, {clients} clients", ours, reference, name)
    hundred = next(m for m in found if " 100 clients" in m.case and m.metric == "cpu_seconds")
    return [*found, Measurement(hundred.case, "cpu_seconds", "s", hundred.ours, _LIMIT_SECONDS, "our own limit")]


def _echo_app() -> ClientApp:
    app = ClientApp()

    @app.query("identify")
    def identify(message: Message, context: Context) -> Message:
        return Message(identity_records(str(context.node_config["partition-id"])), reply_to=message)

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        request = from_records(message.content)
        assert isinstance(request, TrainRequest)
        named = (request.plan_digest, request.round, request.attempt, request.model_digest)
        return Message(to_records(TrainReply(*named, request.model)), reply_to=message)

    return app


def _one_exchange(grid: Grid, clients: int) -> Callable[[], object]:
    nodes = identify_clients(grid, expected=clients)
    transport = GridTransport(grid, nodes)
    model = np.zeros(_PARAMETERS, dtype=np.float32)
    request = TrainRequest("0" * 64, 1, 0, vector_digest(model), model)

    def exchange() -> None:
        replies = list(transport.deliver(dict.fromkeys(nodes, request), deadline_seconds=_DEADLINE_SECONDS))
        assert len(replies) == len(nodes)

    return exchange


def _on_ray(clients: int, repeats: int) -> Seconds | None:
    if importlib.util.find_spec("ray") is None:
        return None
    from flwr.simulation import run_simulation

    found: list[Seconds] = []

    def serve(grid: Grid, _context: Context) -> None:
        found.append(median_seconds(_one_exchange(grid, clients), repeats))

    with ray_cluster(""):  # Flower takes what is there
        run_simulation(build_server_app(serve), _echo_app(), num_supernodes=clients)
    return found[0]
