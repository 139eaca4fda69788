"""Entries and owners' statements: one form in bytes, and nothing else than their fields gets in."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit_logs import SECURE, AuditLogBuilder, audited_plan, digest_of, full_log, key_called
from testudo_common.audit import entries, statements
from testudo_common.audit.entries import (
    MAX_ENTRY_BYTES,
    Account,
    AnyEntry,
    Charter,
    Evaluation,
    Incident,
    IncidentKind,
    Price,
    Reason,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    decode_entry,
    encode_entry,
)
from testudo_common.audit.statements import (
    Approval,
    Contribution,
    Withdrawal,
    canonical_words,
    commitment_to,
    encode_statement,
    parse_statement,
    signed,
    verify_statement,
)
from testudo_common.errors import AuditError, AuditFault

TIME = "2026-03-01T12:00:00Z"
KEY = key_called("owner")
PUBLIC = KEY.public_key().public_bytes_raw()
PLAN = "ab" * 32
CONTRIBUTION = Contribution(client="shop-1", round=3, attempt=1, commitment="c1" * 32, ledger="1e" * 32)
SIGNED = signed(CONTRIBUTION, KEY, PLAN)
OPENED = RoundOpened(time=TIME, round=3, attempt=0, model_digest="9f" * 32, cohort=("shop-1", "shop-2"), clip=0.5)
RECEIVED = UpdateReceived(time=TIME, statement=SIGNED)


# --- one form in bytes


def test_every_type_of_entry_comes_back() -> None:
    log = full_log(audited_plan("evaluation.federated_every_rounds=2", tables=SECURE), 9)
    decoded = [decode_entry(data) for data in log.entries]
    assert {type(entry) for entry in decoded} == set(get_args(AnyEntry))
    for data, entry in zip(log.entries, decoded, strict=True):
        assert encode_entry(entry) == data == rfc8785.dumps(json.loads(data))
        assert b"\n" not in data


def test_known_bytes() -> None:
    """Written by hand from the module's description."""
    assert encode_entry(OPENED) == (
        b'{"attempt":0,"barred":[],"clip":0.5,"cohort":["shop-1","shop-2"],"model_digest":"%s","round":3,'
        b'"time":"2026-03-01T12:00:00Z","type":"round_opened","version":1}' % (b"9f" * 32)
    )
    assert encode_entry(RECEIVED) == (
        b'{"statement":{"attempt":1,"client":"shop-1","commitment":"%s","ledger":"%s","round":3,"signature":"%s",'
        b'"type":"contribution"},"time":"2026-03-01T12:00:00Z","type":"update_received","version":1}'
        % (b"c1" * 32, b"1e" * 32, SIGNED.signature.encode())
    )


def test_whole_numbers_stay_what_they_are() -> None:
    """2.0 is written as 2, and is a norm again when it is read."""
    data = encode_entry(OPENED.model_copy(update={"clip": 2.0}))
    assert b'"clip":2,' in data
    again = decode_entry(data)
    assert isinstance(again, RoundOpened)
    assert (again.clip, type(again.clip)) == (2.0, float)


def test_entries_are_frozen_and_compare() -> None:
    assert decode_entry(encode_entry(OPENED)) == OPENED
    with pytest.raises(ValueError, match="frozen"):
        OPENED.round = 4  # type: ignore[misc]


def test_nothing_about_a_clients_data_has_a_place() -> None:
    """Of its update a commitment, and of its ledger a hash: no norm, loss, count of examples or metric."""
    assert set(Contribution.model_fields) == {
        *("type", "client", "signature", "round", "attempt", "commitment", "ledger"),
    }
    assert set(UpdateReceived.model_fields) == {"type", "version", "time", "statement"}
    by_client = [name for name, field in RoundClosed.model_fields.items() if "dict" in str(field.annotation)]
    assert by_client == []
    assert sorted(Reason) == ["group_not_opened", "left_out", "no_reply", "not_enrolled", "refused", "unusable"]


def test_short_entries_are_remembered_and_long_ones_are_not() -> None:
    entries._decoded.cache_clear()
    short, long = encode_entry(OPENED), encode_entry(OPENED.model_copy(update={"cohort": ("x" * 70_000,)}))
    assert decode_entry(short) is decode_entry(short)
    assert decode_entry(long) is not decode_entry(long)
    assert decode_entry(long) == decode_entry(long)
    assert entries._decoded.cache_info().currsize == 1


# --- bytes that are no entry


def changed(**fields: Any) -> bytes:
    return rfc8785.dumps({**json.loads(encode_entry(OPENED)), **fields})


