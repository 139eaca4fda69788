"""The wire format: what is encoded comes back, and nothing else gets in. Bad bytes are named by their fault."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testudo_common.errors import WireError
from testudo_common.wire import (
    MAX_CLIP,
    MAX_HEADER_BYTES,
    MAX_STATEMENT_CHARACTERS,
    WIRE_VERSION,
    LogUpdate,
    Message,
    Parts,
    Refusal,
    RefusalReason,
    SecureMessage,
    TrainReply,
    TrainRequest,
    Witnessed,
    decode,
    encode,
)

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.integers(0, 2**31 - 1)
vectors = arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32))
clips = st.none() | st.floats(0, MAX_CLIP, exclude_min=True)
masked_inputs = arrays(np.uint32, st.integers(0, 20))
bodies = st.binary(max_size=50)
statements = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
messages = st.one_of(
    st.builds(TrainRequest, digests, numbers, numbers, digests, vectors, clips, bodies),
    st.builds(TrainReply, digests, numbers, numbers, digests, vectors, statements),
    st.builds(Refusal, digests, numbers, numbers, st.sampled_from(RefusalReason)),
    st.builds(SecureMessage, digests, numbers, numbers, bodies),
    st.builds(SecureMessage, digests, numbers, numbers, bodies, masked_inputs, statements),
    st.builds(LogUpdate, digests, numbers, numbers, numbers, bodies),
    st.builds(Witnessed, digests, numbers, numbers, numbers, bodies),
)

PLAN, MODEL = "c2" * 32, "9f" * 32
VECTOR = np.array([1.5, -2.0], dtype=np.float32)
REQUEST = TrainRequest(PLAN, 3, 0, MODEL, VECTOR)
REFUSAL = Refusal(PLAN, 3, 0, RefusalReason.PRIVACY_SPENT)
WORDS = np.array([7, 2**32 - 1], dtype=np.uint32)
BODY = b"a body \xff\x00"
MASKED = SecureMessage(PLAN, 3, 0, BODY, WORDS)
STEP = SecureMessage(PLAN, 3, 0, BODY)
UPDATE = LogUpdate(PLAN, 3, 0, 17, BODY)
WITNESSED = Witnessed(PLAN, 3, 0, 41, BODY)


@given(messages)
@settings(max_examples=50, deadline=None)
def test_round_trip(message: Message) -> None:
    parts = encode(message)
    again = decode(parts)
    assert again == message
    for name in ("model", "update", "masked"):
        sent, got = getattr(message, name, None), getattr(again, name, None)
        assert (sent is None) == (got is None)
        if sent is not None and got is not None:
            assert (got.dtype, got.tobytes()) == (sent.dtype, sent.tobytes())
    assert encode(again) == parts


def test_known_bytes() -> None:
    """Written by hand from the module's description, not by our encoder."""
    named = (MODEL.encode(), PLAN.encode())
    content = b'{"attempt":0,"clip":null,"model_digest":"%s","plan_digest":"%s","round":3}' % named
    parts = encode(REQUEST)
    assert parts == Parts(b"\x03\x01" + len(content).to_bytes(4, "big") + content, b"")
    assert parts.vector is VECTOR
    assert encode(replace(REQUEST, body=BODY)) == replace(parts, body=BODY)
    content = b'{"attempt":0,"clip":0.5,"model_digest":"%s","plan_digest":"%s","round":3}' % named
    assert encode(replace(REQUEST, clip=0.5)).header == b"\x03\x01" + len(content).to_bytes(4, "big") + content
    content = b'{"attempt":0,"model_digest":"%s","plan_digest":"%s","round":3,"statement":"{\\"a\\":1}"}' % named
    parts = encode(TrainReply(PLAN, 3, 0, MODEL, VECTOR, '{"a":1}'))
    assert parts == Parts(b"\x03\x02" + len(content).to_bytes(4, "big") + content)
    assert parts.vector is VECTOR
    content = b'{"attempt":0,"plan_digest":"%s","reason":"privacy_spent","round":3}' % PLAN.encode()
    parts = encode(REFUSAL)
    assert parts == Parts(b"\x03\x03" + len(content).to_bytes(4, "big") + content)
    assert parts.vector is None
    content = b'{"attempt":0,"plan_digest":"%s","round":3,"statement":null}' % PLAN.encode()
    parts = encode(MASKED)
    assert parts == Parts(b"\x03\x04" + len(content).to_bytes(4, "big") + content, BODY)
    assert parts.vector is WORDS
    assert encode(STEP) == parts
    assert encode(STEP).vector is None
    content = b'{"attempt":0,"first":17,"plan_digest":"%s","round":3}' % PLAN.encode()
    assert encode(UPDATE) == Parts(b"\x03\x05" + len(content).to_bytes(4, "big") + content, BODY)
    content = b'{"attempt":0,"plan_digest":"%s","round":3,"size":41}' % PLAN.encode()
    assert encode(WITNESSED) == Parts(b"\x03\x06" + len(content).to_bytes(4, "big") + content, BODY)


