"""The gRPC face: testudo.serve.v1 as proto/serve.proto states it, with gRPC's own health service and reflection.

Every call but the health service's needs the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from testudo_client.serving.access import Token
from testudo_client.serving.core import Question
from testudo_client.serving.limits import MAX_BYTES, MAX_REQUESTS, STREAM_WINDOW
from testudo_client.serving.messages import answer_of, card_of, outcomes_of, question_of, refusal_message
from testudo_client.serving.proto import serve_pb2, serve_pb2_grpc
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_client.serving.service import Service

FACE = "grpc"
SERVICE = serve_pb2.DESCRIPTOR.services_by_name["OwnModel"].full_name
REFUSAL_KEY = "testudo-refusal-bin"
_FAULTS_IN_WORDS = 3
_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"
CODES = {
    Reason.CONTRACT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.UNAUTHORISED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.NOT_CONFIGURED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FAILED: grpc.StatusCode.INTERNAL,
}
T = TypeVar("T")
Context = Any  # grpc.aio.ServicerContext, which has no types


class OwnModel(serve_pb2_grpc.OwnModelServicer):
    """The service's five methods.

    Args:
        service: What answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Predict(self, request: serve_pb2.PredictRequest, context: Context) -> serve_pb2.PredictResponse:  # noqa: N802
        """See serve.proto."""
        try:
            return await self._predicted(request, "predict")
        except RefusalError as refusal:
            await _abort(context, refusal)

    async def PredictStream(  # noqa: N802
        self,
        requests: AsyncIterator[serve_pb2.PredictRequest],
        context: Context,  # noqa: ARG002  # gRPC's signature
    ) -> AsyncIterator[serve_pb2.StreamAnswer]:
        """See serve.proto. Up to a window of requests is read ahead, so that they are answered together."""
        waiting: asyncio.Queue[asyncio.Task[serve_pb2.StreamAnswer] | None] = asyncio.Queue(STREAM_WINDOW)

        async def read() -> None:
            with suppress(Exception):  # whoever asked is gone: what was read is answered to nobody
                async for request in requests:
                    await waiting.put(asyncio.create_task(self._stream_answer(request)))
            await waiting.put(None)

        reading = asyncio.create_task(read())
        try:
            while (next_one := await waiting.get()) is not None:
                yield await next_one
        finally:
            reading.cancel()

    async def _stream_answer(self, request: serve_pb2.PredictRequest) -> serve_pb2.StreamAnswer:
        try:
            return serve_pb2.StreamAnswer(response=await self._predicted(request, "predict_stream"))
        except RefusalError as refusal:
            return serve_pb2.StreamAnswer(refusal=refusal_message(refusal))

    async def _predicted(self, request: serve_pb2.PredictRequest, method: str) -> serve_pb2.PredictResponse:
        with self._service.counted(FACE, method):
            question: Question = question_of(request)
            return answer_of(await self._service.predict(question, FACE))

    async def Feedback(self, request: serve_pb2.FeedbackRequest, context: Context) -> serve_pb2.FeedbackResponse:  # noqa: N802
        """See serve.proto."""

        async def work() -> serve_pb2.FeedbackResponse:
            outcomes: Mapping[str, Any] = outcomes_of(request)
            unknown = await self._service.feedback(outcomes)
            return serve_pb2.FeedbackResponse(told=len(outcomes) - len(unknown), unknown=unknown)

        return await self._counted("feedback", work, context)

    async def Adapt(self, request: serve_pb2.AdaptRequest, context: Context) -> serve_pb2.AdaptResponse:  # noqa: N802, ARG002
        """See serve.proto."""

        async def work() -> serve_pb2.AdaptResponse:
            made = await self._service.adapt()
            return serve_pb2.AdaptResponse(promoted=made.promoted, version=made.version, reason=made.reason)

        return await self._counted("adapt", work, context)

    async def ModelCard(self, request: serve_pb2.ModelCardRequest, context: Context) -> serve_pb2.ModelCardResponse:  # noqa: N802, ARG002
        """See serve.proto."""

        async def work() -> serve_pb2.ModelCardResponse:
            return card_of(self._service.core.own)

        return await self._counted("model-card", work, context)

    async def _counted(self, method: str, work: Callable[[], Awaitable[T]], context: Context) -> T:
        try:
            with self._service.counted(FACE, method):
                return await work()
        except RefusalError as refusal:
            await _abort(context, refusal)


async def _abort(context: Context, refusal: RefusalError) -> NoReturn:
    details = "; ".join([str(refusal), *map(str, refusal.faults[:_FAULTS_IN_WORDS])])  # metadata has 8 KiB
    metadata = ((REFUSAL_KEY, refusal_message(refusal).SerializeToString()),)
    await context.abort(CODES[refusal.reason], details, metadata)
    raise AssertionError("abort raises")  # for whoever reads; it does


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Turns away whoever does not show the token.

    Args:
        token: The one.
        service: Counts.
    """

    def __init__(self, token: Token, service: Service) -> None:
        self._token, self._service = token, service

        async def refuse(_: object, context: Context) -> None:
            await _abort(context, _UNAUTHORISED)

        self._refuse = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """gRPC's hook."""
        shown = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
        if details.method.startswith(_HEALTH) or self._token.admits(shown):
            return await continuation(details)
        self._service.core.counts.requests.labels(FACE, "unknown", Reason.UNAUTHORISED.value).inc()
        return self._refuse


_UNAUTHORISED = RefusalError(
    Reason.UNAUTHORISED, "no token, or a wrong one",
    remedy="Send the metadata authorization: Bearer TOKEN, with the token from the server's folder",
)  # fmt: skip


async def grpc_server(service: Service, token: Token) -> tuple[Any, health_aio.HealthServicer]:
    """A server that listens nowhere yet, and its health."""
    server = grpc.aio.server(
        interceptors=[TokenInterceptor(token, service)],
        options=[
            ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_BYTES),
            ("grpc.max_concurrent_streams", MAX_REQUESTS), ("grpc.max_metadata_size", 1 << 14),
        ],
        maximum_concurrent_rpcs=MAX_REQUESTS,
    )  # fmt: skip
    serve_pb2_grpc.add_OwnModelServicer_to_server(OwnModel(service), server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    for name in ("", SERVICE):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, health