def received(**fields: Any) -> bytes:
    content = json.loads(encode_entry(RECEIVED))
    return rfc8785.dumps({**content, "statement": {**content["statement"], **fields}})


def without(name: str) -> bytes:
    return rfc8785.dumps({key: value for key, value in json.loads(encode_entry(OPENED)).items() if key != name})


GOOD = encode_entry(OPENED)
INCIDENT = encode_entry(Incident(time=TIME, kind=IncidentKind.NOTED, note="so"))
NOT_CANONICAL = {
    "version as bool": changed(version=True),
    "a space": GOOD.replace(b":0.5", b": 0.5"),
    "a newline at the end": GOOD + b"\n",
    "a space before": b" " + GOOD,
    "keys in another order": b'{"barred":[],"attempt":0,' + GOOD.removeprefix(b'{"attempt":0,"barred":[],'),
    "0.50": GOOD.replace(b"0.5", b"0.50"),
    "5e-1": GOOD.replace(b"0.5", b"5e-1"),
    "an escaped letter": GOOD.replace(b"shop-1", b"\\u0073hop-1"),
    "an escaped slash": INCIDENT.replace(b'"so"', b'"s\\/o"'),
    "a default left out": GOOD.replace(b'"barred":[],', b""),
    "a version left out": GOOD.replace(b',"version":1', b""),
    "minus zero": GOOD.replace(b"0.5", b"-0"),
    "a key twice": GOOD.replace(b'{"attempt":0,', b'{"attempt":7,"attempt":0,'),
    "a type twice": GOOD.replace(b'"type":"round_opened"', b'"type":"round_opened","type":"round_opened"'),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
}
NO_ENTRIES: dict[str, bytes] = {
    "no bytes": b"",
    "a list": b"[]",
    "a number": b"7",
    "not JSON": b"{",
    "truncated": GOOD[:-1],
    "trailing bytes": GOOD + b"}",
    "not UTF-8": GOOD.replace(b"shop-1", b"\xff\xfe"),
    "UTF-16": GOOD.decode().encode("utf-16-le"),
    "half a surrogate, escaped": INCIDENT.replace(b'"so"', b'"\\ud800"'),
    "half a surrogate, in bytes": INCIDENT.replace(b"so", b"\xed\xa0\x80"),
    "a control character": INCIDENT.replace(b"so", b"\x01"),
    "a raw newline": INCIDENT.replace(b"so", b"s\no"),
    "NaN": GOOD.replace(b"0.5", b"NaN"),
    "infinity": GOOD.replace(b"0.5", b"Infinity"),
    "past a float64": GOOD.replace(b"0.5", b"1e999"),
    "nested too deeply": b"[" * 100_000,
    "nested in a known field": changed(cohort=0).replace(b'"cohort":0', b'"cohort":' + b"[" * 5000 + b"]" * 5000),
    "no type": without("type"),
    "unknown type": changed(type="round_reopened"),
    "type in capitals": changed(type="ROUND_OPENED"),
    "type a number": changed(type=1),
    "fields of another type": changed(type="round_closed"),
    "extra field": changed(loss=0.25),
    "extra field in a statement": received(norm=1),
    "missing field": without("model_digest"),
    "version 0": changed(version=0),
    "version 2": changed(version=2),
    "version as text": changed(version="1"),
    "round 0": changed(round=0),
    "round below 0": changed(round=-1),
    "round as text": changed(round="3"),
    "round as bool": changed(round=True),
    "round as fraction": changed(round=3.5),
    "round as null": changed(round=None),
    "round past 2^31": changed(round=1 << 31),
    "round past 2^53": changed(round=0).replace(b'"round":0', b'"round":%d' % (1 << 53)),
    "round of 5000 digits": changed(round=0).replace(b'"round":0', b'"round":' + b"9" * 5000),
    "attempt below 0": changed(attempt=-1),
    "cohort as text": changed(cohort="shop-1"),
    "cohort of numbers": changed(cohort=[1]),
    "clip as text": changed(clip="0.5"),
    "clip as bool": changed(clip=True),
    "digest too short": changed(model_digest="9f" * 31),
    "digest too long": changed(model_digest="9f" * 32 + "0"),
    "digest in capitals": changed(model_digest="9F" * 32),
    "digest with a newline": changed(model_digest="9f" * 32 + "\n"),
    "digest in other digits": changed(model_digest="٣" * 64),
    "month 13": changed(time="2026-13-01T12:00:00Z"),
    "30 February": changed(time="2026-02-30T12:00:00Z"),
    "25 o'clock": changed(time="2026-03-01T25:00:00Z"),
    "61 seconds": changed(time="2026-03-01T12:00:61Z"),
    "year 0": changed(time="0000-03-01T12:00:00Z"),
    "a year of five digits": changed(time="12026-03-01T12:00:00Z"),
    "a time with an offset": changed(time="2026-03-01T12:00:00+01:00"),
    "a time without a zone": changed(time="2026-03-01T12:00:00"),
    "a time with fractions": changed(time="2026-03-01T12:00:00.5Z"),
    "a time in other digits": changed(time="٢٠٢٦-03-01T12:00:00Z"),
    "a time with a newline": changed(time="2026-03-01T12:00:00Z\n"),
    "a day": changed(time="2026-03-01"),
    "seconds": changed(time=1_772_366_400),
    "a client without a name": received(client=""),
    "a client with a newline": received(client="shop\n1"),
    "a long client": received(client="x" * 129),
    "a statement of another kind": received(type="approval"),
    "a signature that is too short": received(signature="AAAA"),
    "a signature of URLs": received(signature="-" * 86 + "=="),
    "a signature with bits left over": received(signature="A" * 85 + "B=="),
    "a long note": rfc8785.dumps({**json.loads(INCIDENT), "note": "x" * 501}),
    "an unknown incident": rfc8785.dumps({**json.loads(INCIDENT), "kind": "fire"}),
}


