"""Requests to the made-up clinic, good and malformed, with what has to come of each. Drawn from a seed. No tests."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from random import Random
from typing import Any

from testudo_client.serving.proto import serve_pb2

Row = dict[str, Any]
RAW = {"<nan>": b"NaN", "<inf>": b"1e999", "<huge>": b"9" * 400, "<long>": b"9" * 5000}


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        number: Of it.
        rows: Whose answers are expected; None: a refusal is.
        body: For HTTP.
        message: For gRPC; exactly one of the two.
        status: HTTP's, of the refusal.
        field: Which it has to name; None: none.
        row: Which row is at fault; None: it is no row's.
        kind: Content type.
        token: Another one than the server's.
    """

    number: int
    rows: list[Row] | None
    body: bytes | None = None
    message: serve_pb2.PredictRequest | None = None
    status: int = 422
    field: str | None = None
    row: int | None = None
    kind: str = "application/json"
    token: str | None = None


def good_row(rng: Random) -> Row:
    """One that the clinic's contract takes."""
    return {
        "age": rng.choice([round(rng.uniform(0, 100), 1), rng.randrange(0, 100)]),
        "pressure": rng.choice([None, rng.uniform(80, 180)]),
        "ward": rng.choice(["east", "west"]),
    }


# Change of a row -> the field that is named. By JSON alone: what a message of gRPC cannot hold.
BAD: list[tuple[Row, str]] = [
    ({"age": None}, "age"),
    ({"age": "thirty"}, "age"),
    ({"age": 1e6}, "age"),
    ({"age": -1e6}, "age"),
    ({"pressure": "high"}, "pressure"),
    ({"pressure": 1e39}, "pressure"),
    ({"ward": "north"}, "ward"),
    ({"ward": ""}, "ward"),
    ({"ward": 3.0}, "ward"),
    ({"ward": None}, "ward"),
    ({"agee": 30.0}, "agee"),
    ({"": 1.0}, ""),
]
BAD_JSON: list[tuple[Row, str]] = [
    ({"age": True}, "age"),
    ({"age": [30]}, "age"),
    ({"pressure": {}}, "pressure"),
    ({"age": "<inf>"}, "age"),
    ({"age": "<huge>"}, "age"),
    ({"ward": False}, "ward"),
]
BAD_GRPC: list[tuple[Row, str]] = [
    ({"age": math.nan}, "age"),
    ({"pressure": math.inf}, "pressure"),
    ({"ward": "<empty>"}, "ward"),
]


def cases(seed: int, count: int, bad_share: float = 0.3) -> list[Case]:
    """``count`` of them, by turns for HTTP and gRPC."""
    rng = Random(seed)
    return [_case(rng, number, bad=rng.random() < bad_share) for number in range(count)]


def _case(rng: Random, number: int, *, bad: bool) -> Case:
    rows = [good_row(rng) for _ in range(rng.choice([1, 1, 1, 1, 2, 5, 20]))]
    http = number % 2 == 0
    if not bad:
        return Case(number, rows, body_of(rows) if http else None, None if http else message_of(rows))
    if http and rng.random() < 0.4:
        return _bad_body(rng, number, rows)
    change, field = rng.choice(BAD + (BAD_JSON if http else BAD_GRPC))
    place = rng.randrange(len(rows))
    rows[place] = {**rows[place], **change}
    given = body_of(rows) if http else None
    return Case(number, None, given, None if http else message_of(rows), field=field, row=place)


def _bad_body(rng: Random, number: int, rows: list[Row]) -> Case:
    body = body_of(rows)
    place = rng.randrange(len(body))
    bodies = [
        body[:place],
        body.replace(b'"age"', b'"ward"', 1),  # twice
        b"[" * rng.randrange(1, 100_000),
        body_of([{**rows[0], "age": rng.choice(["<nan>", "<long>"])}]),
        json.dumps({"rows": rows, "level": rng.choice([0, 1, "x", True])}).encode(),
        json.dumps({"rows": rows, "keys": ["same"] * (len(rows) + 1)}).encode(),
        body[:place] + b"\xff" + body[place + 1 :],
    ]
    drawn = rng.randrange(len(bodies) + 2)
    if drawn == len(bodies):
        return Case(number, None, body, status=415, kind="text/plain")
    if drawn > len(bodies):
        return Case(number, None, body, status=401, token="guessed")
    return Case(number, None, bodies[drawn], status=400)


def body_of(rows: list[Row]) -> bytes:
    """A request for HTTP; what JSON's writer would not write is put in as bytes."""
    body = json.dumps({"rows": rows}).encode()
    for mark, raw in RAW.items():
        body = body.replace(json.dumps(mark).encode(), raw)
    return body


def message_of(rows: list[Row]) -> serve_pb2.PredictRequest:
    """A request for gRPC."""
    return serve_pb2.PredictRequest(
        rows=[serve_pb2.Row(fields={name: _value(value) for name, value in row.items()}) for row in rows]
    )


def _value(value: Any) -> serve_pb2.Value:
    if value is None:
        return serve_pb2.Value(missing=True)
    if value == "<empty>":
        return serve_pb2.Value()
    return serve_pb2.Value(text=value) if isinstance(value, str) else serve_pb2.Value(number=value)
