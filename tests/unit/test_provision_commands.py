"""The commands of joining, as typed: from nothing to three connected owners, twice, as JSON, and wrongly."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import testudo_client.cli
import testudo_client.provisioning.cli as owner_commands
import testudo_server.cli
import testudo_server.provisioning.cli as operator_commands
from forged import NOON, files_under
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_client.membership import read_membership
from testudo_client.provisioning.connection import ConnectionFiles, read_connection
from testudo_common.errors import ProvisionError, ProvisionFault, TestudoError, UsageError
from testudo_server.provisioning.folder import FederationFolder

OWNERS = ("shop-1", "店 2/../x", "shop-3")
INIT = ("init", "fed", "--federation", "shops", "--host", "fl.example.org", "--host", "10.0.0.5")


class Clock:
    """What both sides' clocks say."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.chdir(tmp_path)
    for commands in (owner_commands, operator_commands):
        monkeypatch.setattr(commands, "_now", made)
    return made


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for commands in (owner_commands, operator_commands):
        monkeypatch.setattr(commands, "at_a_terminal", lambda: True)


def run(program: Any, *arguments: object, answers: str | None = None) -> Result:
    """A command as typed; an error of ours is raised, as it is on its way to its one sentence."""
    result = CliRunner().invoke(program.app, [str(argument) for argument in arguments], input=answers)
    if isinstance(result.exception, TestudoError):
        raise result.exception
    assert result.exception is None, result.output
    return result


def server(*arguments: object, answers: str | None = None) -> str:
    return run(testudo_server.cli, *arguments, answers=answers).output


def client(*arguments: object, answers: str | None = None) -> str:
    return run(testudo_client.cli, *arguments, answers=answers).output


def answer_of(program: Any, *arguments: object) -> Any:
    return json.loads(run(program, *arguments, "--json").stdout)


def invited(name: str = "shop-1", folder: str = "own") -> str:
    """An owner that has joined; its fingerprint."""
    answer_of(testudo_server.cli, "invite", "fed", name, "--to", f"{folder}.invite")
    made = answer_of(testudo_client.cli, "join", f"{folder}.invite", folder, "--to", f"{folder}.request")
    return str(made["fingerprint"])


def connected(name: str = "shop-1", folder: str = "own") -> str:
    """An owner that has installed its answer; its fingerprint."""
    read = invited(name, folder)
    server("admit", "fed", f"{folder}.request", "--fingerprint", read, "--to", f"{folder}.answer")
    client("install", f"{folder}.answer", folder, "--fingerprint", read)
    return read


def test_from_nothing_to_three_owners(at_a_terminal: None) -> None:
    """People at terminals: each reads, compares, and says yes."""
    made = server(*INIT)
    assert "Federation's key: " in made
    assert "fl.example.org, 10.0.0.5, port 9092" in made
    for number, name in enumerate(OWNERS):
        folder = f"owner-{number}"
        server("invite", "fed", name, "--to", f"{number}.invite")
        shown = client("join", f"{number}.invite", folder, "--to", f"{number}.request")
        fingerprint = next(line for line in shown.splitlines() if line.startswith("Fingerprint: ")).split()[1]
        asked = server("admit", "fed", f"{number}.request", "--to", f"{number}.answer", answers="y\n")
        assert fingerprint in asked
        assert f"Does the owner of {name!r} read the same" in asked
        installed = client("install", f"{number}.answer", folder, answers="y\n")
        assert fingerprint in installed
        assert "fl.example.org:9092" in installed
        assert read_membership(Path(folder)).client_id == name
        assert read_connection(Path(folder)).host == "fl.example.org"
    shown = server("members", "fed")
    assert all(f"{name}  until 2027-07-17, 397 days" in shown for name in OWNERS)
    assert len(read_membership(Path("owner-2")).roster.members) == 3


def test_every_command_twice_changes_nothing(tmp_path: Path) -> None:
    server(*INIT)
    fingerprint = connected()
    answer_of(testudo_client.cli, "renew", "own", "--to", "own.renewal")
    before = files_under(tmp_path)
    assert "is there already; nothing was changed" in server(*INIT)
    assert (
        answer_of(testudo_client.cli, "join", "own.invite", "own", "--to", "own.request")["fingerprint"] == fingerprint
    )
    again = answer_of(testudo_server.cli, "admit", "fed", "own.request", "--to", "own.answer")
    assert again["answered_before"]
    assert answer_of(testudo_client.cli, "install", "own.answer", "own")["installed_before"]
    assert answer_of(testudo_client.cli, "renew", "own", "--to", "own.renewal")["request"] == "own.renewal"
    server("members", "fed")
    assert files_under(tmp_path) == before
    assert answer_of(testudo_server.cli, "revoke", "fed", "shop-1")["changed"]
    before = files_under(tmp_path)
    assert not answer_of(testudo_server.cli, "revoke", "fed", "shop-1")["changed"]
    assert files_under(tmp_path) == before


