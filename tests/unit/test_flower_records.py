"""Our messages in Flower's records: there and back, and whatever a hostile peer puts into them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from testudo_common.errors import WireError
from testudo_common.flower_records import (
    MAX_CLIENT_ID_CHARACTERS,
    copies_of,
    from_records,
    identity_in,
    identity_records,
    records_of,
    reply_in,
    to_records,
)
from testudo_common.vectors import Vector
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest, decode, encode

DIGEST = "ab" * 32
VECTOR = np.array([1.0, -0.0, 3.5], dtype=np.float32)
REPLY = TrainReply(DIGEST, 1, 0, DIGEST, VECTOR)
REFUSAL = Refusal(DIGEST, 1, 0, RefusalReason.INTERNAL)
WORDS = np.array([0, 1, 2**32 - 1], dtype=np.uint32)
BODY = b"\x00 a body \xff"
MASKED = SecureMessage(DIGEST, 1, 0, BODY, WORDS)
STEP = SecureMessage(DIGEST, 1, 0, BODY)


@pytest.mark.parametrize("message", [TrainRequest(DIGEST, 1, 0, DIGEST, VECTOR), REPLY, REFUSAL])
def test_there_and_back(message: Message) -> None:
    again = from_records(to_records(message))
    assert again == message
    vector: Vector | None = getattr(again, "update", getattr(again, "model", None))
    if not isinstance(message, Refusal):
        assert vector is not None
        assert vector.tobytes() == VECTOR.tobytes()


def test_secure_aggregation_there_and_back() -> None:
    again = from_records(to_records(MASKED))
    assert again == MASKED
    assert isinstance(again, SecureMessage) and again.masked is not None
    assert (again.masked.dtype, again.masked.tobytes()) == (np.uint32, WORDS.tobytes())
    again = from_records(to_records(STEP))
    assert again == STEP
    assert isinstance(again, SecureMessage) and again.masked is None
    empty = SecureMessage(DIGEST, 1, 0, b"")
    assert from_records(to_records(empty)) == empty


def test_records_are_one_header_and_one_vector() -> None:
    records = to_records(REPLY)
    assert set(records) == {"testudo", "vector"}
    assert dict(records.config_records["testudo"]) == {"header": encode(REPLY).header}
    assert len(records.array_records["vector"]) == 1
    assert set(to_records(REFUSAL)) == {"testudo"}


@pytest.mark.parametrize("message", [TrainRequest(DIGEST, 1, 0, DIGEST, VECTOR), STEP, REFUSAL])
def test_copies_are_the_same_records_and_share_nothing_that_can_change(message: Message) -> None:
    copy = copies_of(message)
    one, other = copy(), copy()
    assert one == other == to_records(message)
    assert from_records(one) == message
    if isinstance(message, TrainRequest):
        first, second = (records.array_records["vector"]["0"] for records in (one, other))
        assert first.data is second.data, "a model's bytes, once for all"
        first.data = b"what a mod puts there"
    one["more"] = ConfigRecord({"by": "a mod"})
    one.config_records["testudo"]["header"] = b""
    assert other == copy() == to_records(message)


def test_records_of_secure_aggregation_are_header_and_body_and_one_vector() -> None:
    records = to_records(MASKED)
    assert set(records) == {"testudo", "vector"}
    assert dict(records.config_records["testudo"]) == {"header": encode(MASKED).header, "body": BODY}
    assert len(records.array_records["vector"]) == 1
    assert set(to_records(STEP)) == {"testudo"}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, VECTOR)
    return file.getvalue()


def npy(description: str, data: bytes = b"") -> bytes:
    """A file of numpy's format 1.0 that claims anything."""
    text = description.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


class Boom:
    """Unpickled, it would say so."""

    fired = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _fire, ()


def _fire() -> None:
    Boom.fired = True


def pickled_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Boom()], dtype=object), allow_pickle=True)
    return file.getvalue()


HOSTILE_ARRAYS = {
    "pickled objects": pickled_objects(),
    "bare pickle": pickle.dumps(Boom()),
    "npz archive": npz(),
    "broken zip": b"PK\x03\x04 and no more",
    "shape of petabytes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"),
    "shape that overflows": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40, 1 << 40)}"),
    "negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
    "half a header": npy("{'descr'"),
    "nested header": npy("(" * 4000),
    "no such type": npy("{'descr': 'q9', 'fortran_order': False, 'shape': (1,)}"),
    "structured": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"\0" * 4),
    "too few numbers": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", b"\0" * 11),
    "float64": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8),
    "2-d": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", b"\0" * 4),
    "text": b"hello",
    "nothing": b"",
}


def as_array(data: bytes, stype: str = "numpy.ndarray") -> Array:
    """Claims to be what is expected, whatever the bytes are."""
    return Array(dtype="float32", shape=(3,), stype=stype, data=data)


@pytest.mark.parametrize("data", HOSTILE_ARRAYS.values(), ids=HOSTILE_ARRAYS.keys())
def test_hostile_array(data: bytes) -> None:
    records = to_records(REPLY)
    records["vector"] = ArrayRecord({"0": as_array(data)})
    with pytest.raises(WireError, match="vector"):
        from_records(records)
    assert not Boom.fired


def test_hostile_array_with_true_bytes_is_read() -> None:
    """Otherwise the test above could pass for any array built by hand."""
    records = to_records(REPLY)
    file = io.BytesIO()
    np.save(file, VECTOR)
    records["vector"] = ArrayRecord({"0": as_array(file.getvalue())})
    assert from_records(records) == REPLY


