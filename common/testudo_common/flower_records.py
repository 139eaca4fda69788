"""Our messages in Flower's records, and back: the one place that knows these records, for both apps.

Header and body are a small ConfigRecord, with the signature of a reply beside them, which signed_replies.py verifies; a
vector is an ArrayRecord of its own, which Flower sends in chunks. dtype and shape in a record are claimed by the
sender, so they are checked here; the length of the vector by who knows d.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.typing import ConfigRecordValues

from testudo_common.errors import WireError
from testudo_common.roster import MAX_CLIENT_ID_CHARACTERS, is_client_id
from testudo_common.signed_replies import SIGNATURE_BYTES
from testudo_common.wire import Message, Parts, decode, encode

TRAIN = "train"
IDENTIFY = "query.identify"
_RECORD = "testudo"
_HEADER = "header"
_BODY = "body"
_CLIENT_ID = "client_id"
_SIGNATURE = "signature"
_VECTOR = "vector"
_ONLY = "0"  # the name that Flower gives the first of a list of arrays


def to_records(message: Message) -> RecordDict:
    """Records of their own for one message."""
    return records_of(encode(message))


def records_of(parts: Parts, signature: bytes | None = None) -> RecordDict:
    """The same for a message as it travels, with the signature of a reply beside it."""
    return _records(parts, signature, None if parts.vector is None else Array(parts.vector))


def copies_of(message: Message) -> Callable[[], RecordDict]:
    """What makes records for each of many that get the same message: of their own, since Flower's mods may replace any.

    The vector becomes bytes once, and these are shared: nobody can change them.
    """
    parts = encode(message)
    sent = None if parts.vector is None else Array(parts.vector)

    def copy() -> RecordDict:
        array = None if sent is None else Array(sent.dtype, sent.shape, sent.stype, sent.data)
        return _records(parts, None, array)

    return copy


def _records(parts: Parts, signature: bytes | None, array: Array | None) -> RecordDict:
    config: dict[str, ConfigRecordValues] = {_HEADER: parts.header}
    if parts.body is not None:
        config[_BODY] = parts.body
    if signature is not None:
        config[_SIGNATURE] = signature
    records = RecordDict({_RECORD: ConfigRecord(config)})
    if array is not None:
        records[_VECTOR] = ArrayRecord({_ONLY: array})
    return records


def from_records(records: RecordDict) -> Message:
    """The message in ``records``: of a request, which nobody signs.

    Raises:
        WireError: They are not exactly the records of one message.
    """
    parts, signature = reply_in(records)
    if signature is not None:
        raise WireError("a signature beside a request")
    return decode(parts)


def carries_vector(records: RecordDict) -> bool:
    """Whether there is a vector among them: of the server's messages, only those that ask to train have one."""
    return _VECTOR in records


def reply_in(records: RecordDict) -> tuple[Parts, bytes | None]:
    """A reply as it travelled, and the signature beside it; neither verified nor understood.

    Raises:
        WireError: They are not exactly the records of one message.
    """
    config = records.get(_RECORD)  # not by records.config_records, which makes a dictionary of them each time
    if not set(records) <= {_RECORD, _VECTOR} or not isinstance(config, ConfigRecord):
        raise WireError("the records are not those of a message")
    header, body = config.get(_HEADER), config.get(_BODY)
    if not set(config) <= {_HEADER, _BODY, _SIGNATURE} or not isinstance(header, bytes):
        raise WireError("the header is not bytes")
    if not isinstance(body, bytes | None):
        raise WireError("the body is not bytes")
    return Parts(header, body, _vector_in(records) if _VECTOR in records else None), _signature_in(config)


def _signature_in(config: ConfigRecord) -> bytes | None:
    signature = config.get(_SIGNATURE)
    if signature is not None and not (isinstance(signature, bytes) and len(signature) == SIGNATURE_BYTES):
        raise WireError("the signature is not one")
    return signature


def _vector_in(records: RecordDict) -> np.ndarray[Any, Any]:
    record = records[_VECTOR]
    if not isinstance(record, ArrayRecord):
        raise WireError("the vector cannot be read")
    try:
        (vector,) = record.to_numpy_ndarrays()
    except Exception as error:
        # A peer's bytes make numpy raise anything: MemoryError for a shape of petabytes, BadZipFile, TokenError.
        raise WireError("the vector cannot be read") from error
    if not isinstance(vector, np.ndarray):
        raise WireError("the vector cannot be read")  # the bytes of an .npz archive become an NpzFile
    return vector


def identity_records(client_id: str, signature: bytes | None = None) -> RecordDict:
    """A client's answer to who it is, with its signature where it has a key."""
    config: dict[str, ConfigRecordValues] = {_CLIENT_ID: client_id}
    if signature is not None:
        config[_SIGNATURE] = signature
    return RecordDict({_RECORD: ConfigRecord(config)})


def identity_in(records: RecordDict) -> tuple[str, bytes | None]:
    """The name a client gave, and the signature beside it, which is not verified.

    Raises:
        WireError: The name is missing, too long, or not printable; or what is beside it is no signature.
    """
    record = records.get(_RECORD)
    config = record if isinstance(record, ConfigRecord) else ConfigRecord()
    name = config.get(_CLIENT_ID)
    if not isinstance(name, str) or not is_client_id(name):
        raise WireError(f"a client's name must be 1 to {MAX_CLIENT_ID_CHARACTERS} printable characters")
    return name, _signature_in(config)
