"""Receipts: what shows an owner, without log and server, that its entry is in the log; and what shows nothing."""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace

import pytest

from audit_logs import AuditLogBuilder, audited_plan, key_called, ml_dsa_key_called
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import (
    MAX_PROOF_HASHES,
    Receipt,
    decode_receipt,
    receipt_for,
    verify_receipt,
)
from testudo_common.errors import AuditError, AuditFault

LOG = AuditLogBuilder(audited_plan(), 5)
LOG.rounds(2)
SIZE = len(LOG.entries)


def kept(log: AuditLogBuilder) -> AuditLog:
    mirror = AuditLog(None)
    mirror.append(log.entries, log.note())
    return mirror


MIRROR = kept(LOG)
RECEIPT = receipt_for(MIRROR, 9)
DATA = RECEIPT.encode()


def refusal_of(receipt: Receipt, quorum: int = 4, log: AuditLogBuilder = LOG) -> AuditError:
    with pytest.raises(AuditError) as refused:
        verify_receipt(receipt, log.watch, quorum)
    return refused.value


@pytest.mark.parametrize("index", range(SIZE))
def test_every_entry_has_a_receipt(index: int) -> None:
    receipt = decode_receipt(receipt_for(MIRROR, index).encode())
    checkpoint, cosigners = verify_receipt(receipt, LOG.watch, 5)
    assert receipt.entry == LOG.entries[index]
    assert (receipt.index, checkpoint.size, checkpoint.root) == (index, SIZE, LOG.root())
    assert cosigners == set(LOG.owners)


def test_a_receipt_of_a_log_that_signs_with_ml_dsa() -> None:
    log = AuditLogBuilder(audited_plan(), 5, log_key=ml_dsa_key_called("log"))
    receipt = decode_receipt(receipt_for(kept(log), 3).encode())
    verify_receipt(receipt, log.watch, 5)


def test_by_hand() -> None:
    """As C2SP tlog-proof has it: the entry as extra data, the index, the hashes, an empty line and the checkpoint."""
    receipt = Receipt(b'{"a":1}', 5, (b"h" * 32, b"i" * 32), b"test checkpoint\n")
    assert receipt.encode() == (
        b"c2sp.org/tlog-proof@v1\n"
        b"extra eyJhIjoxfQ==\n"
        b"index 5\n"
        b"aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGg=\n"
        b"aWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWk=\n"
        b"\n"
        b"test checkpoint\n"
    )
    assert decode_receipt(receipt.encode()) == receipt


def test_the_only_entry_needs_no_hash() -> None:
    receipt = Receipt(b"x", 0, (), b"note\n")
    assert receipt.encode() == b"c2sp.org/tlog-proof@v1\nextra eA==\nindex 0\n\nnote\n"
    assert decode_receipt(receipt.encode()) == receipt


def test_the_smallest_note_that_covers_the_entry_is_taken() -> None:
    mirror = AuditLog(None)
    mirror.append(LOG.entries[:12], LOG.note(12))
    mirror.append(LOG.entries[12:], LOG.note())
    mirror.keep_note(LOG.note(5))
    for index, size in ((4, 5), (5, 12), (11, 12), (12, SIZE)):
        checkpoint, _ = verify_receipt(receipt_for(mirror, index), LOG.watch, 5)
        assert checkpoint.size == size
    checkpoint, _ = verify_receipt(receipt_for(mirror, 4, LOG.note(8)), LOG.watch, 5)
    assert checkpoint.size == 8


@pytest.mark.parametrize("index", [-1, 5, 7, SIZE, 10**9])
def test_an_entry_that_no_note_covers(index: int) -> None:
    mirror = AuditLog(None)
    mirror.append(LOG.entries, LOG.note(5))
    with pytest.raises(AuditError, match="no checkpoint that is kept is over this entry") as refused:
        receipt_for(mirror, index)
    assert (refused.value.fault, refused.value.index) == (AuditFault.RECEIPT, index)
    with pytest.raises(AuditError, match="no checkpoint that is kept"):
        receipt_for(mirror, index, LOG.note(5))