@pytest.mark.parametrize("data", NO_ENTRIES.values(), ids=NO_ENTRIES)
def test_no_entry(data: bytes) -> None:
    with pytest.raises(AuditError, match="not an entry of a known type") as refused:
        decode_entry(data)
    assert refused.value.fault is AuditFault.FORMAT
    assert len(str(refused.value)) < 100, "what the entry holds is not repeated"


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_entry_in_another_form(data: bytes) -> None:
    with pytest.raises(AuditError, match=r"not an entry of a known type|not written in canonical form") as refused:
        decode_entry(data)
    assert refused.value.fault is AuditFault.FORMAT


def test_otherwise_the_cases_could_fail_for_another_reason() -> None:
    assert decode_entry(changed()) == OPENED
    assert decode_entry(received()) == RECEIVED
    assert isinstance(decode_entry(INCIDENT), Incident)
    longest = rfc8785.dumps({**json.loads(INCIDENT), "note": "x" * 500})
    assert isinstance(decode_entry(longest), Incident)
    leap = decode_entry(changed(time="2028-02-29T23:59:59Z"))
    assert leap.time == "2028-02-29T23:59:59Z"


def test_entry_that_is_too_long() -> None:
    with pytest.raises(AuditError, match="too long"):
        decode_entry(b" " * (MAX_ENTRY_BYTES + 1))


@pytest.mark.parametrize(
    "value",
    [1 << 53, -(1 << 53), 10**400, float("inf"), float("nan"), "\ud800"],
    ids=["2^53", "-2^53", "400 digits", "infinity", "NaN", "half a surrogate"],
)
def test_a_plan_with_what_has_no_canonical_form(value: object) -> None:
    """In a charter's plan anything can stand, so the form itself has to refuse it."""
    data = encode_entry(charter()).replace(b'"name":"small"', b'"name":' + json.dumps(value).encode())
    with pytest.raises(AuditError):
        decode_entry(data)


def charter() -> Charter:
    entry = decode_entry(AuditLogBuilder(audited_plan(), 4).entries[0])
    assert isinstance(entry, Charter)
    return entry


def test_a_charters_plan_comes_back() -> None:
    plan = audited_plan()
    assert charter().plan == plan.model_dump(mode="json")
    assert charter().plan_digest == plan.digest


