"""The messages of a training round, and their bytes. Knows no transport, no Flower and no torch.

A message is a header and, for most, one vector that travels beside it; some also have a body, whose bytes are those of
secure aggregation or of the audit log. The header is, by example::

    03 | 01 | 00 00 00 79 | {"attempt":0,"clip":null,"model_digest":"9f...","plan_digest":"c2...","round":3}

one byte of version, one of kind, four of length (big-endian), and canonical JSON (RFC 8785) with no bytes left
over. Only the fields below can travel: no loss, count or metric of a client has a place to stand in.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import rfc8785

from testudo_common.errors import WireError
from testudo_common.secagg.masking import Words
from testudo_common.vectors import Vector

WIRE_VERSION = 3
MAX_HEADER_BYTES = 1 << 16
MAX_STATEMENT_CHARACTERS = 2048
MAX_CLIP = 1e12  # from 2^53 on a whole number has no canonical JSON
_PREFIX = struct.Struct(">BBI")
_HEX_DIGITS = frozenset("0123456789abcdef")


class RefusalReason(StrEnum):
    """Why a client did not train. Fixed words: an exception's own text could carry data."""

    OTHER_PLAN = "other_plan"
    OTHER_MODEL = "other_model"
    PRIVACY_SPENT = "privacy_spent"
    NOT_ALLOWED = "not_allowed"
    NOT_APPROVED = "not_approved"
    LEDGER_UNUSABLE = "ledger_unusable"
    DATA_UNUSABLE = "data_unusable"
    REPLAYED = "replayed"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    UPDATE_USED = "update_used"
    PROTOCOL_BROKEN = "protocol_broken"
    TOO_FEW = "too_few"
    LOG_NOT_TRUSTED = "log_not_trusted"
    NOT_LOGGED = "not_logged"
    NO_QUORUM = "no_quorum"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Server to client: train from this model in this round.

    Attributes:
        plan_digest: SHA-256 of the plan, hex.
        round: 1 and up.
        attempt: 0 and up; a round that is started again counts up.
        model_digest: SHA-256 of ``model``, hex.
        model: ``float32[d]``.
        clip: S of this round, where the plan adapts it; None: the plan's own.
        body: The checkpoint of the audit log that holds this round, with its cosignatures; empty where the plan has no
            log.
    """

    plan_digest: str
    round: int
    attempt: int
    model_digest: str
    model: Vector = field(repr=False, compare=False)
    clip: float | None = None
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class TrainReply:
    """Client to server: the clipped meta-update, for the request that it names.

    Attributes:
        statement: The owner's signed contribution, as testudo_common.audit.statements encodes it; None where the plan
            has no log.
    """

    plan_digest: str
    round: int
    attempt: int
    model_digest: str
    update: Vector = field(repr=False, compare=False)
    statement: str | None = None


@dataclass(frozen=True, slots=True)
class SecureMessage:
    """Either way: one message of secure aggregation, for the round and attempt that it names.

    Attributes:
        body: As ``testudo_common.secagg.messages`` encodes it; that protocol checks it.
        masked: ``uint32[size]``, beside a masked input; None beside anything else.
        statement: Beside a masked input, as in a :class:`TrainReply`; None beside anything else.
    """

    plan_digest: str
    round: int
    attempt: int
    body: bytes = field(repr=False)
    masked: Words | None = field(default=None, repr=False, compare=False)
    statement: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Client to server: no update, and one of the fixed reasons."""

    plan_digest: str
    round: int
    attempt: int
    reason: RefusalReason