def test_a_waiting_invitation_is_the_same_one() -> None:
    server(*INIT)
    first = answer_of(testudo_server.cli, "invite", "fed", "shop-1")
    assert answer_of(testudo_server.cli, "invite", "fed", "shop-1", "--days", 3) == first
    assert Path(first["invitation"]).exists()
    waiting = answer_of(testudo_server.cli, "members", "fed")
    assert waiting["members"] == []
    assert [each["client"] for each in waiting["waiting"]] == ["shop-1"]
    assert "shop-1  invited, until 2026-06-29T12:00:00Z" in server("members", "fed")


def test_nobody_there_to_compare(tmp_path: Path) -> None:
    """A script without --fingerprint, and --json even at a terminal: refused, and nothing changed."""
    server(*INIT)
    read = invited()
    before = files_under(tmp_path)
    for more in ((), ("--json",)):
        with pytest.raises(ProvisionError) as caught:
            server("admit", "fed", "own.request", *more)
        assert caught.value.fault is ProvisionFault.UNCONFIRMED
    assert files_under(tmp_path) == before
    server("admit", "fed", "own.request", "--fingerprint", read, "--to", "own.answer")
    before = files_under(tmp_path)
    for more in ((), ("--json",)):
        with pytest.raises(ProvisionError) as caught:
            client("install", "own.answer", "own", *more)
        assert caught.value.fault is ProvisionFault.UNCONFIRMED
    assert files_under(tmp_path) == before


def test_json_asks_nobody_even_at_a_terminal(at_a_terminal: None) -> None:
    server(*INIT)
    read = invited()
    with pytest.raises(ProvisionError, match="nobody is there"):
        server("admit", "fed", "own.request", "--json", answers="y\n")
    server("admit", "fed", "own.request", "--fingerprint", read, "--to", "own.answer")
    with pytest.raises(ProvisionError, match="nobody is there"):
        client("install", "own.answer", "own", "--json", answers="y\n")


def test_a_person_says_no(at_a_terminal: None, tmp_path: Path) -> None:
    server(*INIT)
    read = invited()
    before = files_under(tmp_path)
    with pytest.raises(ProvisionError, match="nothing was changed"):
        server("admit", "fed", "own.request", answers="n\n")
    assert files_under(tmp_path) == before
    server("admit", "fed", "own.request", "--fingerprint", read, "--to", "own.answer")
    before = files_under(tmp_path)
    with pytest.raises(ProvisionError, match="nothing was changed"):
        client("install", "own.answer", "own", answers="\n")
    assert files_under(tmp_path) == before


def test_another_fingerprint_was_read_out(tmp_path: Path) -> None:
    server(*INIT)
    read, other = invited(), invited("shop-2", "other")
    before = files_under(tmp_path)
    for wrong in (other, read[:-1], read[:5]):
        with pytest.raises(ProvisionError) as caught:
            server("admit", "fed", "own.request", "--fingerprint", wrong)
        assert caught.value.fault is ProvisionFault.FINGERPRINT
    assert files_under(tmp_path) == before
    server("admit", "fed", "own.request", "--fingerprint", read.lower().replace("-", " "), "--to", "own.answer")
    with pytest.raises(ProvisionError) as caught:
        client("install", "own.answer", "own", "--fingerprint", other)
    assert caught.value.fault is ProvisionFault.FINGERPRINT
    assert not ConnectionFiles(Path("own")).server.exists()


def test_a_year_goes_by(clock: Clock) -> None:
    server(*INIT)
    connected()
    clock.now = NOON + timedelta(days=380)
    warnings = answer_of(testudo_server.cli, "members", "fed")["warnings"]
    assert any("the server's certificate runs out in 17 days" in each for each in warnings)
    assert any("'shop-1' runs out in 17 days" in each for each in warnings)
    assert "warning: your certificate runs out in 17 days" in client("install", "own.answer", "own")
    assert "a new server certificate" in server("renew", "fed")
    client("renew", "own", "--to", "own.renewal")
    assert "has a certificate now" in server("admit", "fed", "own.renewal", "--to", "own.renewed")
    assert "Installed" in client("install", "own.renewed", "own")
    assert answer_of(testudo_server.cli, "members", "fed")["warnings"] == []
    clock.now = NOON + timedelta(days=3640)
    assert answer_of(testudo_server.cli, "renew", "fed")["ca_until"] == "2036-06-15"
    assert "the federation's CA runs out in 13 days" in server("renew", "fed")


