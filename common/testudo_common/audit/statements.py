"""What a data owner itself signs for the log: that it approves a plan, has withdrawn, or sent an update. No entry yet.

A signature is Ed25519 (RFC 8032) with the owner's roster key, over ``testudo-statement-1`` and the RFC 8785 canonical
JSON of the statement without its signature, with the plan's digest beside it. So the server can leave a statement out,
but neither make nor change one, nor move it to another plan or round.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Any, Final, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from testudo_common.errors import AuditError, AuditFault
from testudo_common.roster import is_client_id

SALT_BYTES: Final = 32
_DOMAIN: Final = b"testudo-statement-1"
_COMMITMENT: Final = b"testudo-contribution-1"

T = TypeVar("T", bound="Signed")
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Base64Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==$")]
Round = Annotated[int, Field(ge=1, lt=1 << 31)]
Attempt = Annotated[int, Field(ge=0, lt=1 << 31)]


class Record(BaseModel):
    """Base of all that stands in the log: frozen, nothing more than its fields, nothing taken for another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Signed(Record):
    """Base of the three statements.

    Attributes:
        client: Who says it.
        signature: Its own, base64; empty while it is being made.
    """

    client: str
    signature: Base64Signature | Literal[""] = Field("", repr=False)

    @field_validator("client")
    @classmethod
    def _may_name_a_client(cls, name: str) -> str:
        if not is_client_id(name):
            raise ValueError("a client's name is 1 to 128 printable characters")
        return name


class Approval(Signed):
    """The owner approves the plan.

    Attributes:
        number: How many decisions on this plan the owner made before: a later one outdoes an earlier.
    """

    type: Literal["approval"] = "approval"
    number: Attempt


class Withdrawal(Signed):
    """The owner takes no further part in the plan.

    Attributes:
        number: As in an approval.
    """

    type: Literal["withdrawal"] = "withdrawal"
    number: Attempt


class Contribution(Signed):
    """The owner sent an update.

    Attributes:
        round: 1 and up.
        attempt: 0 and up.
        commitment: To the update, see :func:`commitment_to`; nothing can be read from it.
        ledger: Hash of the owner's ledger, with the reservation for this update in it. Shows the owner, and nobody
            else, when an old copy of its ledger was put back.
    """

    type: Literal["contribution"] = "contribution"
    round: Round
    attempt: Attempt
    commitment: Hex
    ledger: Hex


Statement = Approval | Withdrawal | Contribution
_STATEMENTS: TypeAdapter[Statement] = TypeAdapter(Annotated[Statement, Field(discriminator="type")])


def commitment_to(salt: bytes, update_digest: str) -> str:
    """What an owner commits to its update with: hex.

    Args:
        salt: 32 random bytes, which the owner keeps; destroying them leaves a commitment to nothing.
        update_digest: SHA-256 of the clipped update, hex.
    """
    return hashlib.sha256(_COMMITMENT + salt + bytes.fromhex(update_digest)).hexdigest()


def signed(statement: T, key: Ed25519PrivateKey, plan_digest: str) -> T:
    """The statement with its owner's signature."""
    signature = base64.b64encode(key.sign(_signed_bytes(statement, plan_digest))).decode("ascii")
    return statement.model_copy(update={"signature": signature})


def verify_statement(statement: Signed, public_key: bytes, plan_digest: str) -> None:
    """Return only if ``public_key``, 32 bytes, signed it for that plan.

    Raises:
        AuditError: It did not.
    """
    try:
        signature = base64.b64decode(statement.signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed_bytes(statement, plan_digest))
    except (InvalidSignature, ValueError) as error:
        kind = type(statement).__name__.lower()
        raise AuditError(
            AuditFault.SIGNATURE, f"the {kind} of {statement.client} is not signed with its key"
        ) from error


def encode_statement(statement: Signed) -> str:
    """As it travels: canonical JSON."""
    return canonical_words(statement.model_dump(mode="json")).decode()


def parse_statement(text: str | bytes) -> Statement:
    """The statement that travelled as ``text``; its signature is not verified.

    Raises:
        AuditError: It is none.
    """
    try:
        statement = _STATEMENTS.validate_json(text)
    except (ValidationError, ValueError) as error:
        raise AuditError(AuditFault.FORMAT, "not the statement of an owner") from error
    if encode_statement(statement) != (text if isinstance(text, str) else text.decode()):
        raise AuditError(AuditFault.FORMAT, "a statement that is not written in canonical form")
    return statement


def _signed_bytes(statement: Signed, plan_digest: str) -> bytes:
    fields = statement.model_dump(mode="json", exclude={"signature"})
    return _DOMAIN + canonical_words({**fields, "plan_digest": plan_digest})


def canonical_words(value: dict[str, Any]) -> bytes:
    """RFC 8785 of an object without fractions, whose keys are all ASCII; much faster than the general way.

    Args:
        value: Of objects, lists, strings without lone surrogates, and integers below 2^53.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
