"""An owner's node, as ``testudo-client run`` starts it, against Flower's own SuperLink with TLS and authentication."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from helpers import OWNERS_TABLE, make_plan
from provisioned import provisioned_federation
from stock_superlink import StockSuperLink, environment, stock_superlink
from testudo_client.deployment.executor import FAILED
from testudo_client.deployment.health import address_of, ask_health
from testudo_client.deployment.node import NodeFiles, free_port, only_run
from testudo_client.home import OwnerHome
from testudo_common.errors import UsageError
from testudo_common.flower_adapter import quicken_object_pulls
from testudo_common.flower_records import IDENTIFY, TRAIN, identity_in, reply_in, to_records
from testudo_common.plan.load import dump_plan
from testudo_common.vectors import vector_digest
from testudo_common.wire import Refusal, RefusalReason, TrainRequest, decode

pytestmark = [pytest.mark.network, pytest.mark.slow]
"""All of this module share one set-up: it is run by one worker, in its order."""
TABLE = {**OWNERS_TABLE, "rounds": {"count": 3, "cohort_size": 5}}


@dataclass
class Network:
    link: StockSuperLink
    owner: Path
    process: subprocess.Popen[bytes]
    said: Path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder, port = tmp_path_factory.mktemp("node"), free_port()
    federation, owners = provisioned_federation(folder, ["shop-1", "shop-2"], port=port)
    plan = make_plan('audit.mode="log"', tables=TABLE)
    (folder / "plan.toml").write_text(dump_plan(plan))
    (folder / "mine.csv").write_text("price,size,sold\n1,2,yes\n2,3,no\n")
    command = [
        sys.executable, "-m", "testudo_client.cli", "run", str(owners["shop-1"]), "--plan", str(folder / "plan.toml"),
        "--data", str(folder / "mine.csv"), "--health", "127.0.0.1:0",
    ]  # fmt: skip
    quicken_object_pulls()
    with stock_superlink(folder, federation, port) as link, (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment(folder / "flwr-owner"), stdout=said, stderr=said)
        try:
            link.wait_for("shop-1")
            yield Network(link, owners["shop-1"], process, folder / "said")
        finally:
            process.kill()
            process.wait()


def test_exchanges_are_quick_and_signed_by_installed_code(network: Network) -> None:
    first = network.link.ask("shop-1", IDENTIFY)  # torch may be on its way
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        reply = network.link.ask("shop-1", IDENTIFY)
        seconds.append(time.monotonic() - started)
    for one in (first, reply):
        assert not one.has_error()
        assert identity_in(one.content)[0] == "shop-1"
    assert statistics.median(seconds) < 1.5


def test_a_request_that_the_owner_did_not_approve_is_refused(network: Network) -> None:
    plan = make_plan('audit.mode="log"', tables=TABLE)
    model = np.zeros(6, dtype=np.float32)
    request = TrainRequest(plan.digest, 1, 0, vector_digest(model), model)
    parts, signature = reply_in(network.link.ask("shop-1", TRAIN, to_records(request)).content)
    answer = decode(parts)
    assert signature is not None
    assert isinstance(answer, Refusal) and answer.plan_digest == plan.digest
    assert answer.reason in {RefusalReason.NOT_LOGGED, RefusalReason.NOT_APPROVED, RefusalReason.LOG_NOT_TRUSTED}
    assert [line.event for line in OwnerHome(network.owner).log.lines()] == ["refused"]


def test_an_unknown_message_gets_a_fixed_sentence(network: Network) -> None:
    reply = network.link.ask("shop-1", "query.anything")
    assert reply.has_error() and reply.error.reason == FAILED


def test_health_and_a_second_node(network: Network) -> None:
    assert ask_health(address_of(str(network.owner))) == "serving"
    with pytest.raises(UsageError, match="runs already"), only_run(NodeFiles(network.owner)):
        raise AssertionError


def test_it_stops_cleanly_and_leaves_nothing_running(network: Network) -> None:
    pid = supernode_of(network)
    network.process.send_signal(signal.SIGTERM)
    assert network.process.wait(15) == 0
    assert not Path(f"/proc/{pid}").exists() and not NodeFiles(network.owner).health.exists()
    said = network.said.read_text()
    assert "stopped: 7 messages answered, 1 failed" in said and "Traceback" not in said


def supernode_of(network: Network) -> int:
    """The node's child."""
    children = Path(f"/proc/{network.process.pid}/task/{network.process.pid}/children").read_text().split()
    (pid,) = [
        int(child) for child in children if b"deployment.supernode" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return pid
