"""Receipts: that an entry is in the log, for whoever keeps it to check without the log and without the server.

    c2sp.org/tlog-proof@v1
    extra eyJzdGF0ZW1lbnQiOnsiYXR0ZW1wdCI6MCwi...
    index 12
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

    testudo/shops/3f0a77c21be94d50
    41
    qvRH1vjsrdBSCmJ7R3s1mUfH6nqoT1zPvqPpQJ5jXrw=

    — testudo/shops NnugSzTj...
    — shop-1 jWbPPwAA...

``extra`` is the entry itself, which the hashes lead from. Source: C2SP tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from testudo_common.audit.checkpoints import Checkpoint, Watch, cosigners_of, open_checkpoint, parse_checkpoint
from testudo_common.audit.entries import MAX_ENTRY_BYTES
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from testudo_common.audit.notes import MAX_NOTE_BYTES, parse_note
from testudo_common.errors import AuditError, AuditFault

MAX_RECEIPT_BYTES: Final = 2 * MAX_ENTRY_BYTES + MAX_NOTE_BYTES
MAX_PROOF_HASHES: Final = 64
_FORMAT: Final = b"c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(rb"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry, and what shows that it is in a log.

    Attributes:
        entry: In canonical form; not empty.
        index: From 0.
        proof: Hashes from the entry's sibling up to the root's child.
        note: A signed note over the log, with cosignatures.
    """

    entry: bytes
    index: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """As it is kept: a ``.tlog-proof``."""
        lines = [_FORMAT, b"extra " + base64.b64encode(self.entry), b"index %d" % self.index]
        return b"\n".join([*lines, *(base64.b64encode(each) for each in self.proof), b"", self.note])


def decode_receipt(data: bytes) -> Receipt:
    """What :meth:`Receipt.encode` wrote; nothing in it is to be believed before :func:`verify_receipt`.

    Raises:
        AuditError: It is not a receipt.
    """
    wrong = AuditError(AuditFault.RECEIPT, "not a receipt of an audit log")
    head, blank, note = data.partition(b"\n\n")
    if len(data) > MAX_RECEIPT_BYTES or not blank:
        raise wrong
    first, *lines = head.split(b"\n", MAX_PROOF_HASHES + 3)
    if first != _FORMAT or not 2 <= len(lines) <= MAX_PROOF_HASHES + 2:
        raise wrong
    extra, index = lines[0].removeprefix(b"extra "), lines[1].removeprefix(b"index ")
    if not _INDEX.fullmatch(index):
        raise wrong
    try:
        entry, *proof = (base64.b64decode(line, validate=True) for line in (extra, *lines[2:]))
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    receipt = Receipt(entry, int(index), tuple(proof), note)
    if not entry or any(len(each) != HASH_BYTES for each in proof) or receipt.encode() != data:
        raise wrong
    return receipt


def receipt_for(log: AuditLog, index: int, note: bytes | None = None) -> Receipt:
    """The receipt of an entry.

    Args:
        log: Holds it.
        index: From 0.
        note: Over at least ``index + 1`` entries; none: the kept one of the smallest size that is.

    Raises:
        AuditError: There is no such note, or the log's file cannot be read.
    """
    note = log.note_covering(index) if note is None else note
    size = 0 if note is None else parse_checkpoint(parse_note(note).text).size
    if note is None or not 0 <= index < size <= log.size:
        raise AuditError(AuditFault.RECEIPT, "no checkpoint that is kept is over this entry", index=index)
    return Receipt(next(log.entries(index, index + 1)), index, log.inclusion_proof(index, size), note)


def verify_receipt(receipt: Receipt, watch: Watch, quorum: int) -> tuple[Checkpoint, frozenset[str]]:
    """Return only if the entry is in the log, and ``quorum`` witnesses saw a log that holds it.

    Args:
        receipt: From whomever.
        watch: Whose signatures count.
        quorum: k.

    Returns:
        The checkpoint, and who cosigned it.

    Raises:
        AuditError: It is of another log, a signature does not hold, too few cosigned, or the proof is another entry's.
    """
    checkpoint, note = open_checkpoint(receipt.note, watch)
    cosigners = cosigners_of(note, watch)
    if len(cosigners) < quorum:
        raise AuditError(
            AuditFault.QUORUM,
            f"a receipt that {len(cosigners)} witnesses cosigned, where {quorum} have to",
            index=receipt.index,
        )
    verify_inclusion(checkpoint.root, checkpoint.size, receipt.index, leaf_hash(receipt.entry), receipt.proof)
    return checkpoint, cosigners
