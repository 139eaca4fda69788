"""Our messages in Flower's records, and back: the one place in common that speaks Flower, for both apps.

Header and body are a small ConfigRecord; a vector an ArrayRecord of its own, which Flower sends in chunks. dtype and
shape in a record are claimed by the sender, so they are checked here; the length of the vector by who knows d.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.app.typing import ConfigRecordValues

from testudo_common.errors import WireError
from testudo_common.roster import MAX_CLIENT_ID_CHARACTERS, is_client_id
from testudo_common.wire import Message, Parts, decode, encode

TRAIN = "train"
IDENTIFY = "query.identify"
_RECORD = "testudo"
_HEADER = "header"
_BODY = "body"
_CLIENT_ID = "client_id"
_VECTOR = "vector"


def to_records(message: Message) -> RecordDict:
    """Records of their own for one message."""
    parts = encode(message)
    config: dict[str, ConfigRecordValues] = {_HEADER: parts.header}
    if parts.body is not None:
        config[_BODY] = parts.body
    records = RecordDict({_RECORD: ConfigRecord(config)})
    if parts.vector is not None:
        records[_VECTOR] = ArrayRecord([parts.vector])
    return records


def from_records(records: RecordDict) -> Message:
    """The message in ``records``.

    Raises:
        WireError: They are not exactly the records of one message.
    """
    if not set(records) <= {_RECORD, _VECTOR} or _RECORD not in records.config_records:
        raise WireError("the records are not those of a message")
    config = records.config_records[_RECORD]
    header, body = config.get(_HEADER), config.get(_BODY)
    if not set(config) <= {_HEADER, _BODY} or not isinstance(header, bytes):
        raise WireError("the header is not bytes")
    if not isinstance(body, bytes | None):
        raise WireError("the body is not bytes")
    return decode(Parts(header, body, _vector_in(records) if _VECTOR in records else None))


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
    if not isinstance(name, str) or not is_client_id(name):
        raise WireError(f"a client's name must be 1 to {MAX_CLIENT_ID_CHARACTERS} printable characters")
    return name