def test_a_note_over_more_than_the_mirror_holds() -> None:
    mirror = AuditLog(None)
    mirror.append(LOG.entries[:8])
    with pytest.raises(AuditError, match="no checkpoint that is kept"):
        receipt_for(mirror, 3, LOG.note())


# --- receipts that do not hold


def test_too_few_cosigned() -> None:
    receipt = receipt_for(MIRROR, 9, LOG.note(cosigners=LOG.owners[:3]))
    assert len(verify_receipt(receipt, LOG.watch, 3)[1]) == 3
    error = refusal_of(receipt, 4)
    assert (error.fault, error.index) == (AuditFault.QUORUM, 9)
    assert "3 witnesses cosigned, where 4 have to" in error.problem


def test_of_another_log() -> None:
    other = AuditLogBuilder(audited_plan("seed=1"), 5)
    assert refusal_of(receipt_for(kept(other), 3)).fault is AuditFault.SIGNATURE


def test_signed_with_a_foreign_key() -> None:
    receipt = replace(RECEIPT, note=LOG.note(log_key=key_called("eve")))
    assert refusal_of(receipt).fault is AuditFault.SIGNATURE


def test_of_a_forked_history() -> None:
    """The proof is of another log under the same checkpoint's origin."""
    forked = kept(LOG)
    entries = [*LOG.entries[:9], LOG.entries[10], LOG.entries[9], *LOG.entries[11:]]
    other = AuditLog(None)
    other.append(entries)
    assert receipt_for(forked, 9) == RECEIPT
    receipt = Receipt(entries[9], 9, other.inclusion_proof(9), LOG.note())
    assert refusal_of(receipt).fault is AuditFault.PROOF


@pytest.mark.parametrize(
    "change",
    [
        {"entry": LOG.entries[8]},
        {"entry": LOG.entries[9] + b" "},
        {"index": 8},
        {"index": SIZE},
        {"index": -1},
        {"proof": RECEIPT.proof[:-1]},
        {"proof": (*RECEIPT.proof, RECEIPT.proof[0])},
        {"proof": RECEIPT.proof[::-1]},
        {"proof": (RECEIPT.proof[0][:-1], *RECEIPT.proof[1:])},
        {"note": LOG.note(SIZE - 1)},
    ],
    ids=[
        *("another entry", "a longer entry", "index before", "index past the end", "index below 0"),
        *("a hash left out", "a hash more", "hashes reversed", "a short hash", "an earlier checkpoint"),
    ],
)
def test_changed_in_one_place(change: dict[str, object]) -> None:
    error = refusal_of(replace(RECEIPT, **change))  # type: ignore[arg-type]
    assert error.fault is AuditFault.PROOF


def test_a_note_that_is_none() -> None:
    assert refusal_of(replace(RECEIPT, note=b"note\n")).fault is AuditFault.FORMAT


def test_a_flipped_bit_anywhere() -> None:
    """Of every byte of the file one bit: it is no receipt any more, or does not hold, or is another witness's line."""
    for place in range(len(DATA)):
        data = bytearray(DATA)
        data[place] ^= 1 << place % 8
        try:
            receipt = decode_receipt(bytes(data))
        except AuditError as error:
            assert error.fault is AuditFault.RECEIPT
            continue
        assert receipt != RECEIPT
        with pytest.raises(AuditError):
            # With all five: a name or an id that is changed makes its line a stranger's, which is passed over.
            verify_receipt(receipt, LOG.watch, 5)


def test_truncated_anywhere() -> None:
    for length in itertools.chain(range(0, len(DATA) - 1, 7), [len(DATA) - 1]):
        with pytest.raises(AuditError):
            verify_receipt(decode_receipt(DATA[:length]), LOG.watch, 5)


# --- bytes that are no receipt

