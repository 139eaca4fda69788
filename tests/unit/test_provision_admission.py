"""The operator's side of joining: what is admitted, what is refused and why, and that nothing changes by a refusal."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from forged import NOON, OwnerKeys, files_under, new_keys, request_for, signed_again, without_signing
from provisioned import founded
from testudo_common.errors import KeyFileError, ProvisionError, ProvisionFault, RosterError, UsageError
from testudo_common.key_files import public_hex, read_key
from testudo_common.provisioning.certificates import client_in, key_in_csr, new_csr, node_key_text, read_certificate
from testudo_common.provisioning.documents import Answer, Invitation, JoinRequest, prove_renewal
from testudo_server.provisioning.admission import Examined, answer, examine
from testudo_server.provisioning.folder import FederationFolder, FederationSettings, Member, file_name_of
from testudo_server.provisioning.foundation import found, foundation_in, renew, warnings_of
from testudo_server.provisioning.invites import invite, waiting_invitations
from testudo_server.provisioning.members import revoke, standings
from testudo_server.roster import FEDERATION_KEY, admit, keys_in, roster_in

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return founded(tmp_path_factory.mktemp("provision") / "federation", now=NOON).folder


@pytest.fixture
def federation(template: Path, tmp_path: Path) -> FederationFolder:
    return FederationFolder(Path(shutil.copytree(template, tmp_path / "federation")))


@pytest.fixture
def invitation(federation: FederationFolder) -> Invitation:
    return invite(federation, "shop-1", now=NOON)


OWNER, OTHER = new_keys(), new_keys()


def examined(federation: FederationFolder, data: bytes, after: timedelta = timedelta()) -> Examined:
    return examine(federation, data, NOON + after, source="request.json")


def admitted(federation: FederationFolder, request: Any, after: timedelta = timedelta()) -> Answer:
    return answer(federation, examined(federation, request.to_bytes(), after), NOON + after)


def renewal_for(keys: OwnerKeys, tls: ec.EllipticCurvePrivateKey, **instead: Any) -> Any:
    fields = {"federation": "shops", "client": "shop-1", "nonce": "0" * 32, "csr": new_csr(tls)}
    return prove_renewal(keys.roster, **{**fields, **instead})


def refused(federation: FederationFolder, data: bytes, after: timedelta = timedelta()) -> ProvisionFault:
    """Refused before anything is written."""
    before = files_under(federation.folder)
    with pytest.raises(ProvisionError) as caught:
        examined(federation, data, after)
    assert files_under(federation.folder) == before
    assert caught.value.remedy
    return caught.value.fault


def test_an_owner_is_admitted(federation: FederationFolder, invitation: Invitation) -> None:
    request = request_for(invitation, OWNER)
    assert not examined(federation, request.to_bytes()).answered
    made = admitted(federation, request)
    made.verify(invitation.federation_key, source="answer")
    certificate = read_certificate(made.certificate, source="answer")
    assert client_in(certificate) == made.client == "shop-1"
    assert certificate.public_key() == OWNER.tls.public_key()
    assert (made.host, made.port, made.ca) == ("localhost", 9092, invitation.ca)
    assert roster_in(federation.folder).members == {"shop-1": OWNER.roster.public_key().public_bytes_raw()}
    assert keys_in(federation.folder).signed_roster.decode() == made.roster
    assert federation.members() == (Member("shop-1", request.node_key, made.certificate),)
    assert waiting_invitations(federation, NOON) == []


def test_the_same_request_gets_the_same_answer(federation: FederationFolder, invitation: Invitation) -> None:
    request = request_for(invitation, OWNER)
    made = admitted(federation, request)
    before = files_under(federation.folder)
    later = timedelta(days=60)  # the invitation has ended, and it counts no more
    assert examined(federation, request.to_bytes(), later).answered
    assert admitted(federation, request, later) == made
    assert files_under(federation.folder) == before


def test_invitation_of_another_federation(federation: FederationFolder, tmp_path: Path) -> None:
    elsewhere = founded(tmp_path / "elsewhere", now=NOON)
    request = request_for(invite(elsewhere, "shop-1", now=NOON), OWNER)
    assert refused(federation, request.to_bytes()) is ProvisionFault.UNKNOWN


def test_invitation_replaced_on_its_way(federation: FederationFolder, invitation: Invitation) -> None:
    """With the same id, and the forger's key: the owner's request is bound to what the owner was handed."""
    forger = Ed25519PrivateKey.generate()
    forged = signed_again(invitation, forger, federation_key=public_hex(forger))
    assert refused(federation, request_for(forged, OWNER).to_bytes()) is ProvisionFault.FEDERATION


def test_request_for_another_federation_by_name(federation: FederationFolder, invitation: Invitation) -> None:
    request = request_for(invitation, OWNER, federation="banks")
    assert refused(federation, request.to_bytes()) is ProvisionFault.FEDERATION


def test_request_under_another_name(federation: FederationFolder, invitation: Invitation) -> None:
    assert refused(federation, request_for(invitation, OWNER, client="shop-2").to_bytes()) is ProvisionFault.CLIENT


def test_request_after_the_invitation_ended(federation: FederationFolder, invitation: Invitation) -> None:
    data = request_for(invitation, OWNER).to_bytes()
    assert refused(federation, data, 14 * DAY) is ProvisionFault.EXPIRED
    examined(federation, data, 14 * DAY - timedelta(seconds=1))


def test_replayed_invitation_with_other_keys(federation: FederationFolder, invitation: Invitation) -> None:
    admitted(federation, request_for(invitation, OWNER))
    assert refused(federation, request_for(invitation, OTHER).to_bytes()) is ProvisionFault.USED


def test_two_requests_were_compared_at_the_same_time(federation: FederationFolder, invitation: Invitation) -> None:
    """Both were in order when they were looked at; the second is refused when it is answered."""
    first, second = (examined(federation, request_for(invitation, keys).to_bytes()) for keys in (OWNER, OTHER))
    answer(federation, first, NOON)
    before = files_under(federation.folder)
    with pytest.raises(ProvisionError) as caught:
        answer(federation, second, NOON)
    assert caught.value.fault is ProvisionFault.USED
    assert files_under(federation.folder) == before


def test_request_with_swapped_node_key(federation: FederationFolder, invitation: Invitation) -> None:
    swapped = without_signing(request_for(invitation, OWNER), node_key=node_key_text(OTHER.node.public_key()))
    assert refused(federation, swapped) is ProvisionFault.PROOF


def test_csr_on_another_curve(federation: FederationFolder, invitation: Invitation) -> None:
    request = request_for(invitation, OWNER, csr=new_csr(ec.generate_private_key(ec.SECP384R1())))
    assert refused(federation, request.to_bytes()) is ProvisionFault.KEY


def test_csr_not_signed_with_its_own_key(federation: FederationFolder, invitation: Invitation) -> None:
    """The key of one request with the signature of another: the owner holds the other key only."""
    own, others = (x509.load_pem_x509_csr(new_csr(keys.tls).encode()) for keys in (OWNER, OTHER))
    grafted = others.public_bytes(Encoding.DER).replace(others.signature, own.signature)
    if len(own.signature) != len(others.signature):
        grafted = _resigned(others, own.signature)
    pem = x509.load_der_x509_csr(grafted).public_bytes(Encoding.PEM).decode()
    assert refused(federation, request_for(invitation, OWNER, csr=pem).to_bytes()) is ProvisionFault.PROOF


def _resigned(request: x509.CertificateSigningRequest, signature: bytes) -> bytes:
    """The same request with another signature: SEQUENCE of body, algorithm and BIT STRING, all under 128 + 64 bytes."""
    whole = request.public_bytes(Encoding.DER)
    head = whole[whole.index(request.tbs_certrequest_bytes) : whole.index(request.signature) - 3]
    body = head + bytes([3, len(signature) + 1, 0]) + signature
    return bytes([0x30, 0x81, len(body)]) + body


@pytest.mark.parametrize(
    "csr", ["", "no PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_csr_that_is_none(federation: FederationFolder, invitation: Invitation, csr: str) -> None:
    data = without_signing(request_for(invitation, OWNER), csr=csr)
    assert refused(federation, data) in (ProvisionFault.FORMAT, ProvisionFault.PROOF)
    with pytest.raises(ProvisionError) as caught:
        key_in_csr(csr, source="it")
    assert caught.value.fault is ProvisionFault.KEY


def test_keys_of_another_member(federation: FederationFolder, invitation: Invitation) -> None:
    """One roster key under two names would count twice in a quorum; one node key would answer as two."""
    admitted(federation, request_for(invitation, OWNER))
    second = invite(federation, "shop-2", now=NOON)
    same_roster = replace(OTHER, roster=OWNER.roster)
    assert refused(federation, request_for(second, same_roster).to_bytes()) is ProvisionFault.KEY
    same_node = replace(OTHER, node=OWNER.node)
    assert refused(federation, request_for(second, same_node).to_bytes()) is ProvisionFault.KEY
    admitted(federation, request_for(second, OTHER))


def test_name_on_the_roster_with_another_key(federation: FederationFolder, invitation: Invitation) -> None:
    admit(federation.folder, "shops", {"shop-1": public_hex(OTHER.roster)})
    assert refused(federation, request_for(invitation, OWNER).to_bytes()) is ProvisionFault.CLIENT
    admitted(federation, request_for(invitation, replace(OWNER, roster=OTHER.roster)))


def test_neither_a_join_nor_a_renewal(federation: FederationFolder, invitation: Invitation) -> None:
    assert refused(federation, invitation.to_bytes()) is ProvisionFault.FORMAT
    assert refused(federation, b"{}") is ProvisionFault.FORMAT


def test_a_certificate_is_renewed(federation: FederationFolder, invitation: Invitation) -> None:
    first = admitted(federation, request_for(invitation, OWNER))
    request = renewal_for(OWNER, OTHER.tls)
    assert examined(federation, request.to_bytes()).fingerprint == ""
    second = admitted(federation, request, 300 * DAY)
    member = federation.member("shop-1")
    assert member is not None
    assert member.certificates == (second.certificate, first.certificate)  # until the owner has installed it
    assert read_certificate(second.certificate, source="").public_key() == OTHER.tls.public_key()


def test_an_old_renewal_changes_nothing_any_more(federation: FederationFolder, invitation: Invitation) -> None:
    admitted(federation, request_for(invitation, OWNER))
    old = renewal_for(OWNER, OTHER.tls)
    first = admitted(federation, old)
    newer = [admitted(federation, renewal_for(OWNER, new_keys().tls, nonce=f"{n:032}")) for n in (1, 2)]
    assert admitted(federation, old) == first
    member = federation.member("shop-1")
    assert member is not None
    assert member.certificates == (newer[1].certificate, newer[0].certificate)


def test_renewal_by_another_key(federation: FederationFolder, invitation: Invitation) -> None:
    admitted(federation, request_for(invitation, OWNER))
    assert refused(federation, renewal_for(OTHER, OTHER.tls).to_bytes()) is ProvisionFault.PROOF


def test_renewal_of_nobody_and_elsewhere(federation: FederationFolder) -> None:
    assert refused(federation, renewal_for(OWNER, OWNER.tls).to_bytes()) is ProvisionFault.UNKNOWN
    elsewhere = renewal_for(OWNER, OWNER.tls, federation="banks")
    assert refused(federation, elsewhere.to_bytes()) is ProvisionFault.FEDERATION


def test_who_is_revoked_stays_out_until_it_is_invited_again(
    federation: FederationFolder, invitation: Invitation
) -> None:
    request = request_for(invitation, OWNER)
    admitted(federation, request)
    log = roster_in(federation.folder).log
    assert revoke(federation, "shop-1")
    before = files_under(federation.folder)
    assert not revoke(federation, "shop-1")
    assert files_under(federation.folder) == before
    roster = roster_in(federation.folder)
    assert (roster.members, roster.log) == ({}, log)
    member = federation.member("shop-1")
    assert member is not None
    assert member.certificates == ()
    assert refused(federation, request.to_bytes()) is ProvisionFault.REVOKED
    assert refused(federation, renewal_for(OWNER, OTHER.tls).to_bytes()) is ProvisionFault.REVOKED
    admitted(federation, request_for(invite(federation, "shop-1", now=NOON), OTHER))
    assert [each.revoked for each in standings(federation, NOON)] == [False]
    assert refused(federation, request.to_bytes()) is ProvisionFault.REVOKED  # the old keys' own


def test_nobody_is_revoked(federation: FederationFolder) -> None:
    with pytest.raises(UsageError, match="no members yet"):
        revoke(federation, "shop-1")
    admit(federation.folder, "shops", {"shop-1": public_hex(OWNER.roster)})  # by hand, without a certificate
    assert revoke(federation, "shop-1")
    assert roster_in(federation.folder).members == {}


def test_who_waits_and_who_is_a_member(federation: FederationFolder, invitation: Invitation) -> None:
    assert invite(federation, "shop-1", now=NOON + DAY) == invitation  # it waits already
    later = invite(federation, "shop-1", now=NOON + 20 * DAY)
    assert later.id != invitation.id
    assert [each.id for each in waiting_invitations(federation, NOON + 20 * DAY)] == [later.id]
    admitted(federation, request_for(later, OWNER), 20 * DAY)
    with pytest.raises(UsageError, match="a member of that name"):
        invite(federation, "shop-1", now=NOON + 20 * DAY)
    with pytest.raises(UsageError, match="printable"):
        invite(federation, "a\nb", now=NOON)
    standing = standings(federation, NOON + 400 * DAY)[0]
    assert (standing.days_left, standing.on_roster) == (17, True)
    assert "testudo-client renew" in standing.warning
    assert standings(federation, NOON)[0].warning == ""


def test_names_with_any_characters_have_files_of_their_own(federation: FederationFolder) -> None:
    names = ["../../etc/passwd", "a/b", "a b", "A", "a", "ä", ".", "..", "-", "shop-1", "x" * 128, "店" * 128, "%2f"]
    assert len({file_name_of(name).casefold() for name in names}) == len(names)
    for number, name in enumerate(names):
        made = admitted(federation, request_for(invite(federation, name, now=NOON), new_keys()))
        assert client_in(read_certificate(made.certificate, source="")) == name
        assert len(list(federation.members_folder.iterdir())) == number + 1
    assert {member.client for member in federation.members()} == set(names)
    assert all(path.parent == federation.members_folder for path in map(federation.member_file, names))


def test_a_federation_is_founded_once(federation: FederationFolder) -> None:
    before, settings = files_under(federation.folder), federation.settings()
    made = found(federation, settings, now=NOON + DAY)
    assert files_under(federation.folder) == before
    assert made == foundation_in(federation)
    others = (
        settings.model_copy(update={"federation": "banks"}),
        settings.model_copy(update={"hosts": ("fl.example.org",)}),
        settings.model_copy(update={"port": 9093}),
    )
    for other in others:
        with pytest.raises(UsageError):
            found(federation, other, now=NOON)
    with pytest.raises(KeyFileError, match="log"):
        found(federation, settings, log_key="ml-dsa-44", now=NOON)
    assert files_under(federation.folder) == before


def test_no_new_key_for_what_was_signed(federation: FederationFolder) -> None:
    """The CA's key may lie elsewhere; a new one beside the old certificate would sign what nobody can verify."""
    federation.ca_key.rename(federation.folder / "elsewhere.pem")
    found(federation, federation.settings(), now=NOON)
    assert not federation.ca_key.exists()
    request = request_for(invite(federation, "shop-1", now=NOON), OWNER)
    with pytest.raises(KeyFileError):
        admitted(federation, request)
    federation.server_key.rename(federation.ca_key)
    with pytest.raises(KeyFileError, match="not the key of the CA"):
        admitted(federation, request)
    (federation.folder / FEDERATION_KEY).unlink()
    with pytest.raises(KeyFileError):
        found(federation, federation.settings(), now=NOON)


