"""Seconds of one exchange with three owners as processes on this machine: Flower's stock set-up, and ours.

An exchange is a message to every node and a reply from every node, over TLS and with authenticated nodes; it asks for
the owner's name, which needs the owner's folder and its code (torch among it) and no training. All set-ups answer with
the same ClientApp. Stock: ``flower-superlink`` and ``flower-supernode`` as they come, with ``send_and_receive``. Ours:
door, SuperLink, SuperNode, warm executor, and a loop of our own over the grid.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flwr.app import RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.serverapp import Grid

from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.app_bundle import app_bundle, bundle_digest, template_files
from testudo_common.errors import UsageError
from testudo_common.flower_adapter import quicken_object_pulls
from testudo_common.flower_environment import enter_flower_environment
from testudo_common.flower_records import IDENTIFY
from testudo_common.provisioning.loopback import loopback_certificate
from testudo_server.app import exchange_messages
from testudo_server.deployment.control import begin_run, control_client, register_members
from testudo_server.deployment.executor import acquire_task, task_grid
from testudo_server.deployment.front import Front
from testudo_server.deployment.preflight import Address
from testudo_server.deployment.superlink import SuperLink
from testudo_server.provisioning.folder import FederationFolder
from testudo_simulations.benchmarks.measure import Measurement
from testudo_simulations.deployment.command import free_port, shop_names
from testudo_simulations.deployment.federation import LocalFederation
from testudo_simulations.deployment.provisioned import Provisioned, provision
from testudo_simulations.deployment.tables import write_tables

OWNERS = 3
_EXCHANGES = 5  # a repeat
_LIMIT_SECONDS = 1.5
_DEADLINE_SECONDS = 180.0
_STOP_SECONDS = 30.0


def measure_deployment(repeats: int) -> list[Measurement]:
    """Medians over ``5 * repeats`` exchanges, the first of each set-up left out."""
    with tempfile.TemporaryDirectory(prefix="testudo-bench-") as folder:
        place = Path(folder)
        shops = shop_names(OWNERS)
        plan = write_tables(place / "data", shops, rows=60)
        data = {shop: place / "data" / f"{shop}.csv" for shop in shops}
        found = provision(place, plan, data, port=free_port())
        enter_flower_environment(place / "flower")
        stock = _stock(found, place / "stock", _EXCHANGES)
        stock_polls = _ours(found, place / "polls", _EXCHANGES * repeats, ("--stock-polls",))
        quick = _ours(found, place / "quick", _EXCHANGES * repeats, ())
    return [
        Measurement("warm executor, stock polls", "wall_seconds", "s", stock_polls, stock, "Flower's stock set-up"),
        Measurement("warm executor, adapter", "wall_seconds", "s", quick, stock, "Flower's stock set-up"),
        Measurement("warm executor, adapter", "wall_seconds", "s", quick, _LIMIT_SECONDS, "limit"),
    ]


def _ours(found: Provisioned, out: Path, exchanges: int, words: Sequence[str]) -> float:
    out.mkdir()
    (out / "plan.toml").write_bytes(found.plan.read_bytes())
    with _our_grid(found, out) as (grid, nodes), LocalFederation(found, out, out / "logs") as federation:
        for owner in found.owners:
            federation.start_owner(owner, *words)
        _wait(lambda: set(nodes.values()) <= set(grid.get_node_ids()), "the owners' nodes")
        seconds = []
        for _ in range(exchanges + 1):
            started = time.perf_counter()
            asked = [(node, (IDENTIFY, RecordDict())) for node in nodes.values()]
            replies = list(exchange_messages(grid, asked, deadline_seconds=_DEADLINE_SECONDS))
            if len(replies) != OWNERS or any(reply.has_error() for _, reply in replies):
                raise UsageError("an exchange brought in too little", where=str(out))
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


@contextmanager
def _our_grid(found: Provisioned, out: Path) -> Iterator[tuple[Grid, dict[str, int]]]:
    """What ``testudo-server run`` makes before its first round."""
    folder = FederationFolder(found.federation)
    quicken_object_pulls()
    superlink = SuperLink(folder.superlink)
    front = Front(
        found.federation,
        out,
        superlink=superlink.address,
        certificate=superlink.certificate,
        listen=Address("127.0.0.1", folder.settings().port),
        status=Address("127.0.0.1", 0),
        log=out / "door.log",
    )
    try:
        superlink.start()
        superlink.wait_until_it_answers()
        with control_client(superlink.address, superlink.certificate, superlink.control_secret) as control:
            nodes = register_members(control, folder.members())
            front.start()
            front.wait_until_it_listens()
            number = begin_run(control, app_bundle(), bundle_digest())
            token = acquire_task(superlink.address, superlink.certificate, superlink.task_secret, number)
            with task_grid(superlink.address, superlink.certificate, token, bundle_digest()) as grid:
                yield grid, nodes
    finally:
        front.stop()
        superlink.stop()


def _stock(found: Provisioned, out: Path, exchanges: int) -> float:
    out.mkdir()
    times = out / "seconds.json"
    bundle, _ = build_fab_from_files(_stock_files(exchanges, times))
    port = free_port()
    certificate, key = loopback_certificate(out / "superlink")
    address = f"127.0.0.1:{port}"
    with ExitStack() as running:
        tls = ["--ssl-ca-certfile", certificate, "--ssl-certfile", certificate, "--ssl-keyfile", key]
        command = ["flower-superlink", *tls, "--enable-supernode-auth", "--host", "127.0.0.1", "--port", port]
        running.enter_context(_process([*command, "--database", out / "state.db"], out / "superlink.log"))
        with control_client(address, certificate, b"") as control:
            register_members(control, FederationFolder(found.federation).members())
            for owner, home in found.owners.items():
                config = f'owner="{home}" plan="{found.plan}" data="{found.data[owner]}"'
                key_file, runtime = ConnectionFiles(home).node_key, ["--host", "127.0.0.1", "--port", free_port()]
                node = ["flower-supernode", "--root-certificates", certificate, "--superlink", address]
                node += ["--auth-supernode-private-key", key_file, "--node-config", config, *runtime]
                running.enter_context(_process(node, out / f"{owner}.log"))
            begin_run(control, bundle, hashlib.sha256(bundle).hexdigest())
            _wait(times.exists, f"Flower's stock set-up ({out})", 3 * _DEADLINE_SECONDS)
            time.sleep(0.1)
        seconds: list[float] = json.loads(times.read_text(encoding="utf-8"))
    return statistics.median(seconds[1:])


def _stock_files(exchanges: int, times: Path) -> dict[str, bytes]:
    """Our bundle with another ServerApp, and what that has to know."""
    made = template_files()
    text = made["pyproject.toml"].decode()
    text = text.replace("testudo_server.app:app", "testudo_simulations.benchmarks.stock_app:app")
    head, _, _ = text.partition("[tool.flwr.app.config]")
    settings = f'nodes = {OWNERS}\nexchanges = {exchanges + 1}\nout = "{times}"\n'
    return {**made, "pyproject.toml": f"{head.rstrip()}\n\n[tool.flwr.app.config]\n{settings}".encode()}


@contextmanager
def _process(words: Sequence[object], log: Path) -> Iterator[None]:
    program, *rest = map(str, words)
    command = [str(Path(sys.executable).with_name(program)), *rest]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603 - Flower's own programs beside this interpreter
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(there: Callable[[], bool], what: str, seconds: float = _DEADLINE_SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not there():
        if time.monotonic() > ends:
            raise UsageError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.1)
