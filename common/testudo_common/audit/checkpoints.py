"""Checkpoints: how large a log is and what its root is, signed by the log and by those who saw it so; and the quorum.

    testudo/shops/3f0a77c21be94d50
    41
    qvRH1vjsrdBSCmJ7R3s1mUfH6nqoT1zPvqPpQJ5jXrw=

    — testudo/shops NnugSzTj...
    — shop-1 jWbPPwAA...
    — shop-2 k1c2TgAA...

Of n witnesses, k have to have cosigned one checkpoint before anybody acts on it. Two different logs of one size both
get there only if 2 k - n or more witnesses sign both: fewer colluders than that are found out.
Source: C2SP tlog-checkpoint and tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from testudo_common.audit.merkle import HASH_BYTES
from testudo_common.audit.notes import KeyKind, Note, NoteKey, NoteSignature, parse_note
from testudo_common.errors import AuditError, AuditFault
from testudo_common.roster import Roster

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one moment.

    Attributes:
        origin: Which log.
        size: Entries.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that a note's text is.

    Raises:
        AuditError: It is none, or has lines that we do not know.
    """
    fault = AuditError(AuditFault.FORMAT, "not a checkpoint")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != 3 or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise fault
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise fault from error
    checkpoint = Checkpoint(lines[0], int(lines[1]), root)
    if len(root) != HASH_BYTES or checkpoint.text() != text:
        raise fault
    return checkpoint


@dataclass(frozen=True, slots=True)
class Watch:
    """Whose signatures count for one log.

    Attributes:
        origin: The log's.
        log: The log's own key.
        witnesses: Client id -> its key as a witness.
    """

    origin: str
    log: NoteKey
    witnesses: Mapping[str, NoteKey]


def watch_of(roster: Roster, plan_digest: str) -> Watch:
    """Who signs and cosigns the log of a plan, by the roster.

    Raises:
        AuditError: The roster names no key of a log.
    """
    if not roster.log:
        raise AuditError(
            AuditFault.ENROLMENT,
            "the roster names no key of an audit log",
            where=roster.federation,
            remedy="make the federation with testudo-server init, which gives the log a key",
        )
    name = f"testudo/{quote(roster.federation, safe='')}"
    witnesses = {
        client: NoteKey(witness_name(client), KeyKind.ED25519_COSIGNER, raw) for client, raw in roster.members.items()
    }
    return Watch(f"{name}/{plan_digest[:16]}", NoteKey(name, KeyKind(roster.log[0]), roster.log[1:]), witnesses)


def witness_name(client_id: str) -> str:
    """The name of a client's key as a witness."""
    return quote(client_id, safe="")


def open_checkpoint(data: bytes, watch: Watch) -> tuple[Checkpoint, Note]:
    """The checkpoint in a note that the log signed.

    Raises:
        AuditError: It is not one of this log.
    """
    note = parse_note(data)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != watch.origin:
        other = repr(checkpoint.origin[:80])  # anybody may have written it
        raise AuditError(AuditFault.SIGNATURE, f"a checkpoint of another log, {other}", where=watch.origin)
    if not note.signed_by(watch.log):
        raise AuditError(AuditFault.SIGNATURE, "a checkpoint that the log did not sign", where=watch.origin)
    return checkpoint, note


def cosigners_of(note: Note, watch: Watch) -> frozenset[str]:
    """Client ids of the witnesses that cosigned a note.

    Raises:
        AuditError: A line claims to be a witness's and is not.
    """
    lines: dict[str, list[NoteSignature]] = {}
    for signature in note.signatures:
        lines.setdefault(signature.name, []).append(signature)
    return frozenset(
        client
        for client, key in watch.witnesses.items()
        if key.name in lines and Note(note.text, tuple(lines[key.name])).signed_by(key)
    )


def default_quorum(witnesses: int) -> int:
    """k where a plan states none: more than two thirds."""
    return 2 * witnesses // 3 + 1


def colluders_found(witnesses: int, quorum: int) -> int:
    """The most witnesses that may sign two histories without both reaching the quorum; below 0: not even none."""
    return 2 * quorum - witnesses - 1
