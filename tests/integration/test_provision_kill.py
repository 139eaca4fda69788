"""Joining, killed with ``kill -9`` where something reaches the disk: done again, it ends as it would have.

In between, what is there works: an owner's key and certificate always belong together, and nothing is signed twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import provision_child
from forged import NOON
from provisioned import founded
from testudo_client.home import OwnerHome
from testudo_client.membership import read_membership
from testudo_client.provisioning.connection import ConnectionFiles, read_connection
from testudo_client.provisioning.joining import accepted
from testudo_client.provisioning.renewal import renew
from testudo_common.provisioning.certificates import read_certificate
from testudo_common.provisioning.documents import Answer
from testudo_common.provisioning.tls_keys import read_tls_key
from testudo_server.provisioning import admission
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.provisioning.foundation import authority_in, foundation_in
from testudo_server.provisioning.invites import invite
from testudo_server.roster import keys_in, roster_in

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A federation, and an invitation that nobody accepted yet."""
    folder = tmp_path / "template"
    federation = founded(folder / "federation", now=NOON)
    (folder / "invitation.json").write_bytes(invite(federation, "shop-1", now=NOON).to_bytes())
    return folder


def with_request(scene: Path) -> Path:
    provision_child.joining(scene)
    shutil.copy(ConnectionFiles(scene / "owner").request, scene / "request.json")
    return scene


def with_answer(scene: Path) -> Path:
    federation = FederationFolder(scene / "federation")
    data = (scene / "request.json").read_bytes()
    made = admission.answer(federation, admission.examine(federation, data, NOON, source="it"), NOON)
    (scene / "answer.json").write_bytes(made.to_bytes())
    return scene


def with_renewal(scene: Path) -> Path:
    provision_child.installing_it(with_answer(with_request(scene)))
    (scene / "request.json").write_bytes(renew(OwnerHome(scene / "owner")).to_bytes())
    return scene


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", provision_child.untold)


def killed(template: Path, folder: Path, step: str, at_least: int, every: int = 1) -> Iterator[Path]:
    """What each killed child left, the last child's too, which was not killed."""
    folder.mkdir()
    paths = [str(TESTS), *(str(TESTS.parent / part) for part in ("common", "client", "server", "simulations"))]
    command = [sys.executable, str(TESTS / "provision_child.py"), str(template), str(folder), step, str(every)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    points = ran.stdout.split()
    assert int(points[-1]) > at_least
    for point in points:
        yield folder / point


def pair_of(scene: Path) -> str:
    """The certificate in use, whose key is the key in use."""
    files = ConnectionFiles(scene / "owner")
    text = files.client_certificate.read_text()
    assert read_certificate(text, source="").public_key() == read_tls_key(files.client_key).public_key()
    read_connection(scene / "owner")
    return text


def test_a_federation_is_founded(scene: Path, tmp_path: Path) -> None:
    for found in killed(scene, tmp_path / "killed", "founding", 60, every=7):
        provision_child.founding(found)
        federation = FederationFolder(found / "new")
        keys_in(federation.folder)
        made = foundation_in(federation)
        authority_in(federation)
        assert made.server.public_key() == read_tls_key(federation.server_key).public_key()
        made.server.verify_directly_issued_by(made.authority)


def test_an_owner_joins(scene: Path, tmp_path: Path) -> None:
    for found in killed(scene, tmp_path / "killed", "joining", 60, every=7):
        files = ConnectionFiles(found / "owner")
        before = files.request.read_bytes() if files.request.exists() else None
        provision_child.joining(found)
        invitation, request = accepted(files)
        assert before in (None, request.to_bytes())
        admission.examine(FederationFolder(found / "federation"), request.to_bytes(), NOON, source="it")
        assert OwnerHome(found / "owner").policy().pins.federation_key == (invitation.federation_key,)


def test_an_owner_is_admitted(scene: Path, tmp_path: Path) -> None:
    for found in killed(with_request(scene), tmp_path / "killed", "admitting", 20, every=3):
        federation = FederationFolder(found / "federation")
        there = [Answer.from_bytes(path.read_bytes(), source="") for path in federation.answers.glob("[!.]*")]
        provision_child.admitting(found)
        (path,) = federation.answers.glob("[!.]*")
        made = Answer.from_bytes(path.read_bytes(), source="")
        assert path.suffix == ".json"
        assert all(each == made for each in there)
        (member,) = federation.members()
        assert member.certificates == (made.certificate,)
        assert list(roster_in(federation.folder).members) == ["shop-1"]


def test_a_renewal_is_signed(scene: Path, tmp_path: Path) -> None:
    for found in killed(with_renewal(scene), tmp_path / "killed", "admitting", 10, every=2):
        in_use = pair_of(found)
        federation = FederationFolder(found / "federation")
        assert in_use in federation.members()[0].certificates
        provision_child.admitting(found)
        (member,) = federation.members()
        assert member.earlier_certificate == in_use
        assert len(list(federation.answers.glob("[!.]*"))) == 2


def test_an_answer_is_installed(scene: Path, tmp_path: Path) -> None:
    for found in killed(with_answer(with_request(scene)), tmp_path / "killed", "installing_it", 20, every=5):
        if ConnectionFiles(found / "owner").server.exists():
            pair_of(found)
        provision_child.installing_it(found)
        pair_of(found)
        assert read_membership(found / "owner").client_id == "shop-1"


def test_a_renewed_certificate_is_installed(scene: Path, tmp_path: Path) -> None:
    with_renewal(scene)
    before = pair_of(scene)
    after = Answer.from_bytes((with_answer(scene) / "answer.json").read_bytes(), source="").certificate
    seen = []
    for found in killed(scene, tmp_path / "killed", "installing_it", 20):
        seen.append(pair_of(found))
        provision_child.installing_it(found)
        assert pair_of(found) == after
    assert set(seen) == {before, after}
    assert sorted(seen, key=[before, after].index) == seen  # once swapped, it stays


def test_a_renewal_is_asked_for(scene: Path, tmp_path: Path) -> None:
    provision_child.installing_it(with_answer(with_request(scene)))
    for found in killed(scene, tmp_path / "killed", "asking", 8, every=3):
        in_use = pair_of(found)
        request = renew(OwnerHome(found / "owner"))
        assert pair_of(found) == in_use
        (found / "request.json").write_bytes(request.to_bytes())
        provision_child.installing_it(with_answer(found))
        assert pair_of(found) != in_use


def test_a_member_is_revoked(scene: Path, tmp_path: Path) -> None:
    for found in killed(with_answer(with_request(scene)), tmp_path / "killed", "revoking", 8, every=3):
        provision_child.revoking(found)
        federation = FederationFolder(found / "federation")
        assert [member.revoked for member in federation.members()] == [True]
        assert roster_in(federation.folder).members == {}


def test_the_servers_certificate_is_renewed(scene: Path, tmp_path: Path) -> None:
    for found in killed(scene, tmp_path / "killed", "serving", 4, every=3):
        made = foundation_in(FederationFolder(found / "federation"))
        made.server.verify_directly_issued_by(made.authority)
        provision_child.serving(found)


def test_without_the_link_a_kill_would_leave_half_a_pair(scene: Path, tmp_path: Path) -> None:
    """What the link is for: key and certificate replaced one after the other, and stopped in between."""
    with_answer(with_renewal(scene))
    files = ConnectionFiles(scene / "owner")
    shutil.copy(files.folder / "tls-2" / "client.key", files.client_key)
    with pytest.raises(AssertionError):
        pair_of(scene)
