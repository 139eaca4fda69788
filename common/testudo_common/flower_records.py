"""Our messages in Flower's records, and back: the one place in common that speaks Flower, for both apps.

A header is a small ConfigRecord; a vector an ArrayRecord of its own, which Flower sends in chunks. dtype and shape in
a record are claimed by the sender, so they are checked here; the length of the vector is checked by who knows d.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from testudo_common.errors import WireError
from testudo_common.wire import Message, decode, encode

TRAIN = "train"
IDENTIFY = "query.identify"
_RECORD = "testudo"
_HEADER = "header"
_CLIENT_ID = "client_id"
_VECTOR = "vector"
MAX_CLIENT_ID_CHARACTERS = 128


def to_records(message: Message) -> RecordDict:
    """Records of their own for one message."""
    header, vector = encode(message)
    records = RecordDict({_RECORD: ConfigRecord({_HEADER: header})})
    if vector is not None:
        records[_VECTOR] = ArrayRecord([vector])
    return records


def from_records(records: RecordDict) -> Message:
    """The message in ``records``.

    Raises:
        WireError: They are not exactly the records of one message.
    """
    if not set(records) <= {_RECORD, _VECTOR} or _RECORD not in records.config_records:
        raise WireError("the records are not those of a message")
    config = records.config_records[_RECORD]
    header = config.get(_HEADER)
    if set(config) != {_HEADER} or not isinstance(header, bytes):
        raise WireError("the header is not bytes")
    return decode(header, _vector_in(records) if _VECTOR in records else None)


def _vector_in(records: RecordDict) -> np.ndarray[Any, Any]:
    try:
        (vector,) = records.array_records[_VECTOR].to_numpy_ndarrays()
    except Exception as error:
        # A peer's bytes make numpy raise anything: MemoryError for a shape of petabytes, BadZipFile, TokenError.
        raise WireError("the vector cannot be read") from error
    if not isinstance(vector, np.ndarray):
        raise WireError("the vector cannot be read")  # the bytes of an .npz archive become an NpzFile
    return vector


def identity_records(client_id: str) -> RecordDict:
    """A client's answer to who it is."""
    return RecordDict({_RECORD: ConfigRecord({_CLIENT_ID: client_id})})


def client_id_in(records: RecordDict) -> str:
    """The name a client gave.

    Raises:
        WireError: It is missing, too long, or not printable.
    """
    config = records.config_records.get(_RECORD)
    name = config.get(_CLIENT_ID) if config is not None else None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_CLIENT_ID_CHARACTERS:
        raise WireError("a client's name must be 1 to 128 printable characters")
    return name