def test_a_roster_that_was_there_first(tmp_path: Path) -> None:
    """Made by roster.admit alone; its members keep their keys, and another name is refused."""
    admit(tmp_path, "shops", {"shop-1": public_hex(OWNER.roster)}, log_key="ml-dsa-44")
    before, folder = roster_in(tmp_path), FederationFolder(tmp_path)
    with pytest.raises(RosterError, match="'shops'"):
        found(folder, FederationSettings(federation="banks", hosts=("localhost",), port=1), now=NOON)
    assert not folder.settings_file.exists()
    found(folder, FederationSettings(federation="shops", hosts=("localhost",), port=1), now=NOON)
    assert roster_in(tmp_path) == before


@pytest.mark.parametrize(("federation_name", "host"), [("a\nb", "localhost"), ("shops", "1.2.3"), ("shops", "a.-b")])
def test_names_that_no_certificate_can_have(tmp_path: Path, federation_name: str, host: str) -> None:
    settings = FederationSettings(federation=federation_name, hosts=(host,), port=1)
    with pytest.raises(UsageError):
        found(FederationFolder(tmp_path / "federation"), settings, now=NOON)
    assert files_under(tmp_path) == {}


def test_the_servers_certificate_is_renewed(federation: FederationFolder) -> None:
    before = foundation_in(federation)
    soon = NOON + 380 * DAY
    assert "testudo-server renew" in "".join(warnings_of(before, soon))
    text = federation.settings_file.read_text().replace('"localhost"', '"localhost", "fl.example.org"')
    federation.settings_file.write_text(text)
    after = renew(federation, soon)
    assert warnings_of(after, soon) == []
    assert after.server.public_key() == before.server.public_key()
    assert after.server.serial_number != before.server.serial_number
    assert (after.authority, after.fingerprint) == (before.authority, before.fingerprint)
    names = after.server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "fl.example.org"]
    late = NOON + 3640 * DAY
    assert any("CA" in each and "13 days" in each for each in warnings_of(after, late))
    assert renew(federation, late).server.not_valid_after_utc == after.authority.not_valid_after_utc
    with pytest.raises(ProvisionError) as caught:
        renew(federation, NOON + 3700 * DAY)
    assert caught.value.fault is ProvisionFault.EXPIRED


def test_a_members_file_that_was_altered(federation: FederationFolder, invitation: Invitation) -> None:
    admitted(federation, request_for(invitation, OWNER))
    path = federation.member_file("shop-1")
    for text in ("", "[]", "{}", path.read_text().replace("false", '"no"'), path.read_text().replace("{", '{"x": 1,')):
        path.write_text(text)
        with pytest.raises(UsageError, match="not a member's file"):
            federation.members()


def test_an_invitation_that_was_altered_here(federation: FederationFolder, invitation: Invitation) -> None:
    """Whoever can write the operator's files could do more; it is refused all the same."""
    federation.invitation(invitation.id).write_bytes(without_signing(invitation, client="shop-2"))
    request = request_for(invitation, OWNER)
    assert refused(federation, request.to_bytes()) is ProvisionFault.FEDERATION
    assert isinstance(request, JoinRequest)
    assert read_key(federation.folder / FEDERATION_KEY)
