"""The four documents by which an owner joins a federation. Holds no secret, reads no file, decides nothing.

An :class:`Invitation` (operator to owner), a :class:`JoinRequest` back, an :class:`Answer` to it; later a
:class:`RenewalRequest`, which gets an answer too. By example, an invitation::

    {"ca":"-----BEGIN CERTIFICATE-----...","client":"shop-1","expires":"2026-12-14T12:00:00Z","federation":"shops",
     "federation_key":"5f0c...","host":"fl.example.org","id":"9b1d...","kind":"testudo-invitation","port":9092,
     "signature":"77d2...","version":1}

Each is one object of canonical JSON (RFC 8785): bytes that are read are those that would be written, so there is one
way to write a document, and its SHA-256 names it. A signature is over ``testudo-provisioning-1``, a zero byte, and
the object without its signatures; ``kind`` stands in it, so that none counts as one of another kind.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, Field, StringConstraints

from testudo_common.errors import ProvisionError, ProvisionFault
from testudo_common.provisioning.certificates import is_host, node_public_key
from testudo_common.provisioning.signed_json import (
    MAX_DOCUMENT_BYTES,
    Document,
    object_in,
    verify_ed25519,
    with_signatures,
)
from testudo_common.roster import MAX_ROSTER_BYTES, is_client_id

MAX_ANSWER_BYTES = MAX_DOCUMENT_BYTES + 2 * MAX_ROSTER_BYTES  # every quote of the roster is escaped in it
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _named(name: str) -> str:
    if not is_client_id(name):
        raise ValueError("not 1 to 128 printable characters")
    return name


def _reachable(host: str) -> str:
    if not is_host(host):
        raise ValueError("neither a DNS name nor an IP address")
    return host


def _of_time(text: str) -> str:
    if datetime.strptime(text, _TIME).strftime(_TIME) != text:
        raise ValueError("not a time")
    return text


Name = Annotated[str, AfterValidator(_named)]
Host = Annotated[str, StringConstraints(max_length=253), AfterValidator(_reachable)]
Port = Annotated[int, Field(ge=1, le=65535)]
Time = Annotated[str, StringConstraints(max_length=20), AfterValidator(_of_time)]
Digest = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
Random = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{32}\z")]
Ed25519Signature = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{128}\z")]
EcdsaSignature = Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{2}){8,104}\z")]
Pem = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
NodeKey = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class _SignedByFederation(Document):
    signature: Ed25519Signature

    def verify(self, federation_key: str, *, source: str) -> None:
        """Return only if the federation signed it.

        Args:
            federation_key: 64 hexadecimal digits.
            source: What to call it in an error.

        Raises:
            ProvisionError: It did not.
        """
        refusal = ProvisionError(
            ProvisionFault.SIGNATURE,
            "it is not signed with the federation's key, or was altered",
            where=source,
            remedy="ask the operator for it again, by another way",
        )
        verify_ed25519(federation_key, self.signature, self.signed_bytes, refusal)


class Invitation(_SignedByFederation):
    """What an operator hands an owner: where the federation is, and which keys are its."""

    called: ClassVar[str] = "an invitation"

    kind: Literal["testudo-invitation"] = "testudo-invitation"
    id: Random
    federation: Name
    federation_key: Digest
    ca: Pem
    host: Host
    port: Port
    client: Name
    expires: Time

    @property
    def expires_at(self) -> datetime:
        """Until when a request may refer to it."""
        return datetime.strptime(self.expires, _TIME).replace(tzinfo=UTC)

    def refuse_if_expired(self, now: datetime, *, source: str) -> None:
        """Return only before its end.

        Raises:
            ProvisionError: It has ended.
        """
        if now >= self.expires_at:
            raise ProvisionError(
                ProvisionFault.EXPIRED,
                f"the invitation ended at {self.expires}",
                where=source,
                remedy="compare the clocks, and ask the operator for another: testudo-server invite",
            )


class JoinRequest(Document):
    """An owner's public keys, and proof that it holds the private ones.

    ``invitation`` is the invitation's digest: who was handed another one proves nothing to this federation.
    """

    called: ClassVar[str] = "a join request"
    signatures: ClassVar[frozenset[str]] = frozenset({"roster_proof", "node_proof"})

    kind: Literal["testudo-join"] = "testudo-join"
    id: Random
    invitation: Digest
    federation: Name
    client: Name
    nonce: Random
    roster_key: Digest
    node_key: NodeKey
    csr: Pem
    roster_proof: Ed25519Signature
    node_proof: EcdsaSignature

    def verify(self, *, source: str) -> None:
        """Return only if whoever made it holds the roster key and the node key; the CSR proves its own.

        Raises:
            ProvisionError: It does not.
        """
        node_key = node_public_key(self.node_key, source=source)
        verify_ed25519(self.roster_key, self.roster_proof, self.signed_bytes, _unproven("roster key", source))
        try:
            node_key.verify(bytes.fromhex(self.node_proof), self.signed_bytes, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature as error:
            raise _unproven("node key", source) from error


class RenewalRequest(Document):
    """A member's new TLS key, signed with its roster key."""

    called: ClassVar[str] = "a renewal request"
    signatures: ClassVar[frozenset[str]] = frozenset({"roster_proof"})

    kind: Literal["testudo-renewal"] = "testudo-renewal"
    federation: Name
    client: Name
    nonce: Random
    csr: Pem
    roster_proof: Ed25519Signature

    def verify(self, roster_key: str, *, source: str) -> None:
        """Return only if the holder of the roster key made it.

        Raises:
            ProvisionError: It did not.
        """
        verify_ed25519(roster_key, self.roster_proof, self.signed_bytes, _unproven("roster key", source))


