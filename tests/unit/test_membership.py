"""A data owner's folder: its key, the pinned federation, and a roster that only counts when that federation signed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from helpers import gate_of
from secure_federation import secure_plan
from testudo_client.membership import FEDERATION_KEY_FILE, IDENTITY_FILE, ROSTER_FILE, Membership, read_membership
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.errors import KeyFileError, RosterError, UsageError
from testudo_common.key_files import create_key, public_hex
from testudo_common.learning.tasks import Examples
from testudo_common.roster import Roster
from testudo_common.secagg.primitives import verification_key
from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit


def join(server: Path, owner: Path, client: str, *, federation: str = "shops") -> Path:
    """As people do it: a key at the owner's, its public half to the federation, two files back."""
    key = create_key(owner / IDENTITY_FILE)
    admit(server, federation, {client: public_hex(key)})
    collect(server, owner)
    return owner


def collect(server: Path, owner: Path) -> None:
    (owner / FEDERATION_KEY_FILE).write_bytes((server / FEDERATION_PUBLIC).read_bytes())
    (owner / ROSTER_FILE).write_bytes((server / ROSTER).read_bytes())


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    """Ada's folder, in a federation with Bob."""
    join(tmp_path / "server", tmp_path / "bob", "bob")
    return join(tmp_path / "server", tmp_path / "ada", "ada")


def test_member_of_a_federation(ada: Path) -> None:
    membership = read_membership(ada)
    assert membership.roster.federation == "shops"
    assert sorted(membership.roster.members) == ["ada", "bob"]
    identity = membership.identity_of("ada")
    assert identity.client_id == "ada"
    assert verification_key(identity.signing_key) == membership.roster.members["ada"]
    assert (ada / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
    assert ada.stat().st_mode & 0o777 == 0o700


def test_private_key_is_never_shown(ada: Path) -> None:
    membership = read_membership(ada)
    secret = membership.key.private_bytes_raw()
    with pytest.raises(RosterError) as caught:
        membership.identity_of("bob")
    shown = f"{membership!r}{membership}{membership.identity_of('ada')!r}{caught.value}{caught.value!r}"
    assert secret.hex() not in shown
    assert repr(secret) not in shown
    pem = (ada / IDENTITY_FILE).read_text().splitlines()[1]
    assert pem not in shown
    assert "signing_key" not in shown
    assert "PrivateKey" not in shown


@pytest.mark.parametrize(
    ("client", "problem"),
    [("bob", "the roster of 'shops' holds another key for 'bob'"), ("eve", "the roster of 'shops' holds no 'eve'")],
)
def test_somebody_else(ada: Path, client: str, problem: str) -> None:
    with pytest.raises(RosterError, match=problem) as caught:
        read_membership(ada).identity_of(client)
    assert "identity.pem" in caught.value.remedy


@pytest.mark.parametrize("missing", [IDENTITY_FILE, FEDERATION_KEY_FILE, ROSTER_FILE])
def test_missing_file_is_named(ada: Path, missing: str) -> None:
    (ada / missing).unlink()
    with pytest.raises((KeyFileError, RosterError), match="cannot be read") as caught:
        read_membership(ada)
    assert caught.value.where == str(ada / missing)
    assert caught.value.remedy


def test_key_that_others_may_read(ada: Path) -> None:
    (ada / IDENTITY_FILE).chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read this key") as caught:
        read_membership(ada)
    assert caught.value.where == str(ada / IDENTITY_FILE)


def test_roster_of_another_federation(tmp_path: Path, ada: Path) -> None:
    """A server that makes a federation of its own, of the same name and with the same members, is not believed."""
    key = public_hex(read_membership(ada).key)
    admit(tmp_path / "forged", "shops", {"ada": key})
    (ada / ROSTER_FILE).write_bytes((tmp_path / "forged" / ROSTER).read_bytes())
    with pytest.raises(RosterError, match="not signed with the federation's key") as caught:
        read_membership(ada)
    assert caught.value.where == str(ada / ROSTER_FILE)
    assert "compare the federation's key" in caught.value.remedy
    (ada / FEDERATION_KEY_FILE).write_bytes((tmp_path / "forged" / FEDERATION_PUBLIC).read_bytes())
    assert read_membership(ada).identity_of("ada").client_id == "ada", "the pinned key was the reason"


def test_new_members_are_known_once_the_new_roster_is_here(tmp_path: Path, ada: Path) -> None:
    before = read_membership(ada).roster.digest
    join(tmp_path / "server", tmp_path / "cyd", "cyd")
    assert read_membership(ada).roster.digest == before
    collect(tmp_path / "server", ada)
    assert sorted(read_membership(ada).roster.members) == ["ada", "bob", "cyd"]
    assert read_membership(ada).roster.digest != before


# --- what a participant makes of it


class Untouchable(Examples):
    def __getattribute__(self, name: str) -> object:
        if name in {"inputs", "targets"}:
            raise AssertionError("data was touched")
        return super().__getattribute__(name)


def participant(membership: Membership | None, client: str = "ada") -> Participant:
    examples = object.__new__(Untouchable)
    plan, store = secure_plan(), ClientStore(None)
    return Participant(client, plan, examples, store, gate_of(plan, store), membership=membership)


def test_nobody_takes_part_without_a_key() -> None:
    with pytest.raises(UsageError, match="no key and no roster") as caught:
        participant(None)
    assert caught.value.where == "ada"
    assert "testudo-client init" in caught.value.remedy


def test_nobody_takes_part_under_anothers_name(ada: Path) -> None:
    membership = read_membership(ada)
    assert participant(membership).client_id == "ada"
    for client in ("bob", "eve"):
        with pytest.raises(RosterError):
            participant(membership, client)


def test_membership_without_its_holder(ada: Path) -> None:
    membership = read_membership(ada)
    with pytest.raises(RosterError, match="holds no 'ada'"):
        participant(dataclasses.replace(membership, roster=Roster("shops", {})))
