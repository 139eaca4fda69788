"""Fetching roster and plan: nothing that the pinned key did not sign or that leaves the owner out, and no approval."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fake_door import FakeDoor, fake_door
from helpers import OWNERS_TABLE, make_plan
from provisioned import provisioned_federation
from testudo_client.cli import app
from testudo_client.deployment.door import PLAN_PATH, ROSTER_PATH
from testudo_client.deployment.fetch import MAX_PLAN_BYTES, PROPOSED, fetch
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.errors import PlanError, RosterError, UsageError
from testudo_common.key_files import read_key, read_public
from testudo_common.plan.load import dump_plan
from testudo_common.roster import Roster, read_roster, sign_roster
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.roster import FEDERATION_KEY, ROSTER

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, Path]:
    federation, owners = provisioned_federation(tmp_path_factory.mktemp("fetch"), ["shop-1", "shop-2"])
    return federation, owners["shop-1"]


@pytest.fixture
def door(made: tuple[FederationFolder, Path]) -> Iterator[FakeDoor]:
    federation, owner = made
    whole = (federation.folder / ROSTER).read_bytes()
    OwnerHome(owner).roster_file.write_bytes(whole)
    (owner / PROPOSED).unlink(missing_ok=True)
    with fake_door(federation.server_certificate, federation.server_key, federation.ca_certificate) as found:
        server = ConnectionFiles(owner).server
        server.write_text(json.dumps({**json.loads(server.read_text()), "port": found.port}))
        found.files[ROSTER_PATH] = whole
        found.files[PLAN_PATH] = dump_plan(make_plan(tables=OWNERS_TABLE)).encode()
        yield found


def signed(made: tuple[FederationFolder, Path], **members: bytes | None) -> bytes:
    """The federation's roster with members changed; None takes one off."""
    federation, owner = made
    home = OwnerHome(owner)
    before = read_roster((federation.folder / ROSTER).read_bytes(), read_public(home.federation_key_file), source="")
    found = {**before.members, **{name.replace("_", "-"): key for name, key in members.items()}}
    kept = {name: key for name, key in found.items() if key is not None}
    return sign_roster(Roster(before.federation, kept, before.log), read_key(federation.folder / FEDERATION_KEY))


def test_roster_and_plan(made: tuple[FederationFolder, Path], door: FakeDoor) -> None:
    owner = made[1]
    door.files[ROSTER_PATH] = signed(made, shop_3=b"3" * 32)
    fetched = fetch(owner)
    assert (fetched.members, fetched.joined, fetched.vanished, fetched.changed) == (3, ("shop-3",), (), ())
    assert fetched.plan == owner / PROPOSED and fetched.plan_digest == make_plan(tables=OWNERS_TABLE).digest
    assert OwnerHome(owner).roster_file.read_bytes() == door.files[ROSTER_PATH]
    assert not OwnerHome(owner).approved.exists(), "fetched is not approved"
    assert set(door.asked) == {ROSTER_PATH, PLAN_PATH}


def test_members_that_vanish_or_change_are_named(made: tuple[FederationFolder, Path], door: FakeDoor) -> None:
    door.files[ROSTER_PATH] = signed(made, shop_2=b"x" * 32)
    assert fetch(made[1]).changed == ("shop-2",)
    door.files[ROSTER_PATH] = signed(made, shop_2=None)
    result = CliRunner().invoke(app, ["fetch", str(made[1])])
    assert result.exit_code == 0 and "not on it any more: shop-2" in result.output and "Warning" in result.output
    assert "testudo-client preview" in result.output and "approve" in result.output


def test_no_run_is_on(made: tuple[FederationFolder, Path], door: FakeDoor) -> None:
    del door.files[PLAN_PATH]
    assert fetch(made[1]).plan is None and not (made[1] / PROPOSED).exists()
    result = CliRunner().invoke(app, ["fetch", str(made[1]), "--json"])
    assert json.loads(result.stdout)["plan"] is None


@pytest.mark.parametrize("fault", ["not signed", "without us", "our name with another key", "no roster"])
def test_a_roster_that_is_refused_leaves_the_old_one(
    made: tuple[FederationFolder, Path], door: FakeDoor, fault: str
) -> None:
    home = OwnerHome(made[1])
    before = home.roster_file.read_bytes()
    match fault:
        case "not signed":
            forged = json.loads(door.files[ROSTER_PATH])
            forged["members"]["shop-9"] = "09" * 32
            door.files[ROSTER_PATH] = json.dumps(forged).encode()
        case "without us":
            door.files[ROSTER_PATH] = signed(made, shop_1=None)
        case "our name with another key":
            door.files[ROSTER_PATH] = signed(made, shop_1=b"x" * 32)
        case _:
            door.files[ROSTER_PATH] = b"{}"
    with pytest.raises(RosterError):
        fetch(home.folder)
    assert home.roster_file.read_bytes() == before and not (home.folder / PROPOSED).exists()


def test_a_plan_that_is_none_or_too_long(made: tuple[FederationFolder, Path], door: FakeDoor) -> None:
    door.files[PLAN_PATH] = b"name = 5\n"
    with pytest.raises(PlanError):
        fetch(made[1])
    door.files[PLAN_PATH] = b"#" * (MAX_PLAN_BYTES + 1)
    with pytest.raises(UsageError, match="more than 1048576 bytes"):
        fetch(made[1])


def test_refused_at_the_door(made: tuple[FederationFolder, Path], door: FakeDoor) -> None:
    door.status = 403
    with pytest.raises(UsageError, match="does not let you in"):
        fetch(made[1])


def test_nobody_there(made: tuple[FederationFolder, Path]) -> None:
    server = ConnectionFiles(made[1]).server
    server.write_text(json.dumps({**json.loads(server.read_text()), "port": 1}))
    with pytest.raises(UsageError, match="not running now"):
        fetch(made[1])
