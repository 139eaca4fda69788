"""What the log's messages carry: entries with their checkpoint, and a witness's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785

from audit_logs import AuditLogBuilder, audited_plan, key_called
from testudo_common.audit import extension
from testudo_common.audit.extension import (
    MAX_TESTIMONY_BYTES,
    Extension,
    Testimony,
    decode_extension,
    decode_testimony,
    encode_extension,
)
from testudo_common.audit.notes import Signer, parse_line, parse_note
from testudo_common.audit.statements import Approval, Withdrawal, signed
from testudo_common.errors import AuditError, AuditFault

LOG = AuditLogBuilder(audited_plan(), 3)
ENTRIES, NOTE, EARLIER = tuple(LOG.entries), LOG.note(), LOG.note(2, ["owner-00"])
WHOLE = encode_extension(ENTRIES, NOTE, EARLIER)


@pytest.mark.parametrize("cosigned", [b"", EARLIER], ids=["alone", "with an earlier note"])
@pytest.mark.parametrize("count", [0, 1, len(ENTRIES)])
def test_there_and_back(count: int, cosigned: bytes) -> None:
    data = encode_extension(ENTRIES[:count], NOTE, cosigned)
    assert decode_extension(data) == Extension(ENTRIES[:count], NOTE, cosigned)
    for note in (NOTE, cosigned) if cosigned else (NOTE,):
        assert parse_note(note).encode() == note


def test_by_hand() -> None:
    assert encode_extension([b'{"a":1}', b'{"b":2}'], b"text\n\nlines\n") == b'{"a":1}\n{"b":2}\n\ntext\n\nlines\n'
    assert encode_extension([], b"text\n\nlines\n", b"old\n\nline\n") == b"\ntext\n\nlines\n\nold\n\nline\n"


NO_EXTENSIONS = {
    "no bytes": b"",
    "entries alone": b"".join(entry + b"\n" for entry in ENTRIES),
    "a note alone": NOTE,
    "entries without their empty line": b"".join(entry + b"\n" for entry in ENTRIES) + NOTE,
    "a note without signatures": encode_extension(ENTRIES, NOTE.split(b"\n\n")[0]),
    "three notes": WHOLE + b"\n" + EARLIER,
    "an earlier note without signatures": encode_extension(ENTRIES, NOTE, EARLIER.split(b"\n\n")[0]),
    "an empty line among entries": encode_extension([ENTRIES[0], b"", ENTRIES[1]], NOTE),
}


@pytest.mark.parametrize("data", NO_EXTENSIONS.values(), ids=NO_EXTENSIONS)
def test_no_extension(data: bytes) -> None:
    with pytest.raises(AuditError, match="not entries and a checkpoint") as refused:
        decode_extension(data)
    assert refused.value.fault is AuditFault.FORMAT


def test_a_log_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "MAX_EXTENSION_BYTES", len(WHOLE) - 1)
    with pytest.raises(AuditError, match="too long"):
        decode_extension(WHOLE)


# --- a witness's answer

LINE = Signer("owner-00", LOG.keys["owner-00"], cosigner=True).sign("text\n", 1).line()
DECISIONS = (
    signed(Approval(client="owner-00", number=0), key_called("a"), "ab" * 32),
    signed(Withdrawal(client="owner-00", number=1), key_called("a"), "ab" * 32),
)
TESTIMONY = Testimony(cosignature=LINE, statements=DECISIONS)


@pytest.mark.parametrize("testimony", [TESTIMONY, Testimony(), Testimony(cosignature=LINE)])
def test_testimony_there_and_back(testimony: Testimony) -> None:
    again = decode_testimony(testimony.encode())
    assert again == testimony
    if again.cosignature:
        assert parse_line(again.cosignature).line() == LINE


def test_known_testimony() -> None:
    assert Testimony().encode() == b'{"cosignature":"","statements":[]}'


def changed(**fields: Any) -> bytes:
    return rfc8785.dumps({**json.loads(TESTIMONY.encode()), **fields})


NO_TESTIMONIES = {
    "no bytes": b"",
    "a list": b"[]",
    "not JSON": b"{",
    "not UTF-8": b'{"cosignature":"\xff","statements":[]}',
    "half a surrogate": b'{"cosignature":"\\ud800","statements":[]}',
    "extra field": changed(loss=1),
    "cosignature a number": changed(cosignature=1),
    "a contribution": changed(statements=[{"type": "contribution"}]),
    "a statement without a type": changed(statements=[{"client": "owner-00", "number": 0, "signature": ""}]),
    "statements no list": changed(statements={}),
    "a field left out": b'{"cosignature":""}',
    "a space": b'{"cosignature": "","statements":[]}',
    "keys in another order": b'{"statements":[],"cosignature":""}',
    "a key twice": b'{"cosignature":"","cosignature":"","statements":[]}',
    "trailing bytes": TESTIMONY.encode() + b" ",
    "nested too deeply": b"[" * 60_000,
    "too long": changed(cosignature="x" * MAX_TESTIMONY_BYTES),
}


@pytest.mark.parametrize("data", NO_TESTIMONIES.values(), ids=NO_TESTIMONIES)
def test_no_testimony(data: bytes) -> None:
    assert decode_testimony(changed()) == TESTIMONY
    with pytest.raises(AuditError, match="not the answer of a witness") as refused:
        decode_testimony(data)
    assert refused.value.fault is AuditFault.FORMAT
