"""What a forger between operator and owner, or a careless one of them, would send. No tests in here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.key_files import public_hex
from testudo_common.provisioning.certificates import new_csr, node_key_text
from testudo_common.provisioning.documents import Answer, Invitation, JoinRequest, prove_join, sign_as_federation

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


@dataclass(frozen=True)
class OwnerKeys:
    """Keys of somebody who may be an owner."""

    roster: Ed25519PrivateKey
    node: ec.EllipticCurvePrivateKey
    tls: ec.EllipticCurvePrivateKey


def new_keys() -> OwnerKeys:
    p256, p384 = ec.SECP256R1(), ec.SECP384R1()
    return OwnerKeys(Ed25519PrivateKey.generate(), ec.generate_private_key(p384), ec.generate_private_key(p256))


def request_for(invitation: Invitation, keys: OwnerKeys, **instead: Any) -> JoinRequest:
    """What these keys' owner would answer, but for some fields."""
    fields = {
        "id": invitation.id,
        "invitation": invitation.digest,
        "federation": invitation.federation,
        "client": invitation.client,
        "nonce": "0" * 32,
        "roster_key": public_hex(keys.roster),
        "node_key": node_key_text(keys.node.public_key()),
        "csr": new_csr(keys.tls),
    }
    return prove_join(keys.roster, keys.node, **{**fields, **instead})


def signed_again(document: Invitation | Answer, key: Ed25519PrivateKey, **instead: Any) -> Any:
    """The document with other fields, signed with ``key``."""
    fields = document.model_dump(exclude={"signature", "version", "kind"})
    return sign_as_federation(type(document), key, **{**fields, **instead})


def without_signing(document: Any, **instead: Any) -> bytes:
    """The bytes of the document with other fields, and the signatures as they were."""
    return bytes(document.model_copy(update=instead).to_bytes())


def files_under(folder: Path) -> dict[str, bytes | str]:
    """What every file holds, and where every link points."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found
