"""Between the messages of serve.proto and what the core asks and answers. Knows no connection."""

from __future__ import annotations

from collections.abc import Mapping

from testudo_client.personal.contract import Value
from testudo_client.personal.personalizer import Personalizer, Prediction
from testudo_client.serving.cards import model_card
from testudo_client.serving.core import Question, Reply
from testudo_client.serving.limits import MAX_ROWS
from testudo_client.serving.proto import serve_pb2
from testudo_client.serving.questions import check_key
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_common.errors import Fault

_EMPTY = (serve_pb2.Value(), serve_pb2.Value(missing=False))


def question_of(request: serve_pb2.PredictRequest) -> Question:
    """What a request asks.

    Raises:
        RefusalError: A value has no kind, or a key is used twice or no text of a reasonable length.
    """
    if len(request.rows) > MAX_ROWS:
        problem = f"{len(request.rows)} rows"
        raise RefusalError(Reason.TOO_LARGE, problem, remedy=f"Send at most {MAX_ROWS} at a time")
    rows = [_row_of(row, place) for place, row in enumerate(request.rows)]
    given = [row.key and check_key(row.key) for row in request.rows]
    chosen = [key for key in given if key]
    if len(set(chosen)) != len(chosen):
        problem = "a key stands for two rows"
        raise RefusalError(Reason.MALFORMED, problem, remedy="Choose a new key for each row")
    return Question(rows, given if chosen else (), request.level if request.HasField("level") else None)


def outcomes_of(request: serve_pb2.FeedbackRequest) -> Mapping[str, Value]:
    """What turned out to be true, by key.

    Raises:
        RefusalError: As :func:`question_of`.
    """
    if len(request.outcomes) > MAX_ROWS:
        problem = f"{len(request.outcomes)} outcomes"
        raise RefusalError(Reason.TOO_LARGE, problem, remedy=f"Send at most {MAX_ROWS} at a time")
    found = {check_key(one.key): _value_of(one.value) for one in request.outcomes}
    if len(found) != len(request.outcomes):
        raise RefusalError(Reason.MALFORMED, "a key stands twice", remedy="Send one outcome for each key")
    return found


def _row_of(row: serve_pb2.Row, place: int) -> dict[str, Value]:
    try:
        return {name: _value_of(value) for name, value in row.fields.items()}
    except RefusalError as refusal:
        empty = [name for name, value in row.fields.items() if value in _EMPTY]
        faults = [Fault(name, refusal.problem, refusal.remedy) for name in empty]
        raise RefusalError(Reason.CONTRACT, f"row {place} has empty values", faults=faults, row=place) from refusal


def _value_of(value: serve_pb2.Value) -> Value:
    match value.WhichOneof("kind"):
        case "number":
            return value.number
        case "text":
            return value.text
        case "missing" if value.missing:
            return None
        case _:
            raise RefusalError(Reason.CONTRACT, "holds nothing", remedy="Set number, text or missing")


def answer_of(reply: Reply) -> serve_pb2.PredictResponse:
    """A reply as a message."""
    keys = reply.keys or [""] * len(reply.predictions)
    answers = [_answer_of(*one) for one in zip(keys, reply.predictions, strict=True)]
    return serve_pb2.PredictResponse(version=reply.version, level=reply.level, answers=answers)


def _answer_of(key: str, one: Prediction) -> serve_pb2.Answer:
    if one.label is None:
        return serve_pb2.Answer(key=key, sure=one.sure, value=one.value, low=one.low, high=one.high)
    return serve_pb2.Answer(
        key=key, sure=one.sure, label=one.label, probabilities=one.probabilities, possible=one.possible
    )


def refusal_message(refusal: RefusalError) -> serve_pb2.Refusal:
    """A refusal as a message."""
    faults = [
        serve_pb2.Fault(field=fault.key, problem=fault.problem, remedy=fault.remedy, row=refusal.row)
        for fault in refusal.faults
    ]
    return serve_pb2.Refusal(reason=refusal.reason.value, problem=refusal.problem, remedy=refusal.remedy, faults=faults)


def card_of(own: Personalizer) -> serve_pb2.ModelCardResponse:
    """The model card as a message."""
    card = model_card(own)
    fields = [serve_pb2.ContractField(**field) for field in card.pop("fields")]
    contenders = [serve_pb2.Contender(**contender) for contender in card.pop("contenders")]
    return serve_pb2.ModelCardResponse(**card, fields=fields, contenders=contenders)
