"""Replies that their owner signs, inside the message: whose reply it is, and to what. Knows no Flower and no round.

Flower authenticates a node by a signature over a timestamp, so a node that knows the id of another's message can answer
it, and whoever holds the SuperLink can answer for all. A signature here is Ed25519 (RFC 8032) with the key that the
roster holds for the client, over

    "testudo-reply-1" | run id | length, message id | length, client id | SHA-256 of the reply

lengths of four bytes and the run id of eight, big-endian. The message id is that of the request that is answered; none
is used twice, so no earlier reply can be shown again. SHA-256 is over the reply as it travels::

    length, header | 00, or 01 length, body | 00, or 01 (float32) or 02 (uint32), number of values, their bytes

with lengths and the number in eight bytes, and values little-endian. An identification is an empty header and no more:
its name is signed as the client id, and no message has an empty header.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from testudo_common.errors import ReplyError
from testudo_common.roster import Roster
from testudo_common.wire import Parts

SIGNATURE_BYTES: Final = 64
IDENTIFICATION: Final = Parts(b"")
"""What is signed of an answer to who a node is."""
_DOMAIN: Final = b"testudo-reply-1"
_VALUES = {np.dtype(np.float32): b"\x01", np.dtype(np.uint32): b"\x02"}
_NONE, _THERE = b"\x00", b"\x01"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reply is to: no two messages of a federation have the same.

    Attributes:
        run_id: Flower's, of the run.
        message_id: Flower's, of the message that is answered.
    """

    run_id: int
    message_id: str


@dataclass(frozen=True, slots=True)
class ReplySigner:
    """Signs an owner's replies.

    Attributes:
        client_id: The name under which the roster holds the key.
        key: The owner's.
    """

    client_id: str
    key: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, asked: Asked, reply: Parts) -> bytes:
        """The signature, 64 bytes; the reply's vector is read, and not copied.

        Raises:
            ReplyError: The reply has a vector of another type than a message can have.
        """
        return self.key.sign(_signed_bytes(self.client_id, asked, reply))


def verify_reply(roster: Roster, client_id: str, asked: Asked, reply: Parts, signature: bytes | None) -> None:
    """Return only if the roster holds ``client_id`` with the key that signed this reply to what was asked.

    Args:
        roster: Of the federation, as it is now.
        client_id: Whose reply it is said to be.
        asked: By whoever calls this, and not as the reply says.
        reply: As it travelled; it is not understood here.
        signature: Beside it; None: there was none.

    Raises:
        ReplyError: It does not, or they did not.
    """
    key = roster.members.get(client_id)
    if key is None:
        raise ReplyError("the roster does not hold it", where=client_id)
    if signature is None:
        raise ReplyError("the reply is not signed", where=client_id)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _signed_bytes(client_id, asked, reply))
    except (InvalidSignature, ValueError) as error:
        raise ReplyError("the reply is not signed with its key", where=client_id) from error


def _signed_bytes(client_id: str, asked: Asked, reply: Parts) -> bytes:
    message, client = asked.message_id.encode(), client_id.encode()
    named = (
        struct.pack(">QI", asked.run_id % (1 << 64), len(message)) + message + struct.pack(">I", len(client)) + client
    )
    return _DOMAIN + named + _digest_of(reply)


def _digest_of(reply: Parts) -> bytes:
    whole = hashlib.sha256(struct.pack(">Q", len(reply.header)) + reply.header)
    whole.update(_NONE if reply.body is None else _THERE + struct.pack(">Q", len(reply.body)) + reply.body)
    if reply.vector is None:
        whole.update(_NONE)
    else:
        whole.update(_kind_of(reply.vector) + struct.pack(">Q", reply.vector.size))
        whole.update(np.ascontiguousarray(reply.vector, reply.vector.dtype.newbyteorder("<")).data)
    return whole.digest()


def _kind_of(vector: np.ndarray[Any, Any]) -> bytes:
    kind = _VALUES.get(vector.dtype)
    if kind is None or vector.ndim != 1:
        raise ReplyError("its vector is of a type that no message has")
    return kind