class Answer(_SignedByFederation):
    """What a member needs to connect. ``request`` is the digest of what it answers, ``roster`` the text of a file."""

    called: ClassVar[str] = "an answer"
    max_bytes: ClassVar[int] = MAX_ANSWER_BYTES

    kind: Literal["testudo-answer"] = "testudo-answer"
    request: Digest
    federation: Name
    federation_key: Digest
    client: Name
    certificate: Pem
    ca: Pem
    host: Host
    port: Port
    roster: Annotated[str, StringConstraints(max_length=MAX_ROSTER_BYTES)]


_Signed = TypeVar("_Signed", bound=_SignedByFederation)


def sign_as_federation(kind: type[_Signed], key: Ed25519PrivateKey, /, **fields: Any) -> _Signed:
    """A new document of ``kind`` with these fields, signed with the federation's key.

    Raises:
        ProvisionError: A field is not as it must be.
    """
    return with_signatures(kind, fields, signature=lambda signed: key.sign(signed).hex())


def prove_join(roster_key: Ed25519PrivateKey, node_key: ec.EllipticCurvePrivateKey, /, **fields: Any) -> JoinRequest:
    """A join request with these fields and both proofs.

    Raises:
        ProvisionError: A field is not as it must be.
    """
    return with_signatures(
        JoinRequest,
        fields,
        roster_proof=lambda signed: roster_key.sign(signed).hex(),
        node_proof=lambda signed: node_key.sign(signed, ec.ECDSA(hashes.SHA384())).hex(),
    )


def prove_renewal(roster_key: Ed25519PrivateKey, /, **fields: Any) -> RenewalRequest:
    """A renewal request with these fields and its proof.

    Raises:
        ProvisionError: A field is not as it must be.
    """
    return with_signatures(RenewalRequest, fields, roster_proof=lambda signed: roster_key.sign(signed).hex())


def kind_of(data: bytes, *, source: str) -> str:
    """What kind of document ``data`` says to be.

    Raises:
        ProvisionError: It is not a document.
    """
    kind = object_in(data, MAX_ANSWER_BYTES, "not a document of a federation", source).get("kind")
    return kind if isinstance(kind, str) else ""


def time_text(time: datetime) -> str:
    """A time as documents have it, in whole seconds."""
    return time.astimezone(UTC).strftime(_TIME)


def _unproven(key: str, source: str) -> ProvisionError:
    return ProvisionError(
        ProvisionFault.PROOF,
        f"the proof by the {key} is not right: it was altered, or whoever made it does not hold that key",
        where=source,
        remedy="let the owner make the request again, and send it by another way",
    )
