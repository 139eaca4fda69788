"""What a server looks at before it starts anything: each fault is one sentence that says what to do."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import make_plan
from provisioned import founded, provisioned_federation
from testudo_common.errors import CheckpointError, KeyFileError, PlanError, RosterError, TestudoError, UsageError
from testudo_common.plan.load import dump_plan
from testudo_server.deployment import run_command
from testudo_server.deployment.preflight import Address, check_free, look_at, parse_address
from testudo_server.deployment.run_command import RunOptions
from testudo_server.outer_step import init_outer
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.store import RunState, RunStore

PLAN = make_plan("rounds.count=2", "rounds.min_replies=2")


def member_file(federation: FederationFolder, client: str) -> Path:
    (found,) = (each for each in federation.members_folder.iterdir() if client.encode() in each.read_bytes())
    return found


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> FederationFolder:
    return provisioned_federation(tmp_path_factory.mktemp("federation"), ("ada", "bob"))[0]


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(dump_plan(PLAN))
    return path


def test_a_federation_that_is_ready(federation: FederationFolder, plan_file: Path, tmp_path: Path) -> None:
    ready = look_at(plan_file, federation, tmp_path / "run", resume=False)
    assert (ready.admitted, ready.least, ready.wanted, ready.quorum) == (("ada", "bob"), 2, 2, 0)
    assert ready.warnings == ()


def test_a_quorum_is_waited_for(federation: FederationFolder, plan_file: Path, tmp_path: Path) -> None:
    plan_file.write_text(dump_plan(make_plan("audit.mode=log", "rounds.cohort_size=1", "rounds.min_replies=1")))
    ready = look_at(plan_file, federation, tmp_path / "run", resume=False)
    assert (ready.quorum, ready.least, ready.wanted) == (2, 2, 2)


@pytest.mark.parametrize(
    ("days", "words"),
    [(10_000, "the server's certificate expired on"), (-10_000, "the server's certificate is valid from")],
)
def test_a_certificate_out_of_its_time(
    federation: FederationFolder, plan_file: Path, tmp_path: Path, days: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        look_at(plan_file, federation, tmp_path, resume=False, now=datetime.now(UTC) + timedelta(days=days))


def test_a_certificate_that_soon_expires_is_a_warning(tmp_path: Path, plan_file: Path) -> None:
    folder, _ = provisioned_federation(tmp_path, ("ada", "bob"))
    from cryptography import x509

    ends = x509.load_pem_x509_certificate(folder.server_certificate.read_bytes()).not_valid_after_utc
    ready = look_at(plan_file, folder, tmp_path / "run", resume=False, now=ends - timedelta(days=3))
    assert len(ready.warnings) == 1
    assert "runs out" in ready.warnings[0]


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda f: f.server_certificate.unlink(), UsageError, "server.crt: cannot be read"),
        (lambda f: f.server_key.unlink(), UsageError, "cannot be read"),
        (lambda f: f.server_certificate.write_bytes(b"-"), UsageError, "not a certificate and its key"),
        (lambda f: f.server_key.write_bytes(f.ca_key.read_bytes()), UsageError, "is not its key's"),
        (lambda f: (f.folder / "log.pem").unlink(), KeyFileError, "log.pem"),
        (lambda f: (f.folder / "roster.json").write_bytes(b"{}"), RosterError, "roster.json"),
        (
            lambda f: next(each for each in f.members_folder.iterdir() if b"bob" in each.read_bytes()).unlink(),
            UsageError,
            "1 owners are admitted, and the plan needs 2",
        ),
        (lambda f: f.settings_file.unlink(), UsageError, "federation.toml"),
    ],
    ids=["no certificate", "no key", "damaged", "another key", "no log key", "roster", "too few", "no settings"],
)
def test_each_thing_that_is_missing_is_named(
    tmp_path: Path, plan_file: Path, damage: Any, error: type[TestudoError], words: str
) -> None:
    folder, _ = provisioned_federation(tmp_path, ("ada", "bob"))
    damage(folder)
    with pytest.raises(error) as caught:
        look_at(plan_file, folder, tmp_path / "run", resume=False)
    assert words in str(caught.value)


def test_a_plan_that_cannot_be_used_is_refused(federation: FederationFolder, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("name = 3\n")
    with pytest.raises(PlanError):
        look_at(path, federation, tmp_path / "run", resume=False)


def begun(folder: Path) -> None:
    outer = init_outer(PLAN.outer, 8)
    RunStore(folder).save(RunState(PLAN.digest, 0, np.zeros(8, np.float32), outer, {"ada": 0}), None)


def test_a_run_is_not_begun_over_another(federation: FederationFolder, plan_file: Path, tmp_path: Path) -> None:
    begun(tmp_path / "run")
    with pytest.raises(UsageError, match=r"there is a run here already\. go on with it with --resume"):
        look_at(plan_file, federation, tmp_path / "run", resume=False)
    assert look_at(plan_file, federation, tmp_path / "run", resume=True).plan.digest == PLAN.digest


def test_nothing_to_go_on_with(federation: FederationFolder, plan_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="start it without --resume"):
        look_at(plan_file, federation, tmp_path / "run", resume=True)


def test_a_run_of_another_plan_is_not_gone_on_with(
    federation: FederationFolder, plan_file: Path, tmp_path: Path
) -> None:
    begun(tmp_path / "run")
    plan_file.write_text(dump_plan(make_plan("rounds.count=3")))
    with pytest.raises(CheckpointError, match="belongs to another plan"):
        look_at(plan_file, federation, tmp_path / "run", resume=True)


@pytest.mark.parametrize("text", ["9092", ":9092", "host:", "host:70000", "host:-1", "host:9x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"--listen: .* is no address"):
        parse_address(text, "--listen")


def test_addresses() -> None:
    assert parse_address("[::1]:80", "") == Address("::1", 80)
    assert str(parse_address("[::1]:80", "")) == "[::1]:80"
    assert [parse_address(f"{host}:1", "").is_loopback for host in ("127.0.0.1", "0.0.0.0", "[::]")] == [
        True,
        False,
        False,
    ]


def options(federation: FederationFolder, plan: Path, out: Path, **more: Any) -> RunOptions:
    listen = Address("127.0.0.1", 0)
    return RunOptions(plan, federation.folder, out, **{"listen": listen, "status": listen, **more})


@pytest.mark.network
def test_a_port_in_use_is_named_before_anything_is_started(
    federation: FederationFolder, plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "SuperLink", None)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"--listen: cannot listen on {address}"):
            run_command.run(options(federation, plan_file, tmp_path / "run", listen=address))
    check_free(address, "--listen")
    with pytest.raises(UsageError, match="cannot listen on"):
        check_free(Address("192.0.2.1", 1), "--listen")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"clients": 3}, "--clients: 3 owners cannot come, since 2 are admitted"),
        ({"status": Address("0.0.0.0", 0)}, "--status: 0.0.0.0:0 can be reached from other machines"),
        ({"resume": True}, "there is no run to go on with"),
    ],
)
def test_options_that_do_not_fit(
    federation: FederationFolder, plan_file: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(TestudoError) as caught:
        run_command.run(options(federation, plan_file, tmp_path / "run", **more))
    assert words in str(caught.value)
    assert not (federation.superlink / "state.db").exists()


def test_a_folder_that_is_no_federations_is_not_made(plan_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="testudo-server init"):
        run_command.run(options(FederationFolder(tmp_path / "typo"), plan_file, tmp_path / "run"))
    assert not (tmp_path / "typo").exists()


def test_a_run_folder_that_cannot_be_written(federation: FederationFolder, plan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        run_command.run(options(federation, plan_file, tmp_path / "run"))


def test_without_members_nothing_begins(plan_file: Path, tmp_path: Path) -> None:
    folder = founded(tmp_path / "federation")
    with pytest.raises(TestudoError):
        look_at(plan_file, folder, tmp_path / "run", resume=False)