def test_size_is_that_of_all_that_travels() -> None:
    assert encode(REQUEST).size_bytes == 6 + len(json.dumps(CONTENT, separators=(",", ":"))) + 2 * 4
    assert encode(MASKED).size_bytes == 6 + len(json.dumps(STEP_CONTENT, separators=(",", ":"))) + 9 + 2 * 4
    assert encode(STEP).size_bytes == encode(MASKED).size_bytes - 2 * 4
    assert Parts(b"").size_bytes == 0


def test_kinds_have_numbers_of_their_own() -> None:
    reply = TrainReply(PLAN, 3, 0, MODEL, VECTOR)
    kinds = [REQUEST, reply, REFUSAL, STEP, UPDATE, WITNESSED]
    assert [encode(message).header[1] for message in kinds] == [1, 2, 3, 4, 5, 6]


def test_reasons_are_fixed() -> None:
    """A new reason is a new release of the wire: a receiver of this one would not understand it."""
    assert WIRE_VERSION == 3
    assert sorted(RefusalReason) == [
        "data_unusable",
        "internal",
        "ledger_unusable",
        "log_not_trusted",
        "no_quorum",
        "not_allowed",
        "not_approved",
        "not_logged",
        "other_model",
        "other_plan",
        "privacy_spent",
        "protocol_broken",
        "replayed",
        "too_few",
        "too_many_attempts",
        "update_used",
    ]


def test_fields_are_fixed() -> None:
    """No loss, count or metric of a client has a place to stand in."""
    assert [field.name for field in fields(TrainRequest)] == [
        "plan_digest",
        "round",
        "attempt",
        "model_digest",
        "model",
        "clip",
        "body",
    ]
    assert [field.name for field in fields(TrainReply)] == [
        "plan_digest",
        "round",
        "attempt",
        "model_digest",
        "update",
        "statement",
    ]
    assert [field.name for field in fields(Refusal)] == ["plan_digest", "round", "attempt", "reason"]
    assert [field.name for field in fields(SecureMessage)] == [
        "plan_digest",
        "round",
        "attempt",
        "body",
        "masked",
        "statement",
    ]
    assert [field.name for field in fields(LogUpdate)] == ["plan_digest", "round", "attempt", "first", "body"]
    assert [field.name for field in fields(Witnessed)] == ["plan_digest", "round", "attempt", "size", "body"]


def test_vectors_are_not_printed() -> None:
    assert "1.5" not in repr(REQUEST)
    assert "1.5" not in repr(TrainReply(PLAN, 3, 0, MODEL, VECTOR))
    assert "1.5" not in repr(encode(REQUEST))


def test_neither_body_nor_masked_input_is_printed() -> None:
    for message in (MASKED, replace(REQUEST, body=BODY), UPDATE, WITNESSED):
        assert "a body" not in repr(message) + repr(encode(message))
    for shown in (repr(MASKED), repr(encode(MASKED))):
        assert "a body" not in shown
        assert "4294967295" not in shown


def header_of(content: Any, kind: int = 1, version: int = WIRE_VERSION) -> bytes:
    """A header around any content, canonical as far as JSON's own sorting goes."""
    body = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return struct.pack(">BBI", version, kind, len(body)) + body


CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "model_digest": MODEL, "clip": None}
REPLY_CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "model_digest": MODEL, "statement": None}
REFUSAL_CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "reason": "privacy_spent"}
STEP_CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "statement": None}
UPDATE_CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "first": 17}
WITNESSED_CONTENT = {"plan_digest": PLAN, "round": 3, "attempt": 0, "size": 41}
HEADER = header_of(CONTENT)


def test_header_of_makes_what_encode_makes() -> None:
    """Otherwise the negative vectors below could fail for another reason than their name."""
    assert header_of(CONTENT) == encode(REQUEST).header
    assert header_of({**CONTENT, "clip": 0.5}) == encode(replace(REQUEST, clip=0.5)).header
    assert header_of(REPLY_CONTENT, 2) == encode(TrainReply(PLAN, 3, 0, MODEL, VECTOR)).header
    assert header_of(REFUSAL_CONTENT, 3) == encode(REFUSAL).header
    assert header_of(STEP_CONTENT, 4) == encode(STEP).header
    assert header_of(UPDATE_CONTENT, 5) == encode(UPDATE).header
    assert header_of(WITNESSED_CONTENT, 6) == encode(WITNESSED).header


def with_body(body: bytes, kind: int = 1) -> bytes:
    return struct.pack(">BBI", WIRE_VERSION, kind, len(body)) + body


def changed(**values: Any) -> bytes:
    return header_of({**CONTENT, **values})


def without(name: str) -> bytes:
    return header_of({key: value for key, value in CONTENT.items() if key != name})


