"""What the documents of joining share: exact fields, one way to write them, what signatures are over. Knows no kind.

Canonical JSON (RFC 8785): bytes that are read are those that would be written, so there is one way to write a document,
and its SHA-256 names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testudo_common.errors import ProvisionError, ProvisionFault
from testudo_common.key_files import parse_public

_DOMAIN = b"testudo-provisioning-1\x00"
MAX_DOCUMENT_BYTES = 1 << 16


class Document(BaseModel):
    """Exactly these fields, each of its own type and size."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    signatures: ClassVar[frozenset[str]] = frozenset({"signature"})
    max_bytes: ClassVar[int] = MAX_DOCUMENT_BYTES
    called: ClassVar[str]

    version: Annotated[int, Field(ge=1, le=1)] = 1  # a literal 1 would let true pass

    def to_bytes(self) -> bytes:
        """The document as it is handed on."""
        return rfc8785.dumps(self.model_dump())

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def signed_bytes(self) -> bytes:
        """What its signatures are over."""
        return _DOMAIN + rfc8785.dumps(self.model_dump(exclude=set(self.signatures)))

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str) -> Self:
        """The document that ``data`` is; no signature is verified.

        Raises:
            ProvisionError: It is not one.
        """
        content = object_in(data, cls.max_bytes, f"not {cls.called}", source)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])[:40]
            problem = f"not {cls.called}: {ascii(field)[1:-1] or 'a field'} is missing, unknown, or not as it must be"
            raise ProvisionError(
                ProvisionFault.FORMAT, problem, where=source, remedy="ask for the file again, unchanged"
            ) from error


AnyDocument = TypeVar("AnyDocument", bound=Document)


def with_signatures(kind: type[AnyDocument], fields: dict[str, Any], **sign: Callable[[bytes], str]) -> AnyDocument:
    """A new document of ``kind``.

    Args:
        kind: Which.
        fields: All of it but the signatures.
        **sign: The name of each signature, and what makes its text from the bytes that it is over.

    Raises:
        ProvisionError: A field is not as it must be.
    """
    unsigned = kind.model_construct(**fields).signed_bytes
    made = {**fields, **{name: by(unsigned) for name, by in sign.items()}}
    return kind.from_bytes(kind.model_construct(**made).to_bytes(), source="what is to be signed")


def object_in(data: bytes, max_bytes: int, problem: str, source: str) -> dict[str, Any]:
    """The one JSON object in ``data``, which must be its canonical form; white space around it may come from mail.

    Raises:
        ProvisionError: It is larger, or anything else; it says ``problem``.
    """
    try:
        if len(data) > max_bytes:
            raise ValueError("too large")
        content = json.loads(data)
        if not isinstance(content, dict) or rfc8785.dumps(content) != data.strip():
            raise ValueError("not canonical")
    except (ValueError, TypeError, RecursionError) as error:
        raise ProvisionError(
            ProvisionFault.FORMAT, problem, where=source, remedy="check the path, or ask for the file again"
        ) from error
    return content


def verify_ed25519(key: str, signature: str, signed: bytes, refusal: ProvisionError) -> None:
    """Return only if ``signature`` (hex) is the one of ``key`` (hex) over these bytes.

    Raises:
        ProvisionError: ``refusal``, since it is not.
        KeyFileError: The key is not one.
    """
    try:
        parse_public(key, source=refusal.where).verify(bytes.fromhex(signature), signed)
    except InvalidSignature as error:
        raise refusal from error
