"""Each of the doctor's checks: good where all is well, and failing once, alone, with what to do."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fake_door import FakeDoor, fake_door
from helpers import OWNERS_TABLE, make_plan
from provisioned import provisioned_federation
from testudo_client.approve_command import approve_plan
from testudo_client.cli import app
from testudo_client.deployment import checks_connection, checks_plan
from testudo_client.deployment.check import Verdict
from testudo_client.deployment.doctor import DoctorRequest, examine
from testudo_client.deployment.door import KEY_PATH
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.plan.load import dump_plan
from testudo_server.provisioning.folder import FederationFolder

pytestmark = pytest.mark.network
LOG = 'audit.mode="log"'
TABLE = {
    **OWNERS_TABLE,
    "inner": {"steps": 2, "learning_rate": 0.2, "sample_rate": 0.5},
    "rounds": {"count": 3, "cohort_size": 5, "max_participations": 3, "min_replies": 4},
    "privacy": {"unit": "example", "epsilon": 6.0},
    "secure_aggregation": {"group_size": 5, "min_cohort": 4},
}


@dataclass
class Place:
    federation: FederationFolder
    home: OwnerHome
    door: FakeDoor
    plan: Path
    data: Path

    def checks(self, *, offline: bool = False, plan: bool = True) -> dict[str, tuple[Verdict, str]]:
        request = DoctorRequest(
            self.home.folder, self.plan if plan else None, self.data if plan else None, offline=offline
        )
        return {check.name: (check.verdict, check.sentence) for check in examine(request)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, Path]:
    folder = tmp_path_factory.mktemp("doctor")
    federation, owners = provisioned_federation(folder, [f"shop-{n}" for n in range(1, 6)], min_cohort=4)
    (folder / "plan.toml").write_text(dump_plan(make_plan(LOG, tables=TABLE)))
    (folder / "mine.csv").write_text(
        "price,size,sold\n" + "".join(f"{n},{n % 5},{'no' if n % 2 else 'yes'}\n" for n in range(20))
    )
    return federation, owners["shop-1"]


@pytest.fixture
def place(made: tuple[FederationFolder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    federation, owner = made
    shutil.copytree(owner, tmp_path / "owner", symlinks=True)
    approve_plan(make_plan(LOG, tables=TABLE), OwnerHome(tmp_path / "owner"))  # a ledger that is copied is found out
    for name in checks_connection.proxies_in(checks_connection.os.environ):
        monkeypatch.delenv(name)
    with fake_door(federation.server_certificate, federation.server_key, federation.ca_certificate) as door:
        door.files[KEY_PATH] = b"key"
        server = ConnectionFiles(tmp_path / "owner").server
        server.write_text(json.dumps({**json.loads(server.read_text()), "port": door.port}))
        yield Place(
            federation, OwnerHome(tmp_path / "owner"), door, owner.parent / "plan.toml", owner.parent / "mine.csv"
        )


def test_all_is_well(place: Place) -> None:
    found = place.checks()
    assert list(found) == [
        "private files", "your certificate", "the federation's root", "roster", "proxy", "DNS", "TCP", "TLS",
        "admission", "clock", "policy", "ledger", "disk", "plan", "policy for the plan", "approval", "data", "memory",
        "dry round",
    ]  # fmt: skip
    assert {verdict for verdict, _ in found.values()} <= {Verdict.OK, Verdict.WARNING}
    fine = set(found) - {"disk", "memory"}  # of this machine
    assert all(found[name][0] is Verdict.OK for name in fine), found
    assert "5 s ahead and 305 s behind" in found["clock"][1]
    assert "under differential privacy" in found["dry round"][1] and "secure sum" in found["dry round"][1]
    entries = len(place.home.ledger(place.home.policy()).entries())
    before = sorted(path.name for path in place.home.folder.rglob("*"))
    place.checks()
    assert sorted(path.name for path in place.home.folder.rglob("*")) == before, "nothing is left behind"
    assert len(place.home.ledger(place.home.policy()).entries()) == entries, "nothing is charged"


def alone(place: Place, name: str, said: str, *, offline: bool = True) -> None:
    """The check of that name fails, with that sentence, and no other does."""
    found = place.checks(offline=offline, plan=False)
    failed = {key: sentence for key, (verdict, sentence) in found.items() if verdict is Verdict.FAILS}
    assert list(failed) == [name], found
    assert said in failed[name]
    assert "\n" not in failed[name]


def test_a_key_that_others_can_read(place: Place) -> None:
    ConnectionFiles(place.home.folder).node_key.chmod(0o644)
    alone(place, "private files", "chmod 600")


@pytest.mark.parametrize(("days", "name"), [(3000, "your certificate"), (20000, "the federation's root")])
def test_certificates_that_expired(place: Place, monkeypatch: pytest.MonkeyPatch, days: int, name: str) -> None:
    monkeypatch.setattr(checks_connection, "utc_now", lambda: datetime.now(UTC) + timedelta(days=days))
    found = place.checks(offline=True, plan=False)
    verdict, sentence = found[name]
    assert verdict is Verdict.FAILS and "expired" in sentence


def test_a_certificate_that_expires_soon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    left = checks_connection.own_certificate(ConnectionFiles(place.home.folder)).days_left(datetime.now(UTC))
    monkeypatch.setattr(checks_connection, "utc_now", lambda: datetime.now(UTC) + timedelta(days=left - 29))
    verdict, sentence = place.checks(offline=True, plan=False)["your certificate"]
    assert verdict is Verdict.WARNING and "testudo-client renew" in sentence


def test_a_roster_of_somebody_else(place: Place) -> None:
    roster = json.loads(place.home.roster_file.read_text())
    roster["members"].pop("shop-2")
    place.home.roster_file.write_text(json.dumps(roster))
    alone(place, "roster", "not signed with the federation's key")


def test_proxies_are_a_warning(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
    verdict, sentence = place.checks(offline=True, plan=False)["proxy"]
    assert verdict is Verdict.WARNING and "--use-proxy" in sentence


def test_not_joined_yet(place: Place) -> None:
    ConnectionFiles(place.home.folder).server.unlink()
    alone(place, "connection", "testudo-client join", offline=False)


def test_a_name_nobody_knows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    alone(place, "DNS", "not known here", offline=False)


def test_nobody_listens(place: Place) -> None:
    server = ConnectionFiles(place.home.folder).server
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server.write_text(json.dumps({**json.loads(server.read_text()), "port": unused.getsockname()[1]}))
        alone(place, "TCP", "not running now", offline=False)


def test_another_root(place: Place, tmp_path: Path) -> None:
    other, _ = provisioned_federation(tmp_path / "other", ["shop-1"])
    ConnectionFiles(place.home.folder).ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    alone(place, "TLS", "not signed by your federation", offline=False)


def test_revoked(place: Place) -> None:
    place.door.status = 403
    alone(place, "admission", "does not let you in", offline=False)


def test_a_clock_an_hour_off(place: Place) -> None:
    place.door.ahead_seconds = 3600
    alone(place, "clock", "3600 s behind", offline=False)
    place.door.ahead_seconds = None
    assert place.checks(plan=False)["clock"][0] is Verdict.WARNING
    place.door.ahead_seconds = 200
    assert place.checks(plan=False)["clock"][0] is Verdict.WARNING


def test_a_policy_that_is_none(place: Place) -> None:
    place.home.policy_file.write_text("nonsense = 1\n")
    found = place.checks(offline=True)
    assert found["policy"][0] is Verdict.FAILS and found["plan"][0] is Verdict.FAILS


def test_a_policy_that_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_plan, "utc_now", lambda: datetime.now(UTC) + timedelta(days=4000))
    alone(place, "policy", "move the day")


def test_a_ledger_that_was_deleted(place: Place) -> None:
    (place.home.state / "ledger.db").unlink()
    assert place.checks(offline=True, plan=False)["ledger"][0] is Verdict.FAILS


@pytest.mark.parametrize(("free", "verdict"), [(10**8, "fails"), (5 * 10**8, "warning"), (10**10, "ok")])
def test_room_on_disk(place: Place, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    real = shutil.disk_usage(place.home.folder)
    monkeypatch.setattr(checks_plan.shutil, "disk_usage", lambda _: type(real)(2 * free, free, free))
    assert place.checks(offline=True, plan=False)["disk"][0].value == verdict


def of_the_plan(place: Place, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Verdict, str]]:
    """Without a dry round, which is slow."""
    monkeypatch.setattr(checks_plan, "_dry_round", lambda *_: "left away")
    return {
        check.name: (check.verdict, check.sentence) for check in checks_plan.of_plan(place.home, place.plan, place.data)
    }


def spoil(name: str) -> Callable[[Place, Path, pytest.MonkeyPatch], None]:
    def plan_of(place: Place, folder: Path, *settings: str) -> None:
        place.plan = folder / "other.toml"
        place.plan.write_text(dump_plan(make_plan(LOG, *settings, tables=TABLE)))

    def rows(place: Place, folder: Path, _: Any) -> None:
        place.data = folder / "bad.csv"
        place.data.write_text("price,size,sold\n1,2,perhaps\n1,2,yes\n")

    def no_plan(place: Place, folder: Path, _: Any) -> None:
        place.plan = folder / "none.toml"

    ways: dict[str, Callable[[Place, Path, pytest.MonkeyPatch], None]] = {
        "plan": no_plan,
        "policy for the plan": lambda place, folder, _: plan_of(place, folder, 'audit.mode="off"'),
        "approval": lambda place, folder, _: plan_of(place, folder, "seed=5"),
        "data": rows,
        "memory": lambda _place, _folder, patch: patch.setattr(checks_plan, "available_bytes", lambda: 1000),
    }
    return ways[name]


@pytest.mark.parametrize("name", ["plan", "policy for the plan", "approval", "data", "memory"])
def test_of_a_plan(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    spoil(name)(place, tmp_path, monkeypatch)
    found = of_the_plan(place, monkeypatch)
    assert found[name][0] is Verdict.FAILS, found
    if name == "memory":
        assert "dry round" not in found
    if name == "policy for the plan":
        assert "left away" in found["dry round"][1] and "memory" not in found, "a model that is refused is not built"


def test_memory_is_the_least_that_is_seen(tmp_path: Path) -> None:
    meminfo, most, current = (tmp_path / name for name in ("meminfo", "max", "current"))
    assert checks_plan.available_bytes((meminfo, most, current)) is None
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
    most.write_text("max\n")
    current.write_text("5\n")
    assert checks_plan.available_bytes((meminfo, most, current)) == 1_024_000
    most.write_text("1005\n")
    assert checks_plan.available_bytes((meminfo, most, current)) == 1000
    assert checks_plan.memory_needed(10**7, 10, 100) > 10**9


def test_the_command(place: Place) -> None:
    result = CliRunner().invoke(app, ["doctor", str(place.home.folder), "--json"])
    assert result.exit_code == 0, result.output
    assert {check["verdict"] for check in json.loads(result.stdout)} <= {"ok", "warning"}
    place.door.status = 403
    result = CliRunner().invoke(app, ["doctor", str(place.home.folder)])
    assert result.exit_code == 1
    assert "fails    admission: The server does not let you in" in result.stdout


def test_without_a_plan_nothing_slow_is_loaded(place: Place) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from testudo_client.deployment.doctor import DoctorRequest, examine; "
        "list(examine(DoctorRequest(Path(sys.argv[1])))); print(sorted({'torch', 'flwr', 'opacus'} & set(sys.modules)))"
    )
    paths = [str(Path(__file__).parents[2] / top) for top in ("common", "client")]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}", str(place.home.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout.strip() == "[]", ran.stderr