HEAD, _, REST = DATA.partition(b"\n\n")
LINES = HEAD.split(b"\n")
HASH = base64.b64encode(b"h" * 32)
NO_RECEIPTS = {
    "no bytes": b"",
    "a header alone": LINES[0],
    "another header": DATA.replace(b"@v1", b"@v2", 1),
    "header with a space": DATA.replace(b"@v1", b"@v1 ", 1),
    "no empty line": DATA.replace(b"\n\n", b"\n"),
    "no extra": b"\n".join([LINES[0], *LINES[2:]]) + b"\n\n" + REST,
    "empty extra": b"\n".join([LINES[0], b"extra ", *LINES[2:]]) + b"\n\n" + REST,
    "extra without its name": DATA.replace(b"extra ", b"", 1),
    "extra in capitals": DATA.replace(b"extra ", b"EXTRA ", 1),
    "extra not base64": b"\n".join([LINES[0], b"extra !!notbase64!!", *LINES[2:]]) + b"\n\n" + REST,
    "extra with bits left over": DATA.replace(LINES[1], b"extra eB==", 1),
    "extra without its end": DATA.replace(LINES[1], b"extra eA", 1),
    "no index": b"\n".join([*LINES[:2], *LINES[3:]]) + b"\n\n" + REST,
    "index no number": DATA.replace(b"index 9\n", b"index notanumber\n"),
    "index below 0": DATA.replace(b"index 9\n", b"index -9\n"),
    "index with a zero before": DATA.replace(b"index 9\n", b"index 09\n"),
    "index with a sign": DATA.replace(b"index 9\n", b"index +9\n"),
    "index with a space": DATA.replace(b"index 9\n", b"index 9 \n"),
    "index in other digits": DATA.replace(b"index 9\n", "index ٩\n".encode()),
    "index of 5000 digits": DATA.replace(b"index 9\n", b"index " + b"9" * 5000 + b"\n"),
    "index before extra": b"\n".join([LINES[0], LINES[2], LINES[1], *LINES[3:]]) + b"\n\n" + REST,
    "hash not base64": DATA.replace(LINES[3], b"!!notbase64!!"),
    "hash of 31 bytes": DATA.replace(LINES[3], base64.b64encode(b"h" * 31)),
    "hash of 64 bytes": DATA.replace(LINES[3], base64.b64encode(b"h" * 64)),
    "hash in hexadecimal": DATA.replace(LINES[3], b"ab" * 32),
    "hash with bits left over": DATA.replace(LINES[3], HASH[:-2] + b"h="),
    "hash not ASCII": DATA.replace(LINES[3], "é".encode() + HASH[2:]),
    "carriage returns": DATA.replace(b"\n", b"\r\n"),
    "too many hashes": b"\n".join([*LINES[:3], *[HASH] * (MAX_PROOF_HASHES + 1)]) + b"\n\n" + REST,
    "a million lines": LINES[0] + b"\nx" * 1_000_000 + b"\n\n" + REST,
}


@pytest.mark.parametrize("data", NO_RECEIPTS.values(), ids=NO_RECEIPTS)
def test_no_receipt(data: bytes) -> None:
    with pytest.raises(AuditError, match="not a receipt of an audit log") as refused:
        decode_receipt(data)
    assert refused.value.fault is AuditFault.RECEIPT


def test_otherwise_the_cases_could_fail_for_another_reason() -> None:
    assert decode_receipt(b"\n".join(LINES) + b"\n\n" + REST) == RECEIPT
    longest = b"\n".join([*LINES[:3], *[HASH] * MAX_PROOF_HASHES]) + b"\n\n" + REST
    assert len(decode_receipt(longest).proof) == MAX_PROOF_HASHES


def test_a_receipt_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testudo_common.audit.receipts.MAX_RECEIPT_BYTES", len(DATA) - 1)
    with pytest.raises(AuditError, match="not a receipt"):
        decode_receipt(DATA)
