"""Flower's simulation on Ray: a cluster of two nodes on this machine, and one that we start ourselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_runs import (
    NOISELESS,
    everybody_mirrors_the_log,
    no_client_was_set_aside,
    small_federation,
    tolerance_of,
)
from noted_owners import NotedOwners, nodes_in

from seen_processes import listening_addresses
from testudo_common.errors import RoundError, UsageError
from testudo_common.learning.learner import initial_vector
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations import ray_backend, ray_machines
from testudo_simulations.inline_backend import Computing, federate_in_process
from testudo_simulations.ray_cluster import ray_cluster
from testudo_simulations.ray_machines import Shared, check_machines, expect_free_cores, machines_now

pytestmark = [pytest.mark.slow, pytest.mark.network]
# A killed raylet is noticed in a second instead of fourteen; one that is slow has ten.
SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 2,
}
ONE_BY_ONE = Computing(engine=False)
STARTED_HERE = """
import sys
from testudo_simulations.ray_cluster import ray_cluster
with ray_cluster(""):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes with a core each, on loopback; on the first there is a module ``only_here``."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    own = tmp_path_factory.mktemp("own")
    (own / "only_here.py").touch()
    path = os.pathsep.join(sys.path)
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # Sockets in it must not have long names.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)  # it is imported already
        for name, value in {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_TMPDIR": temporary}.items():
            patch.setenv(name, value)
        patch.syspath_prepend(own)
        cluster = Cluster()
        try:
            with_own = {"PYTHONPATH": f"{own}{os.pathsep}{path}"}
            cluster.add_node(**node, node_name="first", env_vars=with_own, _system_config=SOON)
            cluster.add_node(**node, node_name="second", env_vars={"PYTHONPATH": path})
            yield cluster
        finally:
            cluster.shutdown()


def test_what_is_started_here_listens_on_loopback_and_wants_a_token(tmp_path: Path) -> None:
    """In a process of its own: how Ray listens is settled when it is imported."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    import grpc

    running = subprocess.Popen(
        [sys.executable, "-c", STARTED_HERE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdin is not None and running.stdout is not None
    try:
        address = running.stdout.readline().strip()
        listening = {each for pid in _tree_of(running.pid) for each in _listening(pid)}
        assert listening and all(each.partition(":")[0].endswith("0100007F") for each in listening), listening
        with grpc.insecure_channel(address) as channel:
            ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
            with pytest.raises(grpc.RpcError) as refused:
                ask(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        running.stdin.close()
        assert running.wait(timeout=60) == 0


def _listening(pid: int) -> set[str]:
    with suppress(OSError):
        return listening_addresses(pid)
    return set()


def _tree_of(root: int) -> set[int]:
    """A process and all that came of it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    tree = {root}
    while grown := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    return tree


def test_a_stranger_a_machine_without_the_model_and_a_core_in_use_are_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.toml"
    plan.touch()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("testudo_simulations.ray_cluster._is_here", lambda _address: False)
        with (
            pytest.raises(UsageError, match="this machine is not one of the Ray cluster's"),
            ray_cluster(cluster.address),
        ):
            pass
    with ray_cluster(cluster.address):
        import ray

        machines = machines_now()
        assert [machine.cores for machine in machines] == [1, 1]
        check_machines(machines, Shared(str(plan), "", "mlp"))
        with pytest.raises(UsageError, match=r"^second .*: it does not have this machine's only_here"):
            check_machines(machines, Shared(str(plan), "", "only_here:make"))
        assert list(tmp_path.iterdir()) == [plan], "nothing is left behind"

        expect_free_cores(machines)

        @ray.remote(num_cpus=1)
        class Holder:
            def there(self) -> None:
                """It is."""

        holder = Holder.remote()
        ray.get(holder.there.remote())
        monkeypatch.setattr(ray_machines, "_FREE_SECONDS", 0.0)
        with pytest.raises(UsageError, match="1 of the 2 cores of the Ray cluster are in use"):
            expect_free_cores(machines)


def test_two_machines_give_the_model_of_one(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend, "OwnersByFile", NotedOwners)
    federation = small_federation("secure", *NOISELESS)
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None).state
    store = RunStore(tmp_path / "ray", durable=False)
    on_ray = ray_backend.federate_on_ray(federation, None, tmp_path / "ray", store, address=cluster.address)
    assert len(nodes_in(tmp_path / "ray")) == 2
    assert np.abs(here.model - initial_vector(federation.plan)).max() > 1e-3, "the runs must have changed something"
    assert np.abs(here.model - on_ray.model).max() <= tolerance_of(federation.plan)
    assert here.participations == on_ray.participations
    no_client_was_set_aside(store, federation.plan)
    everybody_mirrors_the_log(tmp_path / "ray")


def test_a_machine_that_is_lost_ends_the_run_and_the_rest_resumes_it_to_the_bit(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_backend, "OwnersByFile", NotedOwners)
    federation = small_federation("plain", *NOISELESS)
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None, computing=ONE_BY_ONE).state
    out, store = tmp_path / "ray", RunStore(tmp_path / "ray", durable=False)
    (second,) = cluster.worker_nodes

    def kill(state: RunState, _record: RoundRecord) -> None:
        if state.round == 1:  # as if its power were cut: its workers would answer for a while
            (raylet,) = second.all_processes["raylet"]
            for pid in _tree_of(raylet.process.pid):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(RoundError, match=r"^second .*: a worker of the Ray cluster was lost .*--resume"):
        ray_backend.federate_on_ray(federation, None, out, store, address=cluster.address, on_round=kill)
    assert len(nodes_in(out)) == 2
    assert 1 <= store.load(federation.plan.digest).round < federation.plan.rounds.count
    on_ray = ray_backend.federate_on_ray(federation, None, out, store, address=cluster.address, resume=True)
    assert np.array_equal(here.model, on_ray.model)
    no_client_was_set_aside(store, federation.plan)
    everybody_mirrors_the_log(out)
