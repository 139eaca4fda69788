"""The owner's side of joining: what an invitation makes, which answers are installed, what only a person can see."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forged import NOON, files_under, new_keys, request_for, signed_again, without_signing
from provisioned import founded, joined, provisioned_federation
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_client.membership import read_membership
from testudo_client.provisioning.connection import ConnectionFiles, read_connection
from testudo_client.provisioning.installing import examine, install
from testudo_client.provisioning.joining import Joined, accepted, join
from testudo_client.provisioning.renewal import renew
from testudo_common.errors import KeyFileError, PolicyError, ProvisionError, ProvisionFault, UsageError
from testudo_common.key_files import public_hex, read_key
from testudo_common.provisioning.certificates import (
    Authority,
    certificate_pem,
    client_certificate,
    new_authority,
    public_bytes,
    read_certificate,
)
from testudo_common.provisioning.documents import Answer
from testudo_common.provisioning.fingerprint import compare
from testudo_common.provisioning.tls_keys import read_tls_key
from testudo_common.roster import Roster, sign_roster
from testudo_server.provisioning import admission
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.provisioning.foundation import authority_in
from testudo_server.provisioning.invites import invite
from testudo_server.roster import FEDERATION_KEY, ROSTER

DAY = timedelta(days=1)


class Scene:
    """An operator, and an owner that joined and waits for its answer."""

    def __init__(self, folder: Path) -> None:
        self.federation = FederationFolder(folder / "federation")
        self.home = OwnerHome(folder / "owner")
        self.files = ConnectionFiles(self.home.folder)
        self.federation_key = read_key(self.federation.folder / FEDERATION_KEY)

    def admitted(self) -> Answer:
        return self.answered(self.files.request.read_bytes())

    def answered(self, data: bytes) -> Answer:
        return admission.answer(self.federation, admission.examine(self.federation, data, NOON, source="it"), NOON)

    def installed(self, made: Answer) -> None:
        install(self.home, examine(self.home, made.to_bytes(), NOON, source="answer.json"))

    def refused(self, data: bytes) -> ProvisionFault:
        """Refused before anything is written."""
        before = files_under(self.home.folder)
        with pytest.raises(ProvisionError) as caught:
            examine(self.home, data, NOON, source="answer.json")
        assert files_under(self.home.folder) == before
        return caught.value.fault


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    federation = founded(folder / "federation", now=NOON)
    join(invite(federation, "shop-1", now=NOON).to_bytes(), InitRequest(folder / "owner", ""), NOON, source="it")
    return folder


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    return Scene(Path(shutil.copytree(template, tmp_path / "scene", symlinks=True)))


def joined_again(scene: Scene, *, folder: Path | None = None, client: str = "shop-1", **policy: Any) -> Joined:
    data = invite(scene.federation, client, now=NOON).to_bytes()
    return join(data, InitRequest(folder or scene.home.folder, "", **policy), NOON, source="invite.json")


def test_an_owner_from_nothing_to_a_connection(scene: Scene) -> None:
    scene.installed(scene.admitted())
    connection = read_connection(scene.home.folder)
    assert (connection.federation, connection.address) == ("shops", "localhost:9092")
    assert read_membership(scene.home.folder).client_id == "shop-1"
    certificate = read_certificate(scene.files.client_certificate.read_text(), source="")
    assert certificate.public_key() == read_tls_key(scene.files.client_key).public_key()
    pinned = scene.home.federation_key_file.read_text().strip()
    assert scene.home.policy().pins.federation_key == (pinned,)
    assert scene.files.ca_certificate.read_bytes() == scene.federation.ca_certificate.read_bytes()


def test_everything_is_its_owners_alone(scene: Scene) -> None:
    scene.installed(scene.admitted())
    scene.installed(scene.answered(renew(scene.home).to_bytes()))
    for root in (scene.home.folder, scene.federation.folder):
        for path in root.rglob("*"):
            wanted = 0o700 if path.is_dir() else 0o600
            assert path.stat().st_mode & 0o777 == wanted, path


def test_private_keys_are_in_no_document(scene: Scene) -> None:
    made = scene.admitted()
    secrets = [path.read_text().splitlines()[1] for path in (scene.home.identity_file, scene.files.client_key)]
    secrets += scene.files.node_key.read_text().splitlines()[2:-1]
    sent = "".join((scene.files.invitation.read_text(), scene.files.request.read_text(), made.model_dump_json()))
    assert len(secrets) > 4
    assert not [secret for secret in secrets if secret in sent]
    assert "PRIVATE" not in sent


def test_joined_twice_is_the_same_request(scene: Scene) -> None:
    before = files_under(scene.home.folder)
    again = joined_again(scene)
    assert again.request.to_bytes() == scene.files.request.read_bytes()
    assert files_under(scene.home.folder) == before
    scene.installed(scene.admitted())
    before = files_under(scene.home.folder)
    scene.installed(scene.admitted())
    assert files_under(scene.home.folder) == before
    assert examine(scene.home, scene.admitted().to_bytes(), NOON, source="it").installed


def test_another_invitation_gets_another_nonce_and_the_same_keys(scene: Scene) -> None:
    """The nonce is what a forger cannot foresee, so it is new for each invitation."""
    first = accepted(scene.files)[1]
    later = invite(scene.federation, "shop-1", now=NOON + 20 * DAY)
    second = join(later.to_bytes(), InitRequest(scene.home.folder, ""), NOON + 20 * DAY, source="it").request
    assert second.nonce != first.nonce
    assert (second.roster_key, second.node_key) == (first.roster_key, first.node_key)


def test_invitation_that_ended_or_was_altered(scene: Scene, tmp_path: Path) -> None:
    invitation = accepted(scene.files)[0]
    wanted = InitRequest(tmp_path / "new", "")
    for data, after, fault in (
        (invitation.to_bytes(), 14 * DAY, ProvisionFault.EXPIRED),
        (without_signing(invitation, host="evil.example"), 0 * DAY, ProvisionFault.SIGNATURE),
        (without_signing(invitation, ca="other"), 0 * DAY, ProvisionFault.SIGNATURE),
        (signed_again(invitation, scene.federation_key, ca="other").to_bytes(), 0 * DAY, ProvisionFault.FORMAT),
    ):
        with pytest.raises(ProvisionError) as caught:
            join(data, wanted, NOON + after, source="invite.json")
        assert caught.value.fault is fault
    assert not wanted.folder.exists()


def test_invitation_of_another_federation(scene: Scene, tmp_path: Path) -> None:
    elsewhere = founded(tmp_path / "elsewhere", now=NOON)
    before = files_under(scene.home.folder)
    with pytest.raises(ProvisionError) as caught:
        join(invite(elsewhere, "shop-1", now=NOON).to_bytes(), InitRequest(scene.home.folder, ""), NOON, source="it")
    assert caught.value.fault is ProvisionFault.FEDERATION
    assert files_under(scene.home.folder) == before


def test_a_folder_that_is_there_is_used(scene: Scene, tmp_path: Path) -> None:
    made = make_home(InitRequest(tmp_path / "own", "shop-2", no_privacy=True))
    there = joined_again(scene, folder=tmp_path / "own", client="shop-2")
    assert there.request.roster_key == made["public_key"]
    assert there.missing_pin == f'federation_key = ["{there.invitation.federation_key}"]'
    policy = tmp_path / "own" / "policy.toml"
    assert there.missing_pin not in policy.read_text()  # it is the owner's own file
    policy.write_text(policy.read_text().replace("federation_key = []", there.missing_pin))
    assert joined_again(scene, folder=tmp_path / "own", client="shop-2").missing_pin == ""
    with pytest.raises(ProvisionError) as caught:
        joined_again(scene, folder=tmp_path / "own", client="shop-3")
    assert caught.value.fault is ProvisionFault.CLIENT


def test_the_policy_is_as_it_was_asked_for(scene: Scene, tmp_path: Path) -> None:
    joined_again(scene, folder=tmp_path / "own", client="shop-2", max_participations=7, min_cohort=33)
    policy = OwnerHome(tmp_path / "own").policy()
    assert (policy.aggregation.max_participations, policy.aggregation.min_cohort) == (7, 33)
    with pytest.raises(PolicyError):
        joined_again(scene, folder=tmp_path / "other", client="shop-3", min_cohort=1)
    assert not (tmp_path / "other" / "policy.toml").exists()


def test_keys_that_others_may_read_are_not_used(scene: Scene) -> None:
    for path in (scene.files.node_key, scene.files.client_key, scene.home.identity_file):
        path.chmod(0o640)
        with pytest.raises(KeyFileError, match="others may read"):
            joined_again(scene)
        path.chmod(0o600)
    scene.files.node_key.write_bytes(scene.files.client_key.read_bytes())
    with pytest.raises(KeyFileError):
        joined_again(scene)


def test_answer_without_an_invitation(scene: Scene, tmp_path: Path) -> None:
    make_home(InitRequest(tmp_path / "own", "shop-1"))
    with pytest.raises(UsageError, match="testudo-client join"):
        examine(OwnerHome(tmp_path / "own"), scene.admitted().to_bytes(), NOON, source="it")
    with pytest.raises(UsageError, match="testudo-client join"):
        renew(OwnerHome(tmp_path / "own"))


def test_answer_for_another_client(scene: Scene, tmp_path: Path) -> None:
    joined_again(scene, folder=tmp_path / "own", client="shop-2")
    other = Scene(scene.home.folder.parent)
    other.files = ConnectionFiles(tmp_path / "own")
    assert scene.refused(other.admitted().to_bytes()) is ProvisionFault.CLIENT


def test_answer_of_another_federation(scene: Scene, tmp_path: Path) -> None:
    """By the same name, to a request of the same client: another key."""
    elsewhere = founded(tmp_path / "elsewhere", now=NOON)
    joined(elsewhere, "shop-1", tmp_path / "own", NOON)
    (path,) = elsewhere.answers.iterdir()
    assert scene.refused(path.read_bytes()) is ProvisionFault.FEDERATION


def test_answer_signed_by_another_key(scene: Scene) -> None:
    forged = signed_again(scene.admitted(), Ed25519PrivateKey.generate())
    assert scene.refused(forged.to_bytes()) is ProvisionFault.SIGNATURE


@pytest.mark.parametrize("field", ["host", "port", "request", "certificate", "ca", "roster", "client", "federation"])
def test_answer_with_an_altered_field(scene: Scene, field: str) -> None:
    altered = without_signing(scene.admitted(), **{field: {"port": 1, "request": "f" * 64}.get(field, "other")})
    assert scene.refused(altered) is ProvisionFault.SIGNATURE


def _other_tls_key(scene: Scene) -> dict[str, Any]:
    made = client_certificate(authority_in(scene.federation), new_keys().tls.public_key(), "shop-1", NOON)
    return {"certificate": certificate_pem(made)}


def _other_name_in_certificate(scene: Scene) -> dict[str, Any]:
    key = read_tls_key(scene.files.client_key).public_key()
    return {"certificate": certificate_pem(client_certificate(authority_in(scene.federation), key, "shop-2", NOON))}


def _other_ca(scene: Scene, **answered: Any) -> dict[str, Any]:
    other = new_authority("shops", ec.generate_private_key(ec.SECP256R1()), NOON)
    key = read_tls_key(scene.files.client_key).public_key()
    return {"certificate": certificate_pem(client_certificate(other, key, "shop-1", NOON)), **answered}


def _other_ca_named(scene: Scene) -> dict[str, Any]:
    other = new_authority("shops", ec.generate_private_key(ec.SECP256R1()), NOON)
    key = read_tls_key(scene.files.client_key).public_key()
    return {
        "certificate": certificate_pem(client_certificate(other, key, "shop-1", NOON)),
        "ca": certificate_pem(other.certificate),
    }


def _certificate_that_ended(scene: Scene) -> dict[str, Any]:
    key = read_tls_key(scene.files.client_key).public_key()
    past = authority_in(scene.federation)
    return {"certificate": certificate_pem(client_certificate(past, key, "shop-1", NOON - 400 * DAY))}


def _certificate_by_a_member(scene: Scene) -> dict[str, Any]:
    """A member's own certificate signs nothing: its key is no CA's."""
    member = new_keys().tls
    own = client_certificate(authority_in(scene.federation), member.public_key(), "shop-2", NOON)
    made = client_certificate(Authority(own, member), read_tls_key(scene.files.client_key).public_key(), "shop-1", NOON)
    return {"certificate": certificate_pem(made)}


def _roster_without_me(scene: Scene) -> dict[str, Any]:
    return {"roster": sign_roster(Roster("shops", {}), scene.federation_key).decode()}


def _roster_with_another_key_for_me(scene: Scene) -> dict[str, Any]:
    other = new_keys().roster.public_key().public_bytes_raw()
    return {"roster": sign_roster(Roster("shops", {"shop-1": other}), scene.federation_key).decode()}


def _only_another_ca(scene: Scene) -> dict[str, Any]:
    """The certificate is right; the CA would be taken for the server's too."""
    return {"ca": certificate_pem(new_authority("shops", ec.generate_private_key(ec.SECP256R1()), NOON).certificate)}