def plus(**records: RecordDict | ArrayRecord | ConfigRecord | MetricRecord) -> RecordDict:
    changed = to_records(REPLY)
    for name, record in records.items():
        changed[name] = record  # type: ignore[assignment]
    return changed


def step_plus(**records: ArrayRecord | ConfigRecord) -> RecordDict:
    changed = to_records(MASKED)
    for name, record in records.items():
        changed[name] = record
    return changed


def minus(name: str) -> RecordDict:
    changed = to_records(REPLY)
    del changed[name]
    return changed


SIGNATURE = bytes(range(64))
HEADER = encode(REPLY).header
STEP_HEADER = encode(STEP).header
HOSTILE_RECORDS = {
    "no records": RecordDict(),
    "no header": minus("testudo"),
    "no vector": minus("vector"),
    "extra metrics": plus(metrics=MetricRecord({"loss": 0.5})),
    "extra arrays": plus(other=ArrayRecord([VECTOR])),
    "header as arrays": plus(testudo=ArrayRecord([VECTOR])),
    "vector as configuration": plus(vector=ConfigRecord({"0": 1.0})),
    "vector as metrics": plus(vector=MetricRecord({"0": [1.0, 2.0, 3.0]})),
    "no array": plus(vector=ArrayRecord([])),
    "two arrays": plus(vector=ArrayRecord([VECTOR, VECTOR])),
    "array of another kind": plus(vector=ArrayRecord({"0": as_array(b"", "torch.tensor")})),
    "header as text": plus(testudo=ConfigRecord({"header": HEADER.decode("latin-1")})),
    "header under another name": plus(testudo=ConfigRecord({"head": HEADER})),
    "signature beside a request": records_of(encode(REPLY), SIGNATURE),
    "empty configuration": plus(testudo=ConfigRecord({})),
    "more beside the header": plus(testudo=ConfigRecord({"header": HEADER, "loss": 0.5})),
    "header of an identity": plus(testudo=ConfigRecord({"client_id": "ada"})),
    "body beside an update": plus(testudo=ConfigRecord({"header": HEADER, "body": BODY})),
    "body without a header": plus(testudo=ConfigRecord({"body": BODY})),
    "no body": step_plus(testudo=ConfigRecord({"header": STEP_HEADER})),
    "body as text": step_plus(testudo=ConfigRecord({"header": STEP_HEADER, "body": "a body"})),
    "body as a list": step_plus(testudo=ConfigRecord({"header": STEP_HEADER, "body": [BODY]})),
    "body as a number": step_plus(testudo=ConfigRecord({"header": STEP_HEADER, "body": 0})),
    "body as an array": step_plus(
        testudo=ConfigRecord({"header": STEP_HEADER}), body=ArrayRecord([WORDS.astype(np.uint8)])
    ),
    "more beside the body": step_plus(testudo=ConfigRecord({"header": STEP_HEADER, "body": BODY, "loss": 0.5})),
    "update in clear beside a body": step_plus(vector=ArrayRecord([VECTOR])),
    "signed vector beside a body": step_plus(vector=ArrayRecord([WORDS.astype(np.int32)])),
    "two vectors beside a body": step_plus(vector=ArrayRecord([WORDS, WORDS])),
}


@pytest.mark.parametrize("records", HOSTILE_RECORDS.values(), ids=HOSTILE_RECORDS.keys())
def test_hostile_records(records: RecordDict) -> None:
    with pytest.raises(WireError):
        from_records(records)


@pytest.mark.parametrize("message", [REPLY, REFUSAL, MASKED, STEP])
def test_reply_with_its_signature_there_and_back(message: Message) -> None:
    for signature in (SIGNATURE, None):
        parts, found = reply_in(records_of(encode(message), signature))
        assert (decode(parts), found) == (message, signature)
    assert from_records(records_of(encode(message))) == message


@pytest.mark.parametrize(
    "signature",
    [b"", SIGNATURE[:-1], SIGNATURE + b"\0", SIGNATURE.hex(), 7, [1] * 64, True],
    ids=["empty", "a byte less", "a byte more", "text", "a number", "a list", "true"],
)
def test_hostile_signature(signature: bytes | str | int | list[int]) -> None:
    for config in ({"header": HEADER}, {"client_id": "ada"}):
        records = plus(testudo=ConfigRecord({**config, "signature": signature}))  # type: ignore[dict-item]
        with pytest.raises(WireError, match="the signature is not one"):
            (reply_in if "header" in config else identity_in)(records)


@pytest.mark.parametrize("name", ["ada", "Größe 1", "x" * MAX_CLIENT_ID_CHARACTERS])
def test_name_there_and_back(name: str) -> None:
    assert identity_in(identity_records(name)) == (name, None)
    assert identity_in(identity_records(name, SIGNATURE)) == (name, SIGNATURE)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(RecordDict(), id="nothing"),
        pytest.param(identity_records(""), id="empty"),
        pytest.param(identity_records("x" * (MAX_CLIENT_ID_CHARACTERS + 1)), id="too long"),
        pytest.param(identity_records("a\nb"), id="line break"),
        pytest.param(identity_records("a\x1b[2J"), id="terminal escape"),
        pytest.param(RecordDict({"testudo": ConfigRecord({"client_id": 7})}), id="a number"),
        pytest.param(RecordDict({"testudo": MetricRecord({"client_id": 7})}), id="metrics"),
        pytest.param(to_records(REFUSAL), id="another message"),
    ],
)
def test_not_a_name(records: RecordDict) -> None:
    with pytest.raises(WireError, match="name"):
        identity_in(records)
