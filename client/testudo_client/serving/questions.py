"""What HTTP sends as JSON, read strictly: a name twice, NaN, deep nesting or a key that nobody knows is refused.

RFC 8259 leaves those to the reader, and two readers that differ would answer two requests. Knows no contract.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from testudo_client.personal.contract import Value
from testudo_client.serving.core import Question
from testudo_client.serving.limits import MAX_KEY, MAX_ROWS
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_common.errors import Fault

_PREDICT = 'Send {"rows": [{"field": value}]}'
_FEEDBACK = 'Send {"outcomes": {"key": value}}'


def parse_json(body: bytes, remedy: str) -> dict[str, Any]:
    """The object in a body.

    Raises:
        RefusalError: It is no JSON object of ours.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _malformed("the body is not UTF-8", remedy) from error
    try:
        found = json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    except RefusalError:
        raise
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets in thousands
        raise _malformed("the body is not JSON", remedy) from error
    if not isinstance(found, dict):
        raise _malformed("the body is not a JSON object", remedy)
    return found


def read_question(body: bytes) -> Question:
    """``{"rows": [{"field": value}], "keys": ["..."], "level": 0.9}``; keys and level may be left out.

    Raises:
        RefusalError: The body is not that.
    """
    found = _known(parse_json(body, _PREDICT), {"rows", "keys", "level"}, _PREDICT)
    rows = found.get("rows")
    if not isinstance(rows, list):
        raise _malformed("rows is not a list", _PREDICT)
    if len(rows) > MAX_ROWS:
        raise RefusalError(Reason.TOO_LARGE, f"{len(rows)} rows", remedy=f"Send at most {MAX_ROWS} at a time")
    for place, row in enumerate(rows):
        _check_row(row, place)
    level = found.get("level")
    if level is not None and (isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0):
        raise _malformed("level is not a number between 0 and 1", "Send 0.9, say, or leave it out")
    return Question(rows, read_keys(found.get("keys"), len(rows)), level)


def read_keys(keys: Any, rows: int) -> Sequence[str]:
    """Keys that a caller chose, one a row; none where there are none.

    Raises:
        RefusalError: They are not that.
    """
    if keys is None:
        return ()
    if not isinstance(keys, list) or len(keys) != rows:
        raise _malformed("keys is not a list with a key for each row", _PREDICT)
    for key in keys:
        check_key(key)
    if len(set(keys)) != len(keys):
        raise _malformed("a key stands for two rows", "Choose a new key for each row")
    return keys


def check_key(key: object) -> str:
    """``key`` itself.

    Raises:
        RefusalError: It is no text of a reasonable length.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise _malformed("a key is not a printable text", f"Send 1 to {MAX_KEY} characters")
    return key


def read_outcomes(body: bytes) -> Mapping[str, Value]:
    """``{"outcomes": {"key": value}}``.

    Raises:
        RefusalError: The body is not that.
    """
    outcomes = _known(parse_json(body, _FEEDBACK), {"outcomes"}, _FEEDBACK).get("outcomes")
    if not isinstance(outcomes, dict):
        raise _malformed("outcomes is not an object", _FEEDBACK)
    if len(outcomes) > MAX_ROWS:
        raise RefusalError(Reason.TOO_LARGE, f"{len(outcomes)} outcomes", remedy=f"Send at most {MAX_ROWS} at a time")
    for key in outcomes:
        check_key(key)
    return outcomes


def _check_row(row: Any, place: int) -> None:
    if not isinstance(row, dict):
        raise RefusalError(Reason.CONTRACT, f"row {place} is not an object", remedy=_PREDICT, row=place)
    odd = [name for name, value in row.items() if isinstance(value, list | dict)]
    if odd:
        faults = [Fault(name[:MAX_KEY], "not one value", "Send a number, a text or null") for name in odd]
        raise RefusalError(Reason.CONTRACT, f"row {place} holds more than values", faults=faults, row=place)


def _known(found: dict[str, Any], names: set[str], remedy: str) -> dict[str, Any]:
    if not found.keys() <= names:
        raise _malformed(f"the body holds something else than {', '.join(sorted(names))}", remedy)
    return found


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _malformed("a name stands twice in one object", "Send each field once")
    return found


def _no_constant(_: str) -> NoReturn:
    raise _malformed("the body holds NaN or Infinity", "Send finite numbers, or null for a missing value")


def _malformed(problem: str, remedy: str) -> RefusalError:
    return RefusalError(Reason.MALFORMED, problem, remedy=remedy)
