"""The process in front of the SuperLink: all that a federation shows to the outside, and a status page beside it.

``python -m testudo_server.deployment.door`` is started by ``testudo-server run``. It knows the federation's
certificates and members; it has no key of the federation, of its log or of its CA, and opens no message.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import signal
import ssl
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from testudo_common.commands import run_command
from testudo_common.errors import UsageError
from testudo_common.provisioning.expiry import expiry_warning
from testudo_server.deployment.door_app import DoorApp
from testudo_server.deployment.door_counts import DoorCounts
from testudo_server.deployment.door_forward import SuperLinkConnection
from testudo_server.deployment.door_listener import Connections, Listener, server_context
from testudo_server.deployment.door_members import AdmittedMembers
from testudo_server.deployment.door_rules import Reason
from testudo_server.deployment.status_app import StatusSources, status_app
from testudo_server.provisioning.folder import FederationFolder

LOOK_SECONDS = 1.0
_log = logging.getLogger("testudo.door")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: A name or an address.
        port: 0: any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """The command line.

    Attributes:
        federation: The federation's folder.
        run: The run's folder.
        superlink: ``127.0.0.1:PORT``.
        superlink_root: The SuperLink's certificate.
        listen: For owners.
        status: For whoever is on this machine.
        parent: The process with which this one ends.
    """

    federation: FederationFolder
    run: Path
    superlink: str
    superlink_root: Path
    listen: Address
    status: Address
    parent: int


class Parent:
    """The process that started this one.

    Args:
        pid: Its id.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._direct = pid, os.getppid() == pid

    def gone(self) -> bool:
        """Whether it has ended. A child of its own is given another parent then, even while it is a zombie."""
        if self._direct:
            return os.getppid() != self._pid
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class ServerCertificate:
    """The server's certificate on disk, shown to new connections when it was renewed.

    Args:
        folder: The federation's.
        contexts: Those in use.
    """

    def __init__(self, folder: FederationFolder, contexts: tuple[ssl.SSLContext, ...]) -> None:
        self._certificate, self._key, self._contexts = folder.server_certificate, folder.server_key, contexts
        self._stamp = self._read_stamp()
        self._warned = datetime.min.replace(tzinfo=UTC)

    def look(self) -> datetime:
        """Take a renewed certificate, if there is one; the end of its time.

        Raises:
            UsageError: The files are not there or do not belong together; what was shown is shown on.
        """
        stamp = self._read_stamp()
        if stamp != self._stamp:
            server_context(self._certificate, self._key)  # a half of a pair must not get into a context in use
            for context in self._contexts:
                context.load_cert_chain(self._certificate, self._key)
            self._stamp = stamp
            _log.info("the server's certificate was renewed")
        certificate, now = x509.load_pem_x509_certificates(self._certificate.read_bytes())[0], datetime.now(UTC)
        warning = expiry_warning("the server's certificate", certificate, now, remedy="testudo-server renew")
        if warning and now - self._warned > timedelta(days=1):
            self._warned = now
            _log.warning("%s", warning)
        return certificate.not_valid_after_utc

    def _read_stamp(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((about.st_mtime_ns, about.st_ino) for about in (self._certificate.stat(), self._key.stat()))
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}",
                where=str(error.filename),
                remedy="make it with testudo-server init",
            ) from error


async def serve(settings: DoorSettings) -> None:
    """Open the door, say so in one line, and stay until the parent is gone or this process is told to end.

    Raises:
        UsageError: Something that it needs is not there.
    """
    folder = settings.federation
    outside = server_context(folder.server_certificate, folder.server_key, folder.ca_certificate)
    inside = server_context(folder.server_certificate, folder.server_key)
    certificate = ServerCertificate(folder, (outside, inside))
    members, counts = AdmittedMembers(folder), DoorCounts(certificate_expires=certificate.look())
    try:
        superlink = SuperLinkConnection(settings.superlink, settings.superlink_root)
    except OSError as error:
        raise UsageError(
            "cannot be read", where=str(settings.superlink_root), remedy="name the SuperLink's certificate"
        ) from error
    files = {
        "roster.json": folder.folder / "roster.json",
        "federation.pub": folder.folder / "federation.pub",
        "plan.toml": settings.run / "plan.toml",
    }
    app = DoorApp(members, superlink, files, counts)
    connections = Connections(malformed=lambda: app.refused(Reason.MALFORMED))
    sources = StatusSources(settings.run, counts, members.counted, lambda: connections.open)
    listeners = (
        Listener(app, settings.listen.host, settings.listen.port, outside, connections),
        Listener(
            status_app(sources, folder.settings().hosts),
            settings.status.host, settings.status.port, inside, Connections(limit=64, limit_of_one=64),
        ),
    )  # fmt: skip
    watch = Watch(Parent(settings.parent), members, certificate, superlink, settings.superlink_root, counts)
    await watch.look()
    for listener in listeners:
        await listener.open()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, listeners)
    at = [Address(each.config.host, each.port) for each in listeners]
    print(f"door ready listen={at[0]} status={at[1]}", flush=True)
    watching = asyncio.create_task(watch.until_gone(listeners))
    try:
        await asyncio.gather(*(listener.answer() for listener in listeners))
    finally:
        watching.cancel()
        await superlink.close()


