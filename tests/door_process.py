"""A door as a process of its own, in front of something that answers as a SuperLink would. No tests in here."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from testudo_client.provisioning.connection import ConnectionFiles
from testudo_server.provisioning.folder import FederationFolder

PULL = "/v1/fleet/pull-messages"


@dataclass
class StandIn:
    """Answers every request with its path and body; keeps what it saw.

    Attributes:
        port: On loopback.
        seen: Paths.
        headers: Of the last request.
        status: To answer with.
        cuts: Whether it goes away in the middle of an answer.
    """

    certificate: Path
    key: Path
    port: int = 0
    seen: list[str] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    status: int = 200
    cuts: bool = False

    async def __call__(self, scope: dict, receive, send) -> None:  # type: ignore[no-untyped-def,type-arg]
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append(scope["path"])
        self.headers = dict(scope["headers"])
        lines = [(b"content-type", b"application/protobuf"), (b"x-internal", b"1"), (b"set-cookie", b"a=b")]
        answer = scope["path"].encode() + b"|" + body
        if self.status >= 500:
            answer = b"Traceback: secrets of the SuperLink"
        lines.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": lines})
        if self.cuts:
            await send({"type": "http.response.body", "body": answer[:5], "more_body": True})
            return
        await send({"type": "http.response.body", "body": answer})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen, on the same port as before if there was one."""
        config = uvicorn.Config(
            self, "127.0.0.1", self.port, ssl_certfile=self.certificate, ssl_keyfile=self.key, log_level="critical",
            lifespan="off",
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        thread.start()
        while not server.started:
            threading.Event().wait(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        yield
        server.should_exit = server.force_exit = True  # idle connections of the door's are not waited for
        thread.join(20)
        assert not thread.is_alive()


@dataclass
class DoorProcess:
    """A door that is open.

    Attributes:
        process: Its process.
        port: For owners.
        status_port: Of the status page.
        log: What it says.
    """

    folder: FederationFolder
    owners: dict[str, Path]
    process: subprocess.Popen[str]
    port: int
    status_port: int
    log: Path

    def context(self, client: str | None, root: Path | None = None) -> ssl.SSLContext:
        """TLS of an owner's; of nobody's."""
        context = ssl.create_default_context(cafile=str(root or self.folder.ca_certificate))
        if client is not None:
            files = ConnectionFiles(self.owners[client])
            context.load_cert_chain(files.client_certificate, files.client_key)
        return context

    def node_key(self, client: str) -> str:
        """The header of its node's key."""
        key = load_ssh_private_key(ConnectionFiles(self.owners[client]).node_key.read_bytes(), None).public_key()
        return b64encode(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()

    def raw(self, data: bytes, client: str | None = "shop-1", context: ssl.SSLContext | None = None) -> bytes:
        """Send ``data`` as it is; all that comes back until the door closes, or says nothing for a second."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            (context or self.context(client)).wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            with suppress(BrokenPipeError, ConnectionResetError):
                tls.sendall(data)
            answer = b""
            tls.settimeout(10)
            while not complete(answer):
                piece = tls.recv(1 << 16)
                if not piece:
                    break
                answer += piece
            return answer

    def ask(
        self, path: str, *, client: str = "shop-1", key_of: str | None = None, body: bytes = b"hello",
        method: str = "POST", context: ssl.SSLContext | None = None,
    ) -> tuple[int, bytes, bytes]:  # fmt: skip
        """A whole request as a SuperNode makes it: status, head and body of the answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/protobuf\r\n"
            f"content-length: {len(body)}\r\nflwr-public-key: {self.node_key(key_of or client)}\r\n\r\n"
        )
        return parsed(self.raw(head.encode() + body, client, context))


def parsed(answer: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head.lower(), body


def complete(answer: bytes) -> bool:
    """Whether a whole answer is there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    if end and length is not None:
        return len(body) >= int(length[1])
    return bool(end) and answer.endswith(b"0\r\n\r\n")


@contextmanager
def open_door(
    folder: FederationFolder, owners: dict[str, Path], run: Path, superlink: StandIn, *, parent: int | None = None
) -> Iterator[DoorProcess]:
    """Open it, and end it at the end."""
    log = run / "door.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "testudo_server.deployment.door", "--federation", str(folder.folder),
             "--out", str(run), "--superlink", f"127.0.0.1:{superlink.port}", "--superlink-ca",
             str(superlink.certificate), "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0",
             "--parent-pid", str(parent or os.getpid())],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ports = re.fullmatch(r"door ready listen=127\.0\.0\.1:(\d+) status=127\.0\.0\.1:(\d+)\n", line)
        assert ports is not None, (line, log.read_text())
        yield DoorProcess(folder, owners, process, int(ports[1]), int(ports[2]), log)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()  # type: ignore[union-attr]