def _another_federation_by_name(scene: Scene) -> dict[str, Any]:
    return {"federation": "banks"}


def _only_another_name(scene: Scene) -> dict[str, Any]:
    return {"client": "shop-2"}


def _another_request(scene: Scene) -> dict[str, Any]:
    return {"request": "f" * 64}


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (_other_tls_key, ProvisionFault.KEY),
        (_other_name_in_certificate, ProvisionFault.CLIENT),
        (_other_ca, ProvisionFault.CHAIN),
        (_other_ca_named, ProvisionFault.CHAIN),
        (_only_another_ca, ProvisionFault.CHAIN),
        (_another_federation_by_name, ProvisionFault.CLIENT),
        (_only_another_name, ProvisionFault.CLIENT),
        (_certificate_that_ended, ProvisionFault.CHAIN),
        (_certificate_by_a_member, ProvisionFault.CHAIN),
        (_roster_without_me, ProvisionFault.KEY),
        (_roster_with_another_key_for_me, ProvisionFault.KEY),
        (_another_request, ProvisionFault.UNKNOWN),
    ],
)
def test_answer_that_the_federation_signed_and_that_does_not_fit(
    scene: Scene, lie: Callable[[Scene], dict[str, Any]], fault: ProvisionFault
) -> None:
    """An operator's mistake, or a stolen federation key: the owner looks for itself."""
    assert scene.refused(signed_again(scene.admitted(), scene.federation_key, **lie(scene)).to_bytes()) is fault