def test_a_member_is_revoked() -> None:
    server(*INIT)
    connected()
    assert "is revoked" in server("revoke", "fed", "shop-1")
    assert "was revoked before" in server("revoke", "fed", "shop-1")
    assert "shop-1  revoked" in server("members", "fed")
    with pytest.raises(UsageError, match="'shop-1'"):
        server("revoke", "fed", "shop-9")


def test_a_folder_of_ones_own() -> None:
    server(*INIT)
    make_home(InitRequest(Path("own"), "shop-1"))
    server("invite", "fed", "shop-1", "--to", "own.invite")
    shown = client("join", "own.invite", "own")
    assert "does not let this federation in yet" in shown
    key = answer_of(testudo_client.cli, "join", "own.invite", "own")["federation_key"]
    assert f'federation_key = ["{key}"]' in shown
    with pytest.raises(UsageError, match="delta, min_cohort"):
        client("join", "own.invite", "own", "--min-cohort", 20, "--delta", 1e-6)


def test_options_of_the_policy() -> None:
    server(*INIT)
    server("invite", "fed", "shop-1", "--to", "own.invite")
    client("join", "own.invite", "own", "--no-privacy", "--max-participations", 9, "--model", "linear", "--days", 30)
    policy = OwnerHome(Path("own")).policy()
    assert policy.aggregation.max_participations == 9
    assert policy.model.allowed == ("linear",)


def test_nothing_is_overwritten() -> None:
    server(*INIT)
    Path("taken").write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        server("invite", "fed", "shop-1", "--to", "taken")
    server("invite", "fed", "shop-1", "--to", "own.invite")
    with pytest.raises(UsageError, match="not overwritten"):
        client("join", "own.invite", "own", "--to", "taken")
    assert Path("taken").read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be written"):
        client("join", "own.invite", "own", "--to", "own")


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("init", "fed", "--federation", "banks", "--host", "a"), UsageError, "'shops'"),
        (("init", "fed", "--federation", "shops", "--host", "a"), UsageError, "testudo-server renew"),
        (("init", "new", "--federation", "a\nb", "--host", "a"), UsageError, "--federation"),
        (("init", "new", "--federation", "shops", "--host", "a b"), UsageError, "'a b'"),
        (("init", "new", "--federation", "shops", "--host", "a", "--log-key", "rsa"), UsageError, "ml-dsa-44"),
        (("invite", "fed", "a\nb"), UsageError, "printable"),
        (("invite", "new", "shop-1"), UsageError, "testudo-server init"),
        (("admit", "fed", "nowhere"), UsageError, "nowhere"),
        (("admit", "fed", "fed/federation.toml"), ProvisionError, "federation.toml"),
        (("members", "new"), UsageError, "testudo-server init"),
        (("renew", "new"), UsageError, "testudo-server init"),
    ],
)  # fmt: skip
def test_what_an_operator_can_do_wrong(words: tuple[str, ...], error: type[TestudoError], says: str) -> None:
    server(*INIT)
    before = files_under(Path())
    with pytest.raises(error, match=says):
        server(*words)
    assert files_under(Path()) == before
    assert FederationFolder(Path("fed")).members() == ()


@pytest.mark.parametrize("words", [("join", "nowhere", "own"), ("install", "nowhere", "own"), ("renew", "own")])
def test_what_an_owner_can_do_wrong(words: tuple[str, ...]) -> None:
    with pytest.raises(TestudoError) as caught:
        client(*words)
    assert caught.value.where
    assert caught.value.remedy
    assert files_under(Path()) == {}


@pytest.mark.parametrize(
    ("program", "name"),
    [
        *((testudo_server.cli, name) for name in ("init", "invite", "admit", "renew", "revoke", "members")),
        *((testudo_client.cli, name) for name in ("join", "install", "renew")),
    ],
)
def test_help_has_an_example(program: Any, name: str) -> None:
    shown = run(program, name, "--help").output
    assert f"Example: testudo-{'server' if program is testudo_server.cli else 'client'} {name} " in " ".join(
        shown.split()
    )