@dataclass(frozen=True, slots=True)
class LogUpdate:
    """Server to client: what is new in the audit log.

    Attributes:
        plan_digest: SHA-256 of the plan, hex.
        round: The one that is about to begin or is under way; 0: none is.
        attempt: 0 and up.
        first: Index of the first entry in ``body``.
        body: Entries and a checkpoint over them, as testudo_common.audit.extension encodes them.
    """

    plan_digest: str
    round: int
    attempt: int
    first: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Client to server: how far its mirror of the log has come, and what it has to say about it.

    Attributes:
        size: Entries in its mirror; where it is below ``first`` of the update, it needs the entries from there on.
        body: Its cosignature and statements, as testudo_common.audit.extension encodes them; empty where it needs more.
    """

    plan_digest: str
    round: int
    attempt: int
    size: int
    body: bytes = field(repr=False)


Message = TrainRequest | TrainReply | Refusal | SecureMessage | LogUpdate | Witnessed
Kind = type[TrainRequest] | type[TrainReply] | type[Refusal] | type[SecureMessage] | type[LogUpdate] | type[Witnessed]
_KINDS: dict[int, Kind] = {
    1: TrainRequest,
    2: TrainReply,
    3: Refusal,
    4: SecureMessage,
    5: LogUpdate,
    6: Witnessed,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_VECTOR_DTYPES: dict[type, tuple[str, type[np.generic]]] = {
    TrainRequest: ("model", np.float32),
    TrainReply: ("update", np.float32),
    SecureMessage: ("masked", np.uint32),
}
_BODY = "body"
_WITH_BODY = frozenset(kind for kind in _NUMBERS if _BODY in {item.name for item in fields(kind)})
_HEADERS_KEPT = 64  # of at most MAX_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Parts:
    """A message as it travels: three things side by side.

    Attributes:
        header: See the module.
        body: Of a kind that has one; None for any other.
        vector: ``float32[d]`` or ``uint32[size]``, or None.
    """

    header: bytes
    body: bytes | None = field(default=None, repr=False)
    vector: np.ndarray[Any, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def size_bytes(self) -> int:
        """Payload bytes."""
        return len(self.header) + len(self.body or b"") + (0 if self.vector is None else self.vector.nbytes)


def encode(message: Message) -> Parts:
    """``message`` as it travels; its vector is not copied."""
    vector_name, _ = _VECTOR_DTYPES.get(type(message), (None, None))
    values = (getattr(message, name) for name in _header_names(type(message)))  # type: ignore[arg-type]
    return Parts(
        _header(type(message), *values),  # type: ignore[arg-type]
        getattr(message, _BODY, None),
        getattr(message, vector_name) if vector_name else None,
    )


@lru_cache(maxsize=len(_KINDS))
def _header_names(kind: Kind) -> tuple[str, ...]:
    vector_name, _ = _VECTOR_DTYPES.get(kind, (None, None))
    return tuple(item.name for item in fields(kind) if item.name not in (vector_name, _BODY))


@lru_cache(maxsize=_HEADERS_KEPT, typed=True)
def _header(kind: Kind, *values: object) -> bytes:
    content = rfc8785.dumps(dict(zip(_header_names(kind), values, strict=True)))  # type: ignore[arg-type]
    return _PREFIX.pack(WIRE_VERSION, _NUMBERS[kind], len(content)) + content


def decode(parts: Parts) -> Message:
    """The message that travelled as ``parts``.

    The vector's length is not known here; whoever knows d checks it.

    Raises:
        WireError: Anything is not exactly as encoded: version, kind, length, fields, types, or the vector's dtype.
    """
    header = parts.header
    if len(header) < _PREFIX.size or len(header) > MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(header)} bytes")
    version, number, length = _PREFIX.unpack_from(header)
    if version != WIRE_VERSION:
        raise WireError(f"wire version {version}", remedy=f"install a release that speaks version {WIRE_VERSION}")
    if number not in _KINDS:
        raise WireError(f"message kind {number} is not known")
    if length != len(header) - _PREFIX.size:
        raise WireError("the header's length does not match its body")
    kind = _KINDS[number]
    content = _fields_in(kind, header[_PREFIX.size :])  # type: ignore[arg-type]  # a class is hashable
    has_body = kind in _WITH_BODY
    vector_name, dtype = _VECTOR_DTYPES.get(kind, (None, None))
    if (parts.body is None) == has_body:
        raise WireError(f"a {kind.__name__} {'needs a' if has_body else 'has no'} body")
    if (parts.vector is None) != (vector_name is None) and kind is not SecureMessage:
        raise WireError(f"a {kind.__name__} {'needs a' if vector_name else 'has no'} vector")
    if parts.vector is not None and (parts.vector.dtype != dtype or parts.vector.ndim != 1):
        raise WireError(f"the vector is not a list of {np.dtype(dtype).name}")
    if kind is SecureMessage and parts.vector is None and content["statement"] is not None:
        raise WireError("a statement beside something else than a masked input")
    rest: dict[str, Any] = {} if vector_name is None else {vector_name: parts.vector}
    if has_body:
        rest[_BODY] = parts.body
    return kind(**content, **rest)


@lru_cache(maxsize=_HEADERS_KEPT)
def _fields_in(kind: Kind, body: bytes) -> Mapping[str, Any]:
    """The checked fields of a header; many clients' messages of one step have the same."""
    content = _content(body)
    if set(content) != set(_header_names(kind)):  # type: ignore[arg-type]
        raise WireError(f"the fields of a {kind.__name__} are not as agreed")
    return MappingProxyType({name: _checked(name, value) for name, value in content.items()})


def _content(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
        canonical = rfc8785.dumps(content)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise WireError("the header's body is not JSON") from error
    if not isinstance(content, dict) or canonical != body:
        raise WireError("the header's body is not canonical JSON")
    return content


def _checked(name: str, value: object) -> object:
    if name in {"round", "attempt", "first", "size"}:
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise WireError(f"{name} is not a small whole number")
        return value
    if name == "clip":
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_CLIP:
            raise WireError("the clipping norm is not a positive number")
        return float(value)
    if name == "statement":
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_STATEMENT_CHARACTERS):
            raise WireError("the statement is not a short text")
        return value
    if name == "reason":
        if not isinstance(value, str) or value not in set(RefusalReason):
            raise WireError("the reason is not one of the agreed ones")
        return RefusalReason(value)
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= _HEX_DIGITS:
        raise WireError(f"{name} is not a SHA-256 in hex")
    return value
