"""The Ray cluster that a simulation runs on: a running one is joined, else one is started here. Runs no clients.

Ray has no authentication unless it is asked for, and whoever reaches its ports runs code. What is started here listens
on loopback only, and asks for a token; who may reach a cluster that runs already is up to whoever started it.

Source: the installed ray 2.55 (``_private/worker.py``, ``_private/services.py``): 127.0.0.1 as the address of a node is
replaced by the machine's own and everything listens on all of them, except where Ray is told that it is on one machine.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from testudo_common.errors import TestudoError, UsageError

ADDRESS_VARIABLE = "RAY_ADDRESS"
_HERE = frozenset({"", "local"})
_PATIENCE_SECONDS = 5.0
_LOOPBACK = "127.0.0.1"
_ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: as on macOS, where Ray stays on one machine, and on its loopback."""
_WORKERS = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def address_of(option: str | None) -> str:
    """Of the cluster to join, by the option or else by ``RAY_ADDRESS``; empty: none, start one here.

    Raises:
        UsageError: It is not the address of a cluster's head.
    """
    address = os.environ.get(ADDRESS_VARIABLE, "") if option is None else option
    if address in _HERE:
        return ""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not host or not port.isdecimal():
        raise UsageError(
            f"{address!r} is not the address of a Ray cluster",
            where="--ray-address" if option is not None else ADDRESS_VARIABLE,
            remedy="write HOST:PORT, as ray start --head shows it, and run on a machine of the cluster",
        )
    return address


@contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Ray is there, and this process is connected to it, until the block is left.

    Args:
        address: As from :func:`address_of`.

    Raises:
        UsageError: Ray is not installed, nothing answers at the address, or this machine cannot join it.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "the Ray backend is not installed", remedy="pip install 'testudo-fl[ray]', or --backend inline"
        )
    os.environ.update(RAY_USAGE_STATS_ENABLED="0")
    with _quiet():
        if address:
            _join(address)
        else:
            _start()
        import ray

        try:
            yield
        finally:
            ray.shutdown()


def _start() -> None:
    os.environ[_ONE_MACHINE] = "0"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    # Workers inherit this process's environment, but not what was added to its path.
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    with _refused("Ray does not start here", "local", "its logs are in /tmp/ray/session_latest/logs"):
        _connect("local", {**_WORKERS, "PYTHONPATH": path}, include_dashboard=False)
    if {node["NodeManagerAddress"] for node in ray.nodes()} != {_LOOPBACK}:
        ray.shutdown()
        raise UsageError(
            "Ray would listen on all of this machine's addresses: it was imported before it could be told not to",
            remedy=f"set {_ONE_MACHINE}=0 before Python starts",
        )


def _join(address: str) -> None:
    expect_ray_at(address)
    remedy = "it needs the same versions of Python and Ray, and the token if there is one; see ray status"
    with _refused("this machine cannot join the Ray cluster", address, remedy):
        _expect_member(address)
        _connect(address, _WORKERS)


def _expect_member(address: str) -> None:
    """Ray itself would abort the process.

    Raises:
        UsageError: No machine of the cluster is this one.
    """
    from ray._raylet import GcsClient  # what ``ray status`` asks

    nodes = GcsClient(address=address).get_all_node_info(timeout=_PATIENCE_SECONDS).values()
    if not any(_is_here(node.node_manager_address) for node in nodes):
        raise UsageError(
            "this machine is not one of the Ray cluster's",
            where=address,
            remedy=f"run on one that is, or let this one join: ray start --address={address}",
        )


def _is_here(address: str) -> bool:
    """Whether an address is this machine's."""
    family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as tried:
        try:
            tried.bind(place)
        except OSError:
            return False
    return True


def _connect(address: str, workers: dict[str, str], **more: bool) -> None:
    import ray

    ray.init(
        address=address,
        runtime_env={"env_vars": workers},
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        **more,
    )


@contextmanager
def _refused(problem: str, where: str, remedy: str) -> Iterator[None]:
    """Ray's own ways of giving up, among them the end of the process, as one of ours."""
    import ray

    try:
        yield
    except TestudoError:
        raise
    except (Exception, SystemExit) as error:
        ray.shutdown()
        raise UsageError(f"{problem} ({type(error).__name__})", where=where, remedy=remedy) from error


def expect_ray_at(address: str) -> None:
    """Find out in seconds what Ray itself would wait two minutes for, to end the process then.

    Raises:
        UsageError: Nothing answers, or not Ray.
    """
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest
    from grpc_health.v1.health_pb2_grpc import HealthStub

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers ({error.strerror or type(error).__name__})",
            where=address,
            remedy="start one by ray start --head, or leave the address out",
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # Ray's own certificates are its own affair
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise UsageError(
                    "something answers there, and it is not Ray",
                    where=address,
                    remedy="write what ray start --head shows",
                ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")
        yield
