"""What can stand in a data owner's ledger: frozen values, each with one canonical form in bytes (RFC 8785).

Not the file (book.py), not the chain (chain.py), not the sums (account.py). An entry in bytes, broken here into lines:

    {"fingerprint":"5d41...","occasion":{"attempt":0,"plan_digest":"9f86...","purpose":"training","round":3},
     "plan_name":"digits","spending":{"client":[],"example":[[1.1,0.05,20]]},
     "time":"2026-03-01T12:00:00Z","type":"reserved","version":1}

An event is ``[noise multiplier, sample rate, steps]``. There is no epsilon in it: that is always computed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

import rfc8785

from testudo_common.errors import LedgerError, PrivacyError
from testudo_common.privacy.events import Events, SampledGaussian, Spending

VERSION: Final = 1
_RESTORE: Final = "restore the ledger from a copy, and adopt it"


class Purpose(StrEnum):
    """What privacy was spent for."""

    TRAINING = "training"
    SCORES = "scores"
    SUM = "sum"
    ADAPTATION = "adaptation"
    """An own model that was adapted by DP-SGD, and may be shown to others."""
    ELSEWHERE = "elsewhere"
    """Charged by hand: spent with another tool, or released in another way."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """When and what for: one answer of this owner to one request.

    Attributes:
        plan_digest: Of the plan, 64 hexadecimal digits; empty for what was spent elsewhere, or on an own model.
        round: From 1 on; 0 where there is none.
        attempt: Of the round, from 0 on.
        purpose: What the answer is.
    """

    plan_digest: str
    round: int
    attempt: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Opened:
    """The first entry of every ledger.

    Attributes:
        ledger_id: 32 random hexadecimal digits.
    """

    ledger_id: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """Privacy that counts as spent from now on and for ever, whatever becomes of what it was reserved for.

    Attributes:
        occasion: What it was asked for.
        plan_name: The plan's name, for people.
        fingerprint: Of the data, see fingerprint.py.
        spending: What it costs.
    """

    occasion: Occasion
    plan_name: str
    fingerprint: str
    spending: Spending


@dataclass(frozen=True, slots=True)
class Committed:
    """What a reservation bought was made and kept. For people; no sum depends on it.

    Attributes:
        reservation: Index of the reservation.
        digest: SHA-256 of what was made, in hexadecimal.
    """

    reservation: int
    digest: str


@dataclass(frozen=True, slots=True)
class Approved:
    """The owner approved a plan.

    Attributes:
        plan_digest: Which.
        plan_name: Its name, for people.
        policy_digest: Of the policy that it was approved under.
        client_id: The owner's name in the federation.
        signature: The owner's, in hexadecimal.
    """

    plan_digest: str
    plan_name: str
    policy_digest: str
    client_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The owner takes no further part in a plan. What is spent stays spent.

    Attributes:
        plan_digest: Which.
        client_id: The owner's name in the federation.
        signature: The owner's, in hexadecimal.
    """

    plan_digest: str
    client_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class NewData:
    """The owner says: this data shares no record with any data that stands in the ledger before this entry.

    Attributes:
        fingerprint: Of the data.
        statement: Why that is so, in the owner's words.
    """

    fingerprint: str
    statement: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """The owner accepted a ledger file that its anchors do not fit.

    Attributes:
        reason: In the owner's words.
        count: How many entries the furthest anchor had seen; 0 if there was none to read.
        head: The hash it had seen last, in hexadecimal; empty if there was none to read.
    """

    reason: str
    count: int
    head: str


Content = Opened | Reserved | Committed | Approved | Withdrawn | NewData | Adopted


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry in its place.

    Attributes:
        index: From 0 on.
        time: UTC, ``2026-03-01T12:00:00Z``; by this computer's clock, so that no rule depends on it.
        content: What it says.
        hash: Of this entry and all before it, 32 bytes.
    """

    index: int
    time: str
    content: Content
    hash: bytes


_KINDS: Final[Mapping[str, type[Content]]] = {kind.__name__.lower(): kind for kind in Content.__args__}
_FIELDS: Final = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS.values()}


def encode(time: str, content: Content) -> bytes:
    """The canonical bytes of an entry.

    Raises:
        LedgerError: A value has no canonical form, such as infinite noise.
    """
    kind = type(content)
    said: dict[str, Any] = {name: _plain(getattr(content, name)) for name in _FIELDS[kind]}
    try:
        return rfc8785.dumps({"type": kind.__name__.lower(), "version": VERSION, "time": time, **said})
    except (rfc8785.CanonicalizationError, ValueError) as error:
        raise LedgerError("an entry holds a value that cannot be written down", remedy="correct the plan") from error


def decode(data: bytes) -> tuple[str, Content]:
    """The time and content of an entry, from the bytes that :func:`encode` makes and from no others.

    Raises:
        LedgerError: A type, version or field is unknown or missing, or a value is not of its kind.
    """
    try:
        said = json.loads(data)
        if said.pop("version") != VERSION:
            raise LedgerError("an entry is of another version", remedy="use the version of Testudo that wrote it")
        kind, time = _KINDS[said.pop("type")], _text(said.pop("time"))
        if said.keys() != set(_FIELDS[kind]):
            raise ValueError("fields")
        content = kind(**{name: _READERS.get(name, _text)(value) for name, value in said.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PrivacyError) as error:
        raise LedgerError("an entry is not of the agreed format", remedy=_RESTORE) from error
    if encode(time, content) != data:
        raise LedgerError("an entry is not in its canonical form", remedy=_RESTORE)
    return time, content


def _plain(value: object) -> object:
    match value:
        case Occasion():
            return {name: getattr(value, name) for name in _OCCASION}
        case Spending():
            return {"example": _plain_events(value.example), "client": _plain_events(value.client)}
        case _:
            return value


def _plain_events(events: Events) -> list[list[float]]:
    return [[float(event.noise_multiplier), float(event.sample_rate), event.steps] for event in events]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("not a number of things")
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float}:
        raise TypeError("not a number")
    return float(value)  # type: ignore[arg-type]


def _occasion(value: Any) -> Occasion:
    if value.keys() != set(_OCCASION):
        raise ValueError("fields")
    return Occasion(
        _text(value["plan_digest"]), _natural(value["round"]), _natural(value["attempt"]), Purpose(value["purpose"])
    )


def _spending(value: Any) -> Spending:
    if value.keys() != {"example", "client"}:
        raise ValueError("fields")
    return Spending(_events(value["example"]), _events(value["client"]))


def _events(value: Any) -> Events:
    return tuple(SampledGaussian(_number(noise), _number(rate), _natural(steps)) for noise, rate, steps in value)


_OCCASION: Final = tuple(field.name for field in fields(Occasion))
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "occasion": _occasion,
    "spending": _spending,
    "reservation": _natural,
    "count": _natural,
}