# name of the fault -> (header, vector, words of the error)
NEGATIVE: dict[str, tuple[bytes, Any, str]] = {
    "version 0": (header_of(CONTENT, version=0), VECTOR, "wire version 0"),
    "version 1": (header_of(REPLY_CONTENT, version=1), VECTOR, "wire version 1"),
    "version 2": (header_of(CONTENT, version=2), VECTOR, "wire version 2"),
    "version 4": (header_of(CONTENT, version=4), VECTOR, "wire version 4"),
    "kind 0": (header_of(CONTENT, 0), VECTOR, "kind 0"),
    "kind 7": (header_of(CONTENT, 7), VECTOR, "kind 7"),
    "no bytes": (b"", VECTOR, "header of 0 bytes"),
    "half a prefix": (HEADER[:5], VECTOR, "header of 5 bytes"),
    "prefix alone": (HEADER[:6], VECTOR, "length"),
    "truncated": (HEADER[:-1], VECTOR, "length"),
    "trailing byte": (HEADER + b"\n", VECTOR, "length"),
    "length one too small": (
        struct.pack(">BBI", WIRE_VERSION, 1, len(HEADER) - 7) + HEADER[6:],
        VECTOR,
        "length",
    ),
    "length little-endian": (struct.pack("<BBI", WIRE_VERSION, 1, len(HEADER) - 6) + HEADER[6:], VECTOR, "length"),
    "too long": (header_of({**CONTENT, "x": "y" * MAX_HEADER_BYTES}), VECTOR, "header of 6"),
    "trailing byte inside the length": (with_body(HEADER[6:] + b" "), VECTOR, "canonical"),
    "spaces": (with_body(json.dumps(CONTENT, sort_keys=True).encode()), VECTOR, "canonical"),
    "keys not sorted": (with_body(json.dumps(CONTENT, separators=(",", ":")).encode()), VECTOR, "canonical"),
    "a key twice": (with_body(b'{"round":3,' + HEADER[7:]), VECTOR, "canonical"),
    "round as 3.0": (with_body(HEADER[6:].replace(b":3}", b":3.0}")), VECTOR, "canonical"),
    "escaped letter": (with_body(HEADER[6:].replace(b"round", b"r\\u006fund")), VECTOR, "canonical"),
    "UTF-16": (with_body(HEADER[6:].decode().encode("utf-16-le")), VECTOR, "canonical"),
    "a list": (header_of([1]), VECTOR, "canonical"),
    "a number": (header_of(7), VECTOR, "canonical"),
    "not JSON": (with_body(b"{"), VECTOR, "not JSON"),
    "not UTF-8": (with_body(b'{"round":"\xff"}'), VECTOR, "not JSON"),
    "NaN": (with_body(HEADER[6:].replace(b":3}", b":NaN}")), VECTOR, "not JSON"),
    "number of 5000 digits": (with_body(b'{"round":' + b"9" * 5000 + b"}"), VECTOR, "not JSON"),
    "nested too deeply": (with_body(b"[" * 60_000), VECTOR, "not JSON"),
    "missing field": (without("attempt"), VECTOR, "fields of a TrainRequest"),
    "extra field": (changed(loss=1), VECTOR, "fields of a TrainRequest"),
    "vector's name as a field": (changed(model=[]), VECTOR, "fields of a TrainRequest"),
    "fields of another kind": (header_of(CONTENT, 3), None, "fields of a Refusal"),
    "round as bool": (changed(round=True), VECTOR, "round is not"),
    "round as text": (changed(round="3"), VECTOR, "round is not"),
    "round as null": (changed(round=None), VECTOR, "round is not"),
    "round as fraction": (changed(round=3.5), VECTOR, "round is not"),
    "round negative": (changed(round=-1), VECTOR, "round is not"),
    "round too large": (changed(round=2**31), VECTOR, "round is not"),
    "attempt as bool": (changed(attempt=False), VECTOR, "attempt is not"),
    "clip missing": (without("clip"), VECTOR, "fields of a TrainRequest"),
    "body as a field": (changed(body=""), VECTOR, "fields of a TrainRequest"),
    "statement in a request": (changed(statement=None), VECTOR, "fields of a TrainRequest"),
    "clip zero": (changed(clip=0), VECTOR, "clipping norm is not"),
    "clip negative": (changed(clip=-0.5), VECTOR, "clipping norm is not"),
    "clip too large": (changed(clip=10**12 + 1), VECTOR, "clipping norm is not"),
    "clip as bool": (changed(clip=True), VECTOR, "clipping norm is not"),
    "clip as text": (changed(clip="0.5"), VECTOR, "clipping norm is not"),
    "clip as list": (changed(clip=[0.5]), VECTOR, "clipping norm is not"),
    "clip infinite": (changed(clip=math.inf), VECTOR, "not JSON"),
    "clip past a float64": (with_body(HEADER[6:].replace(b"null", b"1e999")), VECTOR, "not JSON"),
    "clip not a number": (changed(clip=math.nan), VECTOR, "not JSON"),
    "clip in a reply": (header_of({**REPLY_CONTENT, "clip": 0.5}, 2), VECTOR, "fields of a TrainReply"),
    "digest as number": (changed(plan_digest=7), VECTOR, "plan_digest is not"),
    "digest too short": (changed(plan_digest=PLAN[:-1]), VECTOR, "plan_digest is not"),
    "digest too long": (changed(model_digest=MODEL + "0"), VECTOR, "model_digest is not"),
    "digest in capitals": (changed(model_digest=MODEL.upper()), VECTOR, "model_digest is not"),
    "digest in other digits": (changed(model_digest="٣" * 64), VECTOR, "model_digest is not"),
    "reason of its own": (
        header_of({**REFUSAL_CONTENT, "reason": "row 17 is ill"}, 3),
        None,
        "reason is not",
    ),
    "reason as number": (header_of({**REFUSAL_CONTENT, "reason": 1}, 3), None, "reason is not"),
    "no vector": (HEADER, None, "needs a vector"),
    "vector where none belongs": (header_of(REFUSAL_CONTENT, 3), VECTOR, "has no vector"),
    "float64 vector": (HEADER, VECTOR.astype(np.float64), "not a list of float32"),
    "float16 vector": (HEADER, VECTOR.astype(np.float16), "not a list of float32"),
    "integer vector": (HEADER, VECTOR.astype(np.int32), "not a list of float32"),
    "object vector": (HEADER, VECTOR.astype(object), "not a list of float32"),
    "big-endian vector": (HEADER, VECTOR.astype(">f4"), "not a list of float32"),
    "2-d vector": (HEADER, VECTOR[np.newaxis], "not a list of float32"),
    "0-d vector": (HEADER, np.array(1, dtype=np.float32), "not a list of float32"),
    "unsigned vector": (HEADER, WORDS, "not a list of float32"),
}


