"""A server that answers like a federation's door, on loopback and with mutual TLS, for tests. No tests in here."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time

from testudo_client.provisioning.connection import Connection, ConnectionFiles


@dataclass
class FakeDoor:
    """What it does.

    Attributes:
        port: Of loopback.
        files: Path -> what is answered with status 200; others are not found.
        status: Instead of 200, where it is not 0.
        ahead_seconds: How far its clock is ahead of this computer's; None: it does not say.
        asked: Paths that were asked for.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 0
    ahead_seconds: float | None = 0.0
    asked: list[str] = field(default_factory=list)

    def connection(self, owner: Path, host: str = "localhost") -> Connection:
        """An owner's way to it."""
        return Connection("shops", host, self.port, ConnectionFiles(owner))


@contextmanager
def fake_door(certificate: Path, key: Path, client_ca: Path, host: str = "127.0.0.1") -> Iterator[FakeDoor]:
    """One that listens as long as the block lasts.

    Args:
        certificate: That it presents.
        key: Of that.
        client_ca: Whose certificates it takes.
        host: Where it listens: an address of loopback.
    """
    door = FakeDoor()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            door.asked.append(self.path)
            body = door.files.get(self.path)
            status = door.status or (200 if body is not None else 404)
            self.send_response_only(status)
            if door.ahead_seconds is not None:
                self.send_header("date", formatdate(time() + door.ahead_seconds, usegmt=True))
            self.end_headers()
            self.wfile.write(body if body is not None and status == 200 else b"")

        def log_message(self, *_args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_REQUIRED

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self):
            sock, address = super().get_request()
            sock.settimeout(5)
            return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, *_args: object) -> None:
            """A client that turned away is what some tests are about."""

    with Server((host, 0), Answers) as server:
        door.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield door
        finally:
            server.shutdown()
            thread.join()