@dataclass(slots=True)
class Watch:
    """What is looked at every second: the parent, the members, the certificates."""

    parent: Parent
    members: AdmittedMembers
    certificate: ServerCertificate
    superlink: SuperLinkConnection
    superlink_root: Path
    counts: DoorCounts
    _trouble: str = ""
    _root_stamp: int = 0

    async def look(self) -> None:
        """Look once. Trouble with a file is said once, and the door stays open as far as it is safe."""
        try:
            self.members.look()
            self.counts.certificate_expires = self.certificate.look()
            stamp = self.superlink_root.stat().st_mtime_ns
            if stamp != self._root_stamp:
                self._root_stamp = stamp
                await self.superlink.trust_again()
        except (UsageError, OSError, ValueError) as error:
            said = str(error) if isinstance(error, UsageError) else type(error).__name__
            if said != self._trouble:
                _log.error("%s", said)
            self._trouble = said
        else:
            self._trouble = ""

    async def until_gone(self, listeners: tuple[Listener, ...]) -> None:
        """Look until the parent is gone; then tell the listeners to end."""
        while not self.parent.gone():
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
        _log.warning("the process that opened the door is gone; closing")
        _end(listeners)


def _end(listeners: tuple[Listener, ...]) -> None:
    for listener in listeners:
        listener.should_exit = True


def address(text: str, *, loopback: bool = False) -> Address:
    """``HOST:PORT`` as an address.

    Args:
        text: The host may be IPv6 in brackets.
        loopback: Whether it must not be reachable from anywhere else.

    Raises:
        UsageError: It is none; or not loopback.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address", remedy="write HOST:PORT, such as 127.0.0.1:9092")
    if loopback and host == "localhost":
        host = "127.0.0.1"  # what the name stands for is the resolver's word
    if loopback and not _is_loopback(host):
        raise UsageError(
            f"{text!r} can be reached from other machines",
            remedy="write 127.0.0.1:PORT; who wants to look from elsewhere takes an SSH tunnel",
        )
    return Address(host, int(port))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Plain(logging.Formatter):
    """A line without a traceback: kind and place of an exception, not its words."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} door {record.levelname.lower()}: {record.getMessage().strip()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return line
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        return f"{line} ({type(error).__name__}{place})"


def set_up_logging() -> None:
    """Log to standard error: this process's own lines, and of its libraries only errors."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_Plain())
    logging.basicConfig(level=logging.ERROR, handlers=[output])
    logging.getLogger("testudo.door").setLevel(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a failed handshake is no news


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    federation: Annotated[Path, typer.Option(help="The federation's folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)],
    superlink: Annotated[str, typer.Option(metavar="HOST:PORT", help="The SuperLink.", show_default=False)],
    superlink_ca: Annotated[Path, typer.Option(help="The SuperLink's certificate.", show_default=False)],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="For owners.", show_default=False)],
    parent_pid: Annotated[int, typer.Option(help="End with this process.", show_default=False)],
    status: Annotated[str, typer.Option(metavar="HOST:PORT", help="For the status page.")] = "127.0.0.1:0",
) -> None:
    """Let owners through to the SuperLink, and show how the run stands."""
    settings = DoorSettings(
        FederationFolder(federation), out, str(address(superlink, loopback=True)), superlink_ca,
        address(listen), address(status, loopback=True), parent_pid,
    )  # fmt: skip
    set_up_logging()
    if find_spec("sniffio") is None:
        # httpcore asks for it several times a request; a search that finds nothing costs a fifth of the door's CPU.
        sys.modules["sniffio"] = None  # type: ignore[assignment]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
    asyncio.run(serve(settings))


if __name__ == "__main__":
    run_command(app)