@pytest.mark.parametrize(("header", "vector", "words"), NEGATIVE.values(), ids=NEGATIVE.keys())
def test_bad_message(header: bytes, vector: Any, words: str) -> None:
    body = b"" if header[1:2] == b"\x01" else None  # every fault but its own is left out
    with pytest.raises(WireError, match=words) as caught:
        decode(Parts(header, body, vector))
    assert "ill" not in str(caught.value).split(), "the peer's text is not repeated"


STEP_HEADER = header_of(STEP_CONTENT, 4)
WITHOUT_STATEMENT = {"plan_digest": PLAN, "round": 3, "attempt": 0}

# name of the fault -> (parts, words of the error)
NEGATIVE_STEPS: dict[str, tuple[Parts, str]] = {
    "no body": (Parts(STEP_HEADER), "SecureMessage needs a body"),
    "no body beside a vector": (Parts(STEP_HEADER, None, WORDS), "SecureMessage needs a body"),
    "no body of a request": (Parts(HEADER, None, VECTOR), "TrainRequest needs a body"),
    "empty body where none belongs": (Parts(header_of(REFUSAL_CONTENT, 3), b""), "Refusal has no body"),
    "body of an update": (Parts(header_of(REPLY_CONTENT, 2), BODY, VECTOR), "TrainReply has no body"),
    "body of a refusal": (Parts(header_of(REFUSAL_CONTENT, 3), BODY), "Refusal has no body"),
    "body in the header": (Parts(header_of({**STEP_CONTENT, "body": "x"}, 4), BODY), "fields of a SecureMessage"),
    "vector in the header": (Parts(header_of({**STEP_CONTENT, "masked": []}, 4), BODY), "fields of a SecureMessage"),
    "fields of a request": (Parts(header_of(CONTENT, 4), BODY), "fields of a SecureMessage"),
    "no attempt": (
        Parts(header_of({"plan_digest": PLAN, "round": 3, "statement": None}, 4), BODY),
        "fields of a SecureMessage",
    ),
    "no statement": (Parts(header_of(WITHOUT_STATEMENT, 4), BODY), "fields of a SecureMessage"),
    "statement beside no masked input": (
        Parts(header_of({**STEP_CONTENT, "statement": "{}"}, 4), BODY),
        "beside something else than a masked input",
    ),
    "attempt as bool": (Parts(header_of({**STEP_CONTENT, "attempt": False}, 4), BODY), "attempt is not"),
    "round too large": (Parts(header_of({**STEP_CONTENT, "round": 2**31}, 4), BODY), "round is not"),
    "digest in capitals": (Parts(header_of({**STEP_CONTENT, "plan_digest": PLAN.upper()}, 4), BODY), "plan_digest is"),
    "update in clear": (Parts(STEP_HEADER, BODY, VECTOR), "not a list of uint32"),
    "signed vector": (Parts(STEP_HEADER, BODY, WORDS.astype(np.int32)), "not a list of uint32"),
    "uint64 vector": (Parts(STEP_HEADER, BODY, WORDS.astype(np.uint64)), "not a list of uint32"),
    "uint16 vector": (Parts(STEP_HEADER, BODY, WORDS.astype(np.uint16)), "not a list of uint32"),
    "object vector": (Parts(STEP_HEADER, BODY, WORDS.astype(object)), "not a list of uint32"),
    "big-endian vector": (Parts(STEP_HEADER, BODY, WORDS.astype(">u4")), "not a list of uint32"),
    "2-d vector": (Parts(STEP_HEADER, BODY, WORDS[np.newaxis]), "not a list of uint32"),
    "0-d vector": (Parts(STEP_HEADER, BODY, np.array(1, dtype=np.uint32)), "not a list of uint32"),
}


