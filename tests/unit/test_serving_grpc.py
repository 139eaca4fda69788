"""The gRPC face on loopback: answers, streams that outlive a refusal, who may ask; and the proto is what runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from own_models import CLINIC_ROWS, SHOP, SHOP_ROWS, make_version
from serve_cases import BAD, BAD_GRPC, message_of
from testudo_client.observations import Observations
from testudo_client.personal.personalizer import Personalizer
from testudo_client.serving import proto
from testudo_client.serving.access import Token
from testudo_client.serving.core import Core
from testudo_client.serving.counts import Counts
from testudo_client.serving.grpc_face import REFUSAL_KEY, grpc_server
from testudo_client.serving.proto import serve_pb2, serve_pb2_grpc
from testudo_client.serving.recorder import Recorder
from testudo_client.serving.service import Adapted, Service

TOKEN = Token("t" * 43)
SHOWN = (("authorization", f"Bearer {TOKEN.secret}"),)
Work = Callable[[Any, Any], Awaitable[None]]


def ask(work: Work, folder: Path | None = None, tables: Any = None, adapt: Any = None) -> None:
    """Do ``work`` with a stub and its channel."""

    async def run() -> None:
        counts = Counts()
        recorder = None if folder is None else Recorder(Observations(folder), counts.unrecorded.inc)
        core = Core(Personalizer(make_version(tables=tables)), counts, recorder)
        server, _ = await grpc_server(Service(core, adapt), TOKEN)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = [("grpc.enable_http_proxy", 0)]
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                await work(serve_pb2_grpc.OwnModelStub(channel), channel)
        finally:
            await server.stop(None)
            if recorder is not None:
                await recorder.close()
            core.close()

    asyncio.run(run())


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, serve_pb2.Refusal]:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    raw = dict(error.value.trailing_metadata() or ()).get(REFUSAL_KEY, b"")
    return error.value.code(), serve_pb2.Refusal.FromString(raw)


@pytest.mark.network
def test_rows_are_answered_and_outcomes_told(tmp_path: Path) -> None:
    async def work(stub: Any, _: Any) -> None:
        request = message_of(CLINIC_ROWS)
        request.rows[0].key = "p1"
        answer = await stub.Predict(request, metadata=SHOWN)
        assert answer.version == 1 and answer.level == 0.9 and answer.answers[0].key == "p1"
        for one, expected in zip(answer.answers, Personalizer(make_version()).predict(CLINIC_ROWS), strict=True):
            assert (one.label, one.sure, tuple(one.possible)) == (expected.label, expected.sure, expected.possible)
            assert dict(one.probabilities) == pytest.approx(dict(expected.probabilities), abs=1e-6)
            assert not one.HasField("value")
        outcomes = [
            serve_pb2.Outcome(key=key, value=serve_pb2.Value(text="yes")) for key in ("p1", answer.answers[1].key, "x")
        ]
        told = await stub.Feedback(serve_pb2.FeedbackRequest(outcomes=outcomes), metadata=SHOWN)
        assert told.told == 2 and list(told.unknown) == ["x"]
        card = await stub.ModelCard(serve_pb2.ModelCardRequest(), metadata=SHOWN)
        assert card.contract_digest == make_version().contract.digest and card.stays
        assert [one.name for one in card.fields] == ["age", "pressure", "ward"]

    ask(work, tmp_path)


@pytest.mark.network
def test_a_number_has_ends_only_where_they_are_known() -> None:
    async def work(stub: Any, _: Any) -> None:
        request = message_of(SHOP_ROWS)
        known = (await stub.Predict(request, metadata=SHOWN)).answers[0]
        request.level = 0.99
        unknown = (await stub.Predict(request, metadata=SHOWN)).answers[0]
        assert 0 < known.low < known.value < known.high and not known.label
        assert unknown.value == known.value and not unknown.HasField("low") and not unknown.HasField("high")

    ask(work, tables=SHOP)


@pytest.mark.network
def test_a_stream_is_answered_in_order_and_a_refusal_does_not_end_it() -> None:
    async def work(stub: Any, _: Any) -> None:
        bad = message_of([CLINIC_ROWS[0], {**CLINIC_ROWS[1], "ward": "north"}])
        asked = [message_of(CLINIC_ROWS[:1]), bad, message_of(CLINIC_ROWS)] * 60

        async def requests() -> AsyncIterator[serve_pb2.PredictRequest]:
            for one in asked:
                yield one

        answers = [one async for one in stub.PredictStream(requests(), metadata=SHOWN)]
        assert [len(one.response.answers) for one in answers] == [1, 0, 2] * 60
        assert [one.WhichOneof("result") for one in answers[:3]] == ["response", "refusal", "response"]
        fault = answers[1].refusal.faults[0]
        assert (fault.field, fault.row) == ("ward", 1)

    ask(work)


@pytest.mark.network
def test_a_broken_contract_names_the_field() -> None:
    async def work(stub: Any, _: Any) -> None:
        for change, name in BAD + BAD_GRPC:
            code, refusal = await refused(stub.Predict(message_of([{**CLINIC_ROWS[0], **change}]), metadata=SHOWN))
            assert code is grpc.StatusCode.INVALID_ARGUMENT, change
            assert [fault.field for fault in refusal.faults] == [name]
        twice = message_of(CLINIC_ROWS)
        twice.rows[0].key = twice.rows[1].key = "same"
        code, _ = await refused(stub.Predict(twice, metadata=SHOWN))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        many = {f"{'n' * 500}{number}": 1.0 for number in range(200)}
        code, refusal = await refused(stub.Predict(message_of([many]), metadata=SHOWN))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "faults more" in refusal.problem, "it fits into metadata"
        code, _ = await refused(stub.Predict(message_of([{}] * 4097), metadata=SHOWN))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    ask(work)


@pytest.mark.network
def test_nobody_is_told_anything_without_the_token_but_that_it_serves() -> None:
    async def work(stub: Any, channel: Any) -> None:
        for shown in ((), (("authorization", "Bearer wrong"),)):
            for call in (
                stub.Predict(message_of(CLINIC_ROWS), metadata=shown),
                stub.ModelCard(serve_pb2.ModelCardRequest(), metadata=shown),
                stub.PredictStream(iter([message_of(CLINIC_ROWS)]), metadata=shown).read(),
                reflected(channel, shown),
            ):
                assert (await refused(call))[0] is grpc.StatusCode.UNAUTHENTICATED
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert "testudo.serve.v1.OwnModel" in await reflected(channel, SHOWN)

    ask(work)


async def reflected(channel: Any, shown: Any) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    answer = await stub.ServerReflectionInfo(iter(asked), metadata=shown).read()
    return [one.name for one in answer.list_services_response.service]


@pytest.mark.network
def test_an_adaptation_is_asked_for_or_there_is_nothing_to_adapt_from() -> None:
    async def without(stub: Any, _: Any) -> None:
        code, refusal = await refused(stub.Adapt(serve_pb2.AdaptRequest(), metadata=SHOWN))
        assert code is grpc.StatusCode.FAILED_PRECONDITION and refusal.reason == "not_configured"

    async def with_one(stub: Any, _: Any) -> None:
        made = await stub.Adapt(serve_pb2.AdaptRequest(), metadata=SHOWN)
        assert (made.promoted, made.version, made.reason) == (False, 4, "the one in use is better")

    ask(without)
    ask(with_one, adapt=lambda: Adapted(False, 4, "the one in use is better"))


NAMES = {
    FieldDescriptor.TYPE_DOUBLE: "double", FieldDescriptor.TYPE_STRING: "string", FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "uint32",
}  # fmt: skip


def test_what_protoc_made_is_what_the_proto_states() -> None:
    """Read with two patterns, since protoc is not there: messages, fields with type and number, and methods."""
    assert proto.__file__ is not None
    text = re.sub(r"//.*", "", (Path(proto.__file__).parent / "serve.proto").read_text())
    stated: dict[str, set[tuple[str, str, int]]] = {}
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        found = re.findall(r"(?:(?:repeated|optional) )?(map<[^>]+>|\w+) (\w+) = (\d+);", body)
        stated[name] = {(kind.replace(" ", ""), field, int(number)) for kind, field, number in found}
    made: dict[str, set[tuple[str, str, int]]] = {
        name: {(_kind(field), field.name, field.number) for field in message.fields}
        for name, message in serve_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    assert stated == made
    methods = re.findall(r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);", text)
    service = serve_pb2.DESCRIPTOR.services_by_name["OwnModel"]
    assert {(name, one, two) for name, _, one, _, two in methods} == {
        (method.name, method.input_type.name, method.output_type.name) for method in service.methods
    }


def _kind(field: Any) -> str:
    if field.message_type is None:
        return NAMES[field.type]
    if field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        return f"map<{_kind(key)},{_kind(value)}>"
    return str(field.message_type.name)
