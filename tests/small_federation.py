"""A federation's folder with as little in it as a server needs, and processes that stand in for its door and owners."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from testudo_common.files import write_atomically
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.provisioning.loopback import loopback_certificate
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.roster import admit

OWNERS = ("ada", "bob")


def make_federation(path: Path, owners: Iterable[str] = OWNERS) -> FederationFolder:
    """A federation, whose members' node keys lie beside it as ``NAME.pem``; its certificate is loopback's."""
    folder = FederationFolder(path)
    certificate, key = loopback_certificate(path / "tls")
    key.rename(folder.server_key)
    certificate.rename(folder.server_certificate)
    write_atomically(folder.ca_certificate, folder.server_certificate.read_bytes())
    write_atomically(folder.settings_file, b'federation = "shops"\nhosts = ["127.0.0.1"]\nport = 9092\n')
    names = tuple(owners)
    admit(path, "shops", {name: f"{number:02x}" * 32 for number, name in enumerate(names, 1)})
    for name in names:
        node_key = ec.generate_private_key(ec.SECP384R1())
        secret = node_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path.parent / f"{name}.pem", secret)
        public = node_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        revise_member(folder, name, node_key=public, certificate="")
    return folder


def revise_member(folder: FederationFolder, name: str, **changes: object) -> None:
    """Write a member's file, or change what it says."""
    path = folder.members_folder / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {"client": name}
    write_atomically(path, json.dumps({**known, **changes}).encode())


def write_plan(path: Path, plan: FederationPlan) -> Path:
    """The plan in a file."""
    path.write_text(dump_plan(plan), encoding="utf-8")
    return path
