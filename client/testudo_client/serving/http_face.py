"""The HTTP face: JSON in, JSON out, health and metrics, as an ASGI application. Answers no row itself.

Every path but ``/healthz`` needs the token, and nothing of a body is read before it was shown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from testudo_client.serving.access import Token
from testudo_client.serving.cards import contract_schema, model_card
from testudo_client.serving.core import Reply
from testudo_client.serving.counts import CONTENT_TYPE
from testudo_client.serving.limits import BODY_SECONDS, MAX_BYTES
from testudo_client.serving.questions import read_outcomes, read_question
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_client.serving.service import Service

FACE = "http"
STATUS = {
    Reason.CONTRACT: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.MALFORMED: HTTPStatus.BAD_REQUEST,
    Reason.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Reason.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.UNAUTHORISED: HTTPStatus.UNAUTHORIZED,
    Reason.NOT_CONFIGURED: HTTPStatus.CONFLICT,
    Reason.FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
Answer = Callable[[Service, Request], Awaitable[Response]]


async def _predict(service: Service, request: Request) -> Response:
    reply = await service.predict(read_question(await _body(request)), FACE)
    return _json(as_json(reply))


async def _feedback(service: Service, request: Request) -> Response:
    outcomes = read_outcomes(await _body(request))
    unknown = await service.feedback(outcomes)
    return _json({"told": len(outcomes) - len(unknown), "unknown": unknown})


async def _adapt(service: Service, request: Request) -> Response:
    await _body(request, typed=False)
    made = await service.adapt()
    return _json({"promoted": made.promoted, "version": made.version, "reason": made.reason})


async def _card(service: Service, _: Request) -> Response:
    return _json(model_card(service.core.own))


async def _contract(service: Service, _: Request) -> Response:
    return _json(contract_schema(service.core.own.version.contract))


async def _metrics(service: Service, _: Request) -> Response:
    return Response(service.core.counts.exposed(), headers={**_HEADERS, "content-type": CONTENT_TYPE})


ROUTES: dict[str, dict[str, Answer]] = {
    "/v1/predict": {"POST": _predict},
    "/v1/feedback": {"POST": _feedback},
    "/v1/adapt": {"POST": _adapt},
    "/v1/model-card": {"GET": _card},
    "/v1/contract": {"GET": _contract},
    "/metrics": {"GET": _metrics},
}


def http_app(service: Service, token: Token) -> ASGIApp:
    """The application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = await _respond(service, token, Request(scope, receive))
        await response(scope, receive, send)

    return app


async def _respond(service: Service, token: Token, request: Request) -> Response:
    path, method = request.url.path, request.method
    if path == "/healthz" and method == "GET":
        return _json({"status": "serving"})
    answers = ROUTES.get(path)
    name = path.rpartition("/")[2] if answers else "unknown"
    try:
        with service.counted(FACE, name):
            if not token.admits(request.headers.get("authorization")):
                remedy = "Send Authorization: Bearer TOKEN, with the token from the server's folder"
                raise RefusalError(Reason.UNAUTHORISED, "no token, or a wrong one", remedy=remedy)
            if answers is None:
                raise _HttpError(HTTPStatus.NOT_FOUND, "there is nothing here", f"Ask {', '.join(ROUTES)}")
            if method not in answers:
                problem = "it is not asked with this method"
                raise _HttpError(HTTPStatus.METHOD_NOT_ALLOWED, problem, f"Use {', '.join(answers)}")
            return await answers[method](service, request)
    except _HttpError as refusal:
        return _refused(refusal, refusal.status)
    except RefusalError as refusal:
        return _refused(refusal, STATUS[refusal.reason])


class _HttpError(RefusalError):
    """A request that is no good HTTP of ours.

    Args:
        status: To answer with.
        problem: In a sentence.
        remedy: What to do about it.
    """

    def __init__(self, status: HTTPStatus, problem: str, remedy: str) -> None:
        self.status = status
        super().__init__(Reason.MALFORMED, problem, remedy=remedy)


async def _body(request: Request, *, typed: bool = True) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if typed and kind != "application/json":
        problem = "the content type is not application/json"
        raise _HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem, "Send JSON, and say so")
    too_large = RefusalError(Reason.TOO_LARGE, "the body is too large", remedy=f"Send at most {MAX_BYTES} bytes")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated[:20]) > MAX_BYTES:
        raise too_large
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                found += piece
                if len(found) > MAX_BYTES:
                    raise too_large
    except (TimeoutError, ClientDisconnect) as error:
        problem = f"the body was not there within {BODY_SECONDS:g} s"
        raise _HttpError(HTTPStatus.REQUEST_TIMEOUT, problem, "Send it again") from error
    return bytes(found)


def as_json(reply: Reply) -> dict[str, Any]:
    """Answers as HTTP gives them, with the ``key`` to tell an outcome by, where there is one."""
    keys = reply.keys or [""] * len(reply.predictions)
    each = zip(keys, reply.predictions, strict=True)
    answers = [{"key": key, **one.as_json()} if key else one.as_json() for key, one in each]
    return {"version": reply.version, "level": reply.level, "answers": answers}


def refusal_as_json(refusal: RefusalError) -> dict[str, Any]:
    """A refusal, with its faults."""
    faults = [
        {"field": fault.key, "problem": fault.problem, "remedy": fault.remedy, "row": refusal.row}
        for fault in refusal.faults
    ]
    return {
        "error": refusal.reason.value, "problem": refusal.problem, "remedy": refusal.remedy, "row": refusal.row,
        "faults": faults,
    }  # fmt: skip


def _refused(refusal: RefusalError, status: HTTPStatus) -> Response:
    found = _json(refusal_as_json(refusal), status)
    if refusal.reason is Reason.UNAUTHORISED:
        found.headers["www-authenticate"] = "Bearer"
    if refusal.reason is Reason.BUSY:
        found.headers["retry-after"] = "1"
    return found


def _json(found: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    text = json.dumps(found, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers=_HEADERS, media_type="application/json")