def test_an_earlier_answer_does_not_take_a_newer_roster_away(scene: Scene) -> None:
    made = scene.admitted()
    scene.installed(made)
    admission_of_another = joined_again(scene, folder=scene.home.folder.parent / "second", client="shop-2")
    scene.answered(admission_of_another.request.to_bytes())
    newer = (scene.federation.folder / ROSTER).read_bytes()
    scene.home.roster_file.write_bytes(newer)  # as testudo-client fetch does
    scene.installed(made)
    assert scene.home.roster_file.read_bytes() == newer
    scene.home.roster_file.write_bytes(b"{}")
    scene.installed(made)
    assert scene.home.roster_file.read_bytes() == made.roster.encode()


def test_a_renewal_brings_the_newest_roster(scene: Scene) -> None:
    scene.installed(scene.admitted())
    second = joined_again(scene, folder=scene.home.folder.parent / "second", client="shop-2")
    scene.answered(second.request.to_bytes())
    scene.installed(scene.answered(renew(scene.home).to_bytes()))
    assert set(read_membership(scene.home.folder).roster.members) == {"shop-1", "shop-2"}


def test_a_certificate_is_renewed(scene: Scene) -> None:
    scene.installed(scene.admitted())
    old = scene.files.client_key.read_bytes()
    request = renew(scene.home)
    assert renew(scene.home) == request
    assert scene.files.client_key.read_bytes() == old  # until the answer is there
    made = scene.answered(request.to_bytes())
    found = examine(scene.home, made.to_bytes(), NOON, source="it")
    assert (found.fingerprint, found.installed, found.next_pair) == ("", False, True)
    install(scene.home, found)
    assert scene.files.client_key.read_bytes() != old
    certificate = read_certificate(scene.files.client_certificate.read_text(), source="")
    assert certificate.public_key() == read_tls_key(scene.files.client_key).public_key()
    assert examine(scene.home, made.to_bytes(), NOON, source="it").installed
    later = renew(scene.home)
    assert later.csr != request.csr
    scene.installed(scene.answered(later.to_bytes()))
    assert str(scene.files.tls.readlink()) == "tls-3"


