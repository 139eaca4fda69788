"""Requests a second and p99 of an owner's server, beside asking the model directly in the same run.

The server is a process of its own, over TLS on loopback, with the token and with recording, as ``testudo-client serve``
starts it. Its load comes from this process, on the same machine: the two share its cores, so these are lower bounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
import torch

from testudo_client.personal.contract import ContractField, FeatureContract, Value
from testudo_client.personal.own_model import OwnModel
from testudo_client.personal.personalizer import Personalizer
from testudo_client.personal.versions import Version, VersionRecord, VersionStore
from testudo_client.serving.core import Core, Question
from testudo_client.serving.counts import Counts
from testudo_client.serving.proto import serve_pb2, serve_pb2_grpc
from testudo_common.errors import UsageError
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import read_parameters
from testudo_common.learning.models import build_model
from testudo_common.plan.load import parse_plan
from testudo_common.plan.sections import TableData
from testudo_simulations.benchmarks.measure import Measurement, Seconds, median_seconds

FIELDS, CLASSES, HIDDEN = 20, 6, 64
_SINGLES, _BATCHES, _BATCH_ROWS, _CONCURRENT = 1000, 40, 256, 32
Row = dict[str, Value]
Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Server:
    http: tuple[str, int]
    grpc: str
    certificate: Path
    token: str
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU so far, as Linux counts them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_serving(repeats: int) -> list[Measurement]:
    """Single requests one after the other, many at a time, and batches of rows, by HTTP and by gRPC."""
    torch.set_num_threads(1)
    version = _version()
    rng = np.random.default_rng(0)
    rows: list[Row] = [
        dict(zip(_names(), map(float, one), strict=True)) for one in rng.normal(size=(_BATCH_ROWS, FIELDS))
    ]
    direct = _direct(version, rows, repeats)
    together = asyncio.run(_together(version, rows, repeats))
    with tempfile.TemporaryDirectory(prefix="testudo-bench-") as folder, _server(Path(folder), version) as server:
        found = asyncio.run(_asked(server, rows, repeats))
    return [one for case, times, per in [together, *found] for one in _compared(case, times, per, direct)]


@dataclass(frozen=True, slots=True)
class _Direct:
    """Median seconds of one call, by rows in it: with contract and answer in words, and of the bare module."""

    personalizer: dict[int, Seconds]
    module: dict[int, Seconds]


@dataclass(frozen=True, slots=True)
class _Times:
    """Of one case.

    Attributes:
        requests: How many.
        wall: Seconds of all together.
        cpu: Seconds of CPU, of the server where there is one, of all together.
        each: Seconds of each request; empty where a client did not wait for each.
    """

    requests: int
    wall: float
    cpu: float
    each: Sequence[float] = ()


def _compared(case: str, times: _Times, rows: int, direct: _Direct) -> Iterator[Measurement]:
    rate, whole = times.requests * rows / times.wall, direct.personalizer[rows]
    name, bare = "Personalizer.predict, the same rows", "the bare module, the same rows"
    yield Measurement(case, "rows_per_second", "1/s", rate, rows / whole.wall, name)
    yield Measurement(case, "rows_per_second", "1/s", rate, rows / direct.module[rows].wall, bare)
    yield Measurement(case, "cpu_seconds_a_request", "s", times.cpu / times.requests, whole.cpu, name)
    if times.each:
        p99 = float(np.quantile(times.each, 0.99))
        yield Measurement(case, "p99_seconds", "s", p99, whole.wall, f"{name} (median)")


async def _together(version: Version, rows: Sequence[Row], repeats: int) -> tuple[str, _Times, int]:
    """What answering together is worth: many single questions at a time to the core, without a face before it."""
    core = Core(Personalizer(version), Counts())

    async def ask() -> None:
        await core.ask(Question(rows[:1]))

    await _load([ask] * _CONCURRENT, _CONCURRENT)
    times = await _load([ask] * _CONCURRENT, _SINGLES * 2 * repeats)
    core.close()
    return f"core, {_CONCURRENT} at a time", times, 1


def _direct(version: Version, rows: Sequence[Row], repeats: int) -> _Direct:
    own = Personalizer(version)
    inputs = version.contract.encode(rows)
    found: dict[str, dict[int, Seconds]] = {"personalizer": {}, "module": {}}
    for count in (1, len(rows)):
        some, tensor = rows[:count], torch.from_numpy(inputs[:count])

        def bare(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                own.answerer.module(tensor)

        def whole(some: Sequence[Row] = some) -> None:
            own.predict(some)

        for name, work in (("personalizer", whole), ("module", bare)):
            found[name][count] = median_seconds(work, 200 * repeats)
    return _Direct(found["personalizer"], found["module"])


async def _asked(server: _Server, rows: Sequence[Row], repeats: int) -> list[tuple[str, _Times, int]]:
    found = []
    async with _Http(server) as http, _Grpc(server) as rpc:
        for face, asked in (("HTTP", http), ("gRPC", rpc)):
            single, batch = asked.asks(rows[:1]), asked.asks(rows)
            for case, asks, total, count in (
                ("one after the other", [single[0]], _SINGLES, 1),
                (f"{_CONCURRENT} at a time", single, _SINGLES * 2, 1),
                (f"batches of {len(rows)}", [batch[0]], _BATCHES, len(rows)),
            ):
                await _load(asks, len(asks) * 5)
                before = server.cpu()
                times = await _load(asks, total * repeats)
                found.append((f"{face}, {case}", replace(times, cpu=server.cpu() - before), count))
        for case, some, total in (("one row", rows[:1], _SINGLES * 2), (f"{len(rows)} rows", rows, _BATCHES)):
            before = server.cpu()
            times = await rpc.stream(some, total * repeats)
            found.append((f"gRPC stream, {case} a message", replace(times, cpu=server.cpu() - before), len(some)))
    return found


async def _load(asks: Sequence[Ask], total: int) -> _Times:
    """Ask ``total`` times, with as many requests in flight as there are ``asks``."""
    each: list[float] = []

    async def one_after_another(ask: Ask) -> None:
        for _ in range(total // len(asks)):
            began = time.perf_counter()
            await ask()
            each.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(one_after_another, asks))
    return _Times(len(each), time.perf_counter() - began, time.process_time() - cpu, each)


class _Http:
    """Keep-alive connections that do nothing but send a request and read its answer."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> _Http:
        context = ssl.create_default_context(cafile=str(self._server.certificate))
        for _ in range(_CONCURRENT):
            self._lines.append(await asyncio.open_connection(*self._server.http, ssl=context, limit=1 << 22))
        return self

    async def __aexit__(self, *_exit: object) -> None:
        for line in self._lines:
            line[1].close()

    def asks(self, rows: Sequence[Row]) -> list[Ask]:
        """A request on each connection."""
        body = json.dumps({"rows": rows}).encode()
        head = (
            f"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {self._server.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()

        def on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ask:
            async def ask() -> None:
                writer.write(head + body)
                lines = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(lines.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
                answer = await reader.readexactly(length)
                if b" 200 " not in lines[:16]:
                    raise UsageError("the server does not answer", remedy=answer.decode())

            return ask

        return [on(*line) for line in self._lines]


class _Grpc:
    """One channel, as a client keeps it."""

    def __init__(self, server: _Server) -> None:
        credentials = grpc.ssl_channel_credentials(server.certificate.read_bytes())
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 1 << 24)]
        self._channel = grpc.aio.secure_channel(server.grpc, credentials, options=options)
        self._stub = serve_pb2_grpc.OwnModelStub(self._channel)
        self._metadata = (("authorization", f"Bearer {server.token}"),)

    async def __aenter__(self) -> _Grpc:
        return self

    async def __aexit__(self, *_exit: object) -> None:
        await self._channel.close()

    def asks(self, rows: Sequence[Row]) -> list[Ask]:
        """The same request many times."""
        request = _message(rows)

        async def ask() -> None:
            await self._stub.Predict(request, metadata=self._metadata)

        return [ask] * _CONCURRENT

    async def stream(self, rows: Sequence[Row], total: int) -> _Times:
        """One stream of ``total`` messages, sent as fast as they are taken."""
        request = _message(rows)

        async def messages() -> AsyncIterator[serve_pb2.PredictRequest]:
            for _ in range(total):
                yield request

        began, cpu = time.perf_counter(), time.process_time()
        answers = [one async for one in self._stub.PredictStream(messages(), metadata=self._metadata)]
        return _Times(len(answers), time.perf_counter() - began, time.process_time() - cpu)


