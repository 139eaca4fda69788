"""How an owner's node reaches its federation: address, keys and certificates in ``connection/`` of the owner's folder.

``server.json`` (federation, host, port), ``ca.crt`` (the federation's root), ``node.key`` (Flower's node key, ECDSA
P-384 in OpenSSH format), ``tls/client.key`` and ``tls/client.crt``. ``tls`` is a link to one of the folders ``tls-1``,
``tls-2``, ...: a renewal makes the next one, and moves the link in one step, so that key and certificate always belong
together. Private keys have mode 0600 and never leave. Beside them lie the documents of joining: ``invitation.json``,
``request.json``, ``renewal.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from testudo_common.errors import UsageError

CONNECTION_FOLDER = "connection"
CLIENT_KEY = "client.key"
CLIENT_CERTIFICATE = "client.crt"


@dataclass(frozen=True, slots=True)
class ConnectionFiles:
    """Where they lie.

    Attributes:
        owner: The owner's folder.
    """

    owner: Path

    @property
    def folder(self) -> Path:
        """All of them."""
        return self.owner / CONNECTION_FOLDER

    @property
    def server(self) -> Path:
        """Federation, host and port; there once an answer was installed."""
        return self.folder / "server.json"

    @property
    def ca_certificate(self) -> Path:
        """The federation's root."""
        return self.folder / "ca.crt"

    @property
    def tls(self) -> Path:
        """Link to the folder of the TLS key and its certificate."""
        return self.folder / "tls"

    @property
    def client_key(self) -> Path:
        """Private key of TLS."""
        return self.tls / CLIENT_KEY

    @property
    def client_certificate(self) -> Path:
        """Certificate of TLS, signed by the federation's CA; there once an answer was installed."""
        return self.tls / CLIENT_CERTIFICATE

    @property
    def node_key(self) -> Path:
        """Private key of the Flower node."""
        return self.folder / "node.key"

    @property
    def invitation(self) -> Path:
        """The invitation that was accepted."""
        return self.folder / "invitation.json"

    @property
    def request(self) -> Path:
        """The join request that answers it."""
        return self.folder / "request.json"

    @property
    def renewal(self) -> Path:
        """The request for the next certificate, while one is asked for."""
        return self.folder / "renewal.json"


@dataclass(frozen=True, slots=True)
class Connection:
    """A usable connection.

    Attributes:
        federation: Its name.
        host: Of the server's door: a name or an address.
        port: Of it.
        files: Keys and certificates.
    """

    federation: str
    host: str
    port: int
    files: ConnectionFiles

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_connection(owner: Path) -> Connection:
    """The connection kept in an owner's folder.

    Raises:
        UsageError: There is none yet, or it cannot be used.
    """
    files = ConnectionFiles(owner)
    try:
        found = json.loads(files.server.read_text(encoding="utf-8"))
        return Connection(str(found["federation"]), str(found["host"]), int(found["port"]), files)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(files.server),
            remedy="join the federation first: testudo-client join INVITE FOLDER, and then install the answer",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("not a connection", where=str(files.server), remedy="install the answer again") from error
