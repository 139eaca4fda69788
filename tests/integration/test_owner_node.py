"""An owner's node, as ``testudo-client run`` starts it, against Flower's own SuperLink with TLS and authentication."""

from __future__ import annotations

import os
import secrets
import signal
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files

from fleet_intruder import status_of_acquire
from helpers import OWNERS_TABLE, make_plan
from provisioned import provisioned_federation
from seen_processes import children_of, loopback_ports
from stock_superlink import StockSuperLink, environment, stock_superlink
from testudo_client.deployment.executor import FAILED
from testudo_client.deployment.health import address_of, ask_health
from testudo_client.deployment.node import NodeFiles, free_port, only_run
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.app_bundle import app_bundle, bundle_digest, template_files
from testudo_common.errors import UsageError
from testudo_common.flower_adapter import quicken_object_pulls
from testudo_common.flower_records import IDENTIFY, TRAIN, identity_in, reply_in, to_records
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.vectors import vector_digest
from testudo_common.wire import Refusal, RefusalReason, SecureMessage, TrainRequest, decode

pytestmark = [pytest.mark.network, pytest.mark.slow]
"""All of this module share one set-up: it is run by one worker, in its order."""
TABLE = {**OWNERS_TABLE, "rounds": {"count": 3, "cohort_size": 5, "max_participations": 3}}


@dataclass
class Network:
    link: StockSuperLink
    owner: Path
    process: subprocess.Popen[bytes]
    said: Path
    plan: FederationPlan
    address: str
    others: dict[str, Path]

    @property
    def policy(self) -> str:
        return (self.owner / "policy.toml").read_text()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder, port = tmp_path_factory.mktemp("node"), free_port()
    federation, owners = provisioned_federation(folder, ["shop-1", "shop-2"], port=port, no_privacy=True, min_cohort=4)
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
            yield Network(link, owners["shop-1"], process, folder / "said", plan, f"localhost:{port}", owners)
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


def test_nobody_takes_its_tasks_without_the_secret(network: Network) -> None:
    """Nor from another machine, wherever the SuperNode's Runtime API is asked."""
    files = NodeFiles(network.owner)
    (port,) = loopback_ports(supernode_of(network))
    trusting = ssl.create_default_context(cafile=files.folder / "loopback.crt")
    assert status_of_acquire(port, None, trusting) == 401
    assert status_of_acquire(port, secrets.token_bytes(32), trusting) == 401
    assert status_of_acquire(port, files.secret.read_bytes(), trusting) == 200


def step(plan: FederationPlan) -> RecordDict:
    """A message of secure aggregation: whoever it is for has to consent to the plan."""
    return to_records(SecureMessage(plan.digest, 1, 0, b"", None))


def reason_of(reply: Message) -> RefusalReason:
    answer = decode(reply_in(reply.content)[0])
    assert isinstance(answer, Refusal)
    return answer.reason


def hostile_bundle(marker: Path) -> bytes:
    """An app with a ``testudo_client`` of its own, which leaves a file behind when it is imported."""
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    app = "from flwr.clientapp import ClientApp\napp = ClientApp()\n"
    files = {name: content for name, content in template_files().items() if name != "pyproject.toml"}
    project = template_files()["pyproject.toml"].decode()
    files["pyproject.toml"] = project.replace("fab-include = [", 'fab-include = ["**/*.py", ').encode()
    files["testudo_client/__init__.py"], files["testudo_client/app.py"] = code.encode(), app.encode()
    bundle, _ = build_fab_from_files(files)
    assert bundle != app_bundle()
    return bundle


def test_a_hostile_bundle_does_not_run(network: Network, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with network.link.another_run(hostile_bundle(marker)) as link:
        answers = [link.ask("shop-1", TRAIN, step(network.plan)), link.ask("shop-1", IDENTIFY)]
    assert reason_of(answers[0]) is RefusalReason.NOT_ALLOWED
    assert identity_in(answers[1].content)[0] == "shop-1", "installed code answers, whatever was sent"
    assert not marker.exists()
    sentence = list(OwnerHome(network.owner).log.lines())[-1].sentence
    assert "1 thing that the policy does not allow - pins.bundle" in sentence, sentence
    assert bundle_digest() in network.policy, "the policy pins ours from the beginning"
    answer = network.link.ask("shop-1", TRAIN, step(network.plan))
    assert reason_of(answer) is RefusalReason.NOT_APPROVED, "the control: with ours, the policy allows the plan"


def test_a_hostile_bundle_runs_under_flowers_own_executor(network: Network, tmp_path: Path) -> None:
    """The control: the attack is real. An owner that starts Flower's own SuperNode executes what the operator sends."""
    marker, owner, port = tmp_path / "ran", network.others["shop-2"], free_port()
    files = ConnectionFiles(owner)
    command = [
        str(Path(sys.executable).with_name("flower-supernode")), "--superlink", network.address,
        "--root-certificates", str(files.ca_certificate), "--auth-supernode-private-key", str(files.node_key),
        "--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with (tmp_path / "said").open("wb") as said:
        found = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it starts flower-superexec
        variables = {**environment(tmp_path / "flwr"), "PATH": found}
        stock = subprocess.Popen(command, env=variables, stdout=said, stderr=said)
        try:
            network.link.wait_for("shop-2")
            with network.link.another_run(hostile_bundle(marker)) as link:
                reply = link.ask("shop-2", TRAIN, step(network.plan))
            assert reply.has_error() and marker.exists(), (tmp_path / "said").read_text()
        finally:
            stock.terminate()
            try:
                stock.wait(10)
            except subprocess.TimeoutExpired:
                stock.kill()
                stock.wait()


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
    assert "stopped: 10 messages answered, 1 failed" in said and "Traceback" not in said


def supernode_of(network: Network) -> int:
    """The node's child."""
    return children_of(network.process.pid)["supernode"]