def test_an_answer_that_was_renewed_since(scene: Scene) -> None:
    first = scene.admitted()
    scene.installed(first)
    scene.installed(scene.answered(renew(scene.home).to_bytes()))
    assert scene.refused(first.to_bytes()) is ProvisionFault.KEY


def test_a_link_that_is_none(scene: Scene) -> None:
    scene.installed(scene.admitted())
    scene.files.tls.unlink()
    (scene.files.folder / "tls-1").rename(scene.files.tls)
    with pytest.raises(UsageError, match="not the link"):
        renew(scene.home)


def replaced_invitation(scene: Scene, folder: Path) -> tuple[FederationFolder, Joined]:
    """A forger hands an owner an invitation of its own federation, by the same name, client and address."""
    forger = founded(folder / "forger", now=NOON)
    invitation = invite(forger, "shop-2", now=NOON)
    return forger, join(invitation.to_bytes(), InitRequest(folder / "owner", ""), NOON, source="invite.json")


def test_somebody_in_the_middle_replaces_both_directions(scene: Scene, tmp_path: Path) -> None:
    """Every signature is right, on both sides, and everything would be installed: the fingerprints differ."""
    _, owner = replaced_invitation(scene, tmp_path)
    true = invite(scene.federation, "shop-2", now=NOON)
    forged = request_for(true, new_keys(), nonce=owner.request.nonce)
    operator = admission.examine(scene.federation, forged.to_bytes(), NOON, source="it")
    admission.answer(scene.federation, operator, NOON)  # had nobody compared
    assert operator.fingerprint != owner.fingerprint
    with pytest.raises(ProvisionError) as caught:
        compare(owner.fingerprint, operator.fingerprint)
    assert caught.value.fault is ProvisionFault.FINGERPRINT


