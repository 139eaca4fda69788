"""``testudo-client serve`` as a process of its own, and bare clients that ask it. No tests in here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from testudo_client.serving.proto import serve_pb2, serve_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]
PATH = os.pathsep.join(str(ROOT / name) for name in ("common", "client", "server", "simulations"))


@dataclass
class ServeProcess:
    """One that can be killed and started again on the same ports.

    Attributes:
        folder: The owner's.
        words: Further options.
        told: What it said of where it answers.
    """

    folder: Path
    words: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; returns once it answers."""
        http = self.told["http"].rpartition("//")[2] if self.told else "127.0.0.1:0"
        rpc = self.told["grpc"] if self.told else "127.0.0.1:0"
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "testudo_client.cli", "serve", str(self.folder), "--http", http, "--grpc", rpc,
                 "--json", *self.words],
                stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "PYTHONPATH": PATH},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.told = json.loads(line)

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "serve.log").read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its status."""
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(how)
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    @property
    def token(self) -> str:
        """That it asks for."""
        return Path(self.told["token_file"]).read_text()

    @property
    def http(self) -> tuple[str, int]:
        """Where it answers HTTP."""
        host, _, port = self.told["http"].rpartition("//")[2].rpartition(":")
        return host, int(port)


class HttpLine:
    """One connection that is made anew when it breaks.

    Args:
        server: That is asked.
    """

    def __init__(self, server: ServeProcess) -> None:
        self._server = server
        self._context = ssl.create_default_context(cafile=server.told["certificate"])
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, body: bytes, *, kind: str = "application/json", token: str | None = None,
        halfway: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[int, Any]:  # fmt: skip
        """Status and JSON of an answer; ``halfway`` is done when half of the body is on its way.

        Raises:
            OSError: The connection broke before the whole answer was there.
            asyncio.IncompleteReadError: The same.
        """
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token or self._server.token}\r\n"
            f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        try:
            if self._line is None:
                self._line = await asyncio.open_connection(*self._server.http, ssl=self._context, limit=1 << 23)
            reader, writer = self._line
            half = 0 if halfway is None else len(body) // 2
            writer.write(head + body[:half])
            if halfway is not None:
                await writer.drain()
                await halfway()
            writer.write(body[half:])
            lines = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(lines.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            answer = await reader.readexactly(length)
            if b"connection: close" in lines:
                self.close()
        except BaseException:
            self.close()
            raise
        return int(lines.split(b" ", 2)[1]), json.loads(answer)

    def close(self) -> None:
        """Leave."""
        if self._line is not None:
            self._line[1].close()
            self._line = None


class GrpcLine:
    """One channel.

    Args:
        server: That is asked.
    """

    def __init__(self, server: ServeProcess) -> None:
        credentials = grpc.ssl_channel_credentials(Path(server.told["certificate"]).read_bytes())
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
        self._channel = grpc.aio.secure_channel(server.told["grpc"], credentials, options=options)
        self._stub = serve_pb2_grpc.OwnModelStub(self._channel)
        self._metadata = (("authorization", f"Bearer {server.token}"),)

    async def predict(self, request: serve_pb2.PredictRequest) -> serve_pb2.PredictResponse:
        """An answer.

        Raises:
            grpc.aio.AioRpcError: There is none.
        """
        return await self._stub.Predict(request, metadata=self._metadata, timeout=60)

    async def close(self) -> None:
        """Leave."""
        await self._channel.close()