@pytest.mark.parametrize(
    ("make", "fields"),
    {
        "noise below 0": (Price, {"example": ((-1.0, 0.5, 1),)}),
        "no sampling": (Price, {"example": ((1.0, 0.0, 1),)}),
        "sampling above 1": (Price, {"client": ((1.0, 1.5, 1),)}),
        "steps below 0": (Price, {"client": ((1.0, 1.0, -1),)}),
        "steps as fraction": (Account, {"events": ((1.0, 1.0, 0.5),), "delta": 1e-5, "epsilon": 1.0}),
        "two of three": (Price, {"client": ((1.0, 1.0),)}),
        "delta as text": (Account, {"events": (), "delta": "1e-5", "epsilon": 1.0}),
        "scores of nothing": (Evaluation, {"time": TIME, "round": 1, "metrics": {"before": {"accuracy": "high"}}}),
    }.values(),
)
def test_figures_that_are_none(make: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        make(**fields)


# --- statements


STATEMENTS = {
    "approval": Approval(client="shop-1", number=0),
    "withdrawal": Withdrawal(client="zoë", number=1),
    "contribution": CONTRIBUTION,
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_statement_there_and_back(statement: Any) -> None:
    made = signed(statement, KEY, PLAN)
    text = encode_statement(made)
    assert parse_statement(text) == parse_statement(text.encode()) == made
    assert text == rfc8785.dumps(made.model_dump(mode="json")).decode()
    verify_statement(made, PUBLIC, PLAN)


def test_what_is_signed() -> None:
    """By hand: the domain, and canonical JSON of all but the signature, with the plan."""
    said = (
        b'testudo-statement-1{"attempt":1,"client":"shop-1","commitment":"%s","ledger":"%s","plan_digest":"%s",'
        b'"round":3,"type":"contribution"}' % (b"c1" * 32, b"1e" * 32, PLAN.encode())
    )
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(base64.b64decode(SIGNED.signature), said)


def test_signature_is_not_printed() -> None:
    assert SIGNED.signature not in repr(SIGNED)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 4},
        {"attempt": 0},
        {"client": "shop-2"},
        {"commitment": "c2" * 32},
        {"ledger": "2e" * 32},
        {"signature": ""},
        {"signature": "A" * 86 + "=="},
    ],
    ids=str,
)
def test_changed_statement(change: dict[str, object]) -> None:
    with pytest.raises(AuditError, match=r"the contribution of .* is not signed with its key") as refused:
        verify_statement(SIGNED.model_copy(update=change), PUBLIC, PLAN)
    assert refused.value.fault is AuditFault.SIGNATURE


def test_statement_moved_to_another_plan_or_owner() -> None:
    for key, plan in ((PUBLIC, "cd" * 32), (key_called("eve").public_key().public_bytes_raw(), PLAN), (b"short", PLAN)):
        with pytest.raises(AuditError, match="not signed with its key"):
            verify_statement(SIGNED, key, plan)


def test_a_withdrawal_is_no_approval() -> None:
    approval = signed(Approval(client="shop-1", number=1), KEY, PLAN)
    withdrawal = Withdrawal(client="shop-1", number=1, signature=approval.signature)
    with pytest.raises(AuditError, match="the withdrawal of shop-1"):
        verify_statement(withdrawal, PUBLIC, PLAN)


TEXT = encode_statement(SIGNED)
NO_STATEMENTS: dict[str, str | bytes] = {
    "empty": "",
    "a list": "[]",
    "not JSON": TEXT[:-1],
    "unknown type": TEXT.replace("contribution", "donation"),
    "extra field": TEXT.replace('{"attempt"', '{"area":1,"attempt"'),
    "a space": TEXT.replace(":3", ": 3"),
    "a key twice": TEXT.replace('"round":3', '"round":3,"round":3'),
    "an escaped letter": TEXT.replace("shop", "\\u0073hop"),
    "half a surrogate": "\ud800",
    "half a surrogate inside": TEXT.replace("shop-1", "\ud800"),
    "half a surrogate, escaped": TEXT.replace("shop-1", "\\ud800"),
    "not UTF-8": b"\xff",
    "a signature with bits left over": TEXT.replace(SIGNED.signature, SIGNED.signature[:-3] + "B=="),
    "nested too deeply": "[" * 100_000,
}


@pytest.mark.parametrize("text", NO_STATEMENTS.values(), ids=NO_STATEMENTS)
def test_no_statement(text: str | bytes) -> None:
    with pytest.raises(AuditError) as refused:
        parse_statement(text)
    assert refused.value.fault is AuditFault.FORMAT


def test_commitment_hides_and_binds() -> None:
    salt, update = b"s" * 32, digest_of("update")
    assert commitment_to(salt, update) == commitment_to(salt, update)
    others = {commitment_to(b"t" * 32, update), commitment_to(salt, digest_of("another"))}
    assert len({commitment_to(salt, update), *others}) == 3


def test_canonical_words_are_rfc_8785() -> None:
    hard = {
        "b": ['\x00\x1f\x7f\u2028 é😀"\\/\b\f\n\r\t'],
        "a": {"z": -(2**53) + 1, "A": None, "a": [True, False, []]},
        "": {},
    }
    assert canonical_words(hard) == rfc8785.dumps(hard)
    with pytest.raises(ValueError, match="surrogates"):
        canonical_words({"a": "\ud800"})
    assert statements.SALT_BYTES == 32