def test_the_forgers_answer_is_installed_where_nobody_compares(scene: Scene, tmp_path: Path) -> None:
    forger, owner = replaced_invitation(scene, tmp_path)
    made = admission.answer(forger, admission.examine(forger, owner.request.to_bytes(), NOON, source="it"), NOON)
    home = OwnerHome(tmp_path / "owner")
    found = examine(home, made.to_bytes(), NOON, source="it")
    assert found.fingerprint == owner.fingerprint  # which the operator does not read
    install(home, found)
    assert read_membership(home.folder).federation_key != scene.federation_key.public_key().public_bytes_raw()


def test_somebody_replaces_the_invitation_alone(scene: Scene, tmp_path: Path) -> None:
    """And sends the owner's own request on: it is bound to the invitation that the owner saw."""
    _, owner = replaced_invitation(scene, tmp_path)
    with pytest.raises(ProvisionError) as caught:
        admission.examine(scene.federation, owner.request.to_bytes(), NOON, source="it")
    assert caught.value.fault is ProvisionFault.UNKNOWN


def test_somebody_replaces_the_request_alone(scene: Scene) -> None:
    invitation, request = accepted(scene.files)
    keys = replace(new_keys(), tls=read_tls_key(scene.files.client_key))
    forged = request_for(invitation, keys, nonce=request.nonce)
    operator = admission.examine(scene.federation, forged.to_bytes(), NOON, source="it")
    made = admission.answer(scene.federation, operator, NOON)
    own = joined_again_fingerprint(scene)
    assert operator.fingerprint != own
    assert scene.refused(made.to_bytes()) is ProvisionFault.KEY  # and the roster holds the forger's key


def joined_again_fingerprint(scene: Scene) -> str:
    data = scene.files.invitation.read_bytes()
    return join(data, InitRequest(scene.home.folder, ""), NOON, source="it").fingerprint


def test_a_whole_federation_for_tests(tmp_path: Path) -> None:
    federation, owners = provisioned_federation(tmp_path, ("a", "b"), port=9999, now=NOON, max_participations=3)
    assert [member.client for member in federation.members()] == ["a", "b"]
    for client, folder in owners.items():
        membership = read_membership(folder)
        assert membership.client_id == client
        assert set(membership.roster.members) == {"a", "b"}
        assert read_connection(folder).port == 9999
        assert OwnerHome(folder).policy().aggregation.max_participations == 3
    keys = {public_bytes(read_tls_key(ConnectionFiles(folder).client_key).public_key()) for folder in owners.values()}
    assert len(keys) == 2
    assert public_hex(OwnerHome(owners["a"]).key()) != public_hex(OwnerHome(owners["b"]).key())