@pytest.mark.parametrize(("parts", "words"), NEGATIVE_STEPS.values(), ids=NEGATIVE_STEPS.keys())
def test_bad_message_of_secure_aggregation(parts: Parts, words: str) -> None:
    with pytest.raises(WireError, match=words):
        decode(parts)


# name of the fault -> (parts, words of the error)
NEGATIVE_LOGS: dict[str, tuple[Parts, str]] = {
    "no body of an update": (Parts(header_of(UPDATE_CONTENT, 5)), "LogUpdate needs a body"),
    "no body of a witness": (Parts(header_of(WITNESSED_CONTENT, 6)), "Witnessed needs a body"),
    "vector of an update": (Parts(header_of(UPDATE_CONTENT, 5), BODY, VECTOR), "LogUpdate has no vector"),
    "vector of a witness": (Parts(header_of(WITNESSED_CONTENT, 6), BODY, WORDS), "Witnessed has no vector"),
    "no first": (Parts(header_of(WITHOUT_STATEMENT, 5), BODY), "fields of a LogUpdate"),
    "no size": (Parts(header_of(WITHOUT_STATEMENT, 6), BODY), "fields of a Witnessed"),
    "fields of each other": (Parts(header_of(UPDATE_CONTENT, 6), BODY), "fields of a Witnessed"),
    "first negative": (Parts(header_of({**UPDATE_CONTENT, "first": -1}, 5), BODY), "first is not"),
    "first as bool": (Parts(header_of({**UPDATE_CONTENT, "first": True}, 5), BODY), "first is not"),
    "size too large": (Parts(header_of({**WITNESSED_CONTENT, "size": 2**31}, 6), BODY), "size is not"),
    "size as text": (Parts(header_of({**WITNESSED_CONTENT, "size": "41"}, 6), BODY), "size is not"),
}


@pytest.mark.parametrize(("parts", "words"), NEGATIVE_LOGS.values(), ids=NEGATIVE_LOGS.keys())
def test_bad_message_of_the_log(parts: Parts, words: str) -> None:
    with pytest.raises(WireError, match=words):
        decode(parts)


BAD_STATEMENTS = {
    "empty": "",
    "too long": "x" * (MAX_STATEMENT_CHARACTERS + 1),
    "number": 1,
    "object": {"round": 3},
    "bool": True,
}


@pytest.mark.parametrize("statement", BAD_STATEMENTS.values(), ids=BAD_STATEMENTS.keys())
def test_bad_statement(statement: object) -> None:
    for parts in (
        Parts(header_of({**REPLY_CONTENT, "statement": statement}, 2), None, VECTOR),
        Parts(header_of({**STEP_CONTENT, "statement": statement}, 4), BODY, WORDS),
    ):
        with pytest.raises(WireError, match="the statement is not a short text"):
            decode(parts)


def test_longest_statement() -> None:
    reply = TrainReply(PLAN, 3, 0, MODEL, VECTOR, "é" * MAX_STATEMENT_CHARACTERS)
    assert decode(encode(reply)) == reply


@given(
    st.binary(max_size=300) | bodies.map(lambda tail: STEP_HEADER[:-1] + tail),
    st.none() | bodies,
    st.sampled_from([None, VECTOR, WORDS]),
)
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_refused_or_mean_exactly_themselves(noise: bytes, body: bytes | None, vector: Any) -> None:
    try:
        message = decode(Parts(noise, body, vector))
    except WireError:
        return
    again = encode(message)
    assert again == Parts(noise, body)
    assert again.vector is vector


@given(messages, st.data())
@settings(max_examples=50, deadline=None)
def test_a_changed_byte_is_refused_or_seen(message: Message, data: st.DataObject) -> None:
    parts = encode(message)
    place = data.draw(st.integers(0, len(parts.header) - 1))
    altered = bytearray(parts.header)
    altered[place] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(replace(parts, header=bytes(altered)))
    except WireError:
        return
    assert (type(other), other) != (type(message), message)
    assert encode(other) == Parts(bytes(altered), parts.body)


def test_version_fault_says_what_to_install() -> None:
    with pytest.raises(WireError, match=re.escape("install a release that speaks version 3")):
        decode(Parts(header_of(CONTENT, version=9), None, VECTOR))
