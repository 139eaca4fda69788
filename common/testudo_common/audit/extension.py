"""What the log's messages carry, in bytes: new entries under a checkpoint, and a witness's answer.

A log, or the new part of one, is its entries, one a line, an empty line, and the signed note over all of it::

    {"attempt":0,"barred":[],"clip":null,"cohort":["shop-1",...],...,"type":"round_opened","version":1}
    {"statement":{"attempt":0,"client":"shop-1",...},...,"type":"update_received","version":1}

    testudo/shops/3f0a77c21be94d50
    41
    qvRH1vjsrdBSCmJ7R3s1mUfH6nqoT1zPvqPpQJ5jXrw=

    — testudo/shops NnugSzTj...

Canonical JSON has no line ends of its own. After a further empty line there may be an earlier checkpoint with the
cosignatures that it has got since. An exported log has the same form. A witness answers with canonical JSON:
``cosignature``, a line of a note, and ``statements``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import rfc8785
from pydantic import Field, ValidationError

from testudo_common.audit.statements import Approval, Record, Withdrawal
from testudo_common.errors import AuditError, AuditFault

MAX_EXTENSION_BYTES: Final = 1 << 30
MAX_TESTIMONY_BYTES: Final = 1 << 16
Decision = Annotated[Approval | Withdrawal, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class Extension:
    """Entries, and the checkpoint after the last of them.

    Attributes:
        entries: Each in canonical form, not verified.
        note: A signed note, not verified; its size is that of the whole log.
        cosigned: An earlier one, with cosignatures; empty: none.
    """

    entries: tuple[bytes, ...]
    note: bytes
    cosigned: bytes = b""


def encode_extension(entries: Iterable[bytes], note: bytes, cosigned: bytes = b"") -> bytes:
    """See the module."""
    return b"".join(entry + b"\n" for entry in entries) + b"\n" + note + (b"\n" + cosigned if cosigned else b"")


def decode_extension(data: bytes) -> Extension:
    """What :func:`encode_extension` wrote.

    Raises:
        AuditError: It is not entries and a note.
    """
    if len(data) > MAX_EXTENSION_BYTES:
        raise AuditError(AuditFault.FORMAT, "a log that is too long")
    wrong = AuditError(AuditFault.FORMAT, "not entries and a checkpoint")
    entries, blank, rest = (b"", b"\n", data[1:]) if data.startswith(b"\n") else data.partition(b"\n\n")
    parts = rest.split(b"\n\n")  # text and signatures of one note, or of two
    if not blank or len(parts) not in (2, 4):
        raise wrong
    note = b"\n\n".join(parts[:2]) + (b"\n" if len(parts) == 4 else b"")
    return Extension(tuple(entries.split(b"\n")) if entries else (), note, b"\n\n".join(parts[2:]))


class Testimony(Record):
    """A witness's answer.

    Attributes:
        cosignature: A line of a note; empty: it does not cosign.
        statements: What it decided since it was last asked.
    """

    __test__ = False  # its name begins like a test class

    cosignature: str = ""
    statements: tuple[Decision, ...] = ()

    def encode(self) -> bytes:
        """Canonical JSON."""
        return rfc8785.dumps(self.model_dump(mode="json"))


def decode_testimony(data: bytes) -> Testimony:
    """What a witness answered; no signature in it is verified.

    Raises:
        AuditError: It is not such an answer.
    """
    wrong = AuditError(AuditFault.FORMAT, "not the answer of a witness")
    if len(data) > MAX_TESTIMONY_BYTES:
        raise wrong
    try:
        testimony = Testimony.model_validate_json(data)
        canonical = testimony.encode()
    except (ValidationError, ValueError) as error:
        raise wrong from error
    if canonical != data:
        raise wrong
    return testimony