def _message(rows: Sequence[Row]) -> serve_pb2.PredictRequest:
    made = [
        serve_pb2.Row(fields={name: serve_pb2.Value(number=float(value or 0.0)) for name, value in row.items()})
        for row in rows
    ]
    return serve_pb2.PredictRequest(rows=made)


def _names() -> list[str]:
    return [f"x{number}" for number in range(FIELDS)]


def _version() -> Version:
    """A net of two hidden layers, as it was drawn: what it answers does not matter here."""
    plan = parse_plan(
        {
            "name": "bench",
            "data": {
                "federation": "csv", "client": "who", "target": "what",
                "columns": [{"name": name} for name in _names()],
                "labels": [f"c{number}" for number in range(CLASSES)],
            },
            "task": {"kind": "classification"},
            "model": {"name": "mlp", "hidden": [HIDDEN, HIDDEN], "inputs": [FIELDS], "outputs": CLASSES},
            "rounds": {"count": 1, "cohort_size": 2, "max_participations": 1},
            "secure_aggregation": {"mode": "plain"},
        },
        source="bench",
    )  # fmt: skip
    assert isinstance(plan.data, TableData)
    contract = FeatureContract(
        fields=tuple(ContractField(column=column, low=-10.0, high=10.0) for column in plan.data.columns or ())
    )
    vector = read_parameters(build_model(plan.model, plan.seed).parameters())
    centre = LocalCentre(np.zeros(FIELDS, dtype=np.float32), 0.0)
    own = OwnModel(plan, vector, centre, 1.0, Conformal.of(np.linspace(0.05, 0.95, 50)))
    record = VersionRecord(
        id=1, created=datetime.now(UTC).isoformat(), kind="adapted", meta_model="0" * 64, meta_round=1,
        plan_digest=plan.digest, contract_digest=contract.digest, rows=50, steps=1, private=False, epsilon=None,
        stays=True, contenders=(), promoted=True, reason="made for a benchmark",
    )  # fmt: skip
    return Version(record, own, contract)


@contextmanager
def _server(folder: Path, version: Version) -> Iterator[_Server]:
    store = VersionStore(folder)
    with store.changing():
        store.add(version)
        store.use(version.record.id, "promoted", datetime.now(UTC))
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "testudo_client.cli", "serve", str(folder), "--http", "127.0.0.1:0",
         "--grpc", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UsageError("the server did not start", remedy="start it by hand: testudo-client serve")
        told = json.loads(line)
        host, _, port = told["http"].removeprefix("https://").rpartition(":")
        token = Path(told["token_file"]).read_text(encoding="ascii")
        yield _Server((host, int(port)), told["grpc"], Path(told["certificate"]), token, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
