"""What has to be right before a server is started, looked at beforehand: each fault is one sentence. Starts nothing."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from testudo_common.audit.checkpoints import default_quorum
from testudo_common.errors import CheckpointError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.privacy.planned import check_held_back
from testudo_common.provisioning.expiry import expiry_warning
from testudo_server.provisioning.folder import FederationFolder, FederationSettings, Member
from testudo_server.roster import ServerKeys, keys_in
from testudo_server.store import RunStore

PLAN_FILE = "plan.toml"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("127.0.0.1", "::1", "localhost")


def parse_address(text: str, option: str) -> Address:
    """``HOST:PORT``.

    Raises:
        UsageError: It is not one.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address", where=option, remedy="write HOST:PORT, such as 0.0.0.0:9092")
    return Address(host, int(port))


@dataclass(frozen=True, slots=True)
class Ready:
    """What was found, all of it usable.

    Attributes:
        plan: Complete.
        settings: Of the federation.
        members: All that were admitted, the revoked too.
        keys: Of the federation; by its roster every reply is checked, under any plan.
        warnings: What will be wrong soon, in words.
    """

    plan: FederationPlan
    settings: FederationSettings
    members: tuple[Member, ...]
    keys: ServerKeys
    warnings: tuple[str, ...] = ()

    @property
    def admitted(self) -> tuple[str, ...]:
        """Client ids of the members that are let in."""
        return tuple(member.client for member in self.members if not member.revoked)

    @property
    def quorum(self) -> int:
        """Owners that have to cosign the log; 0 without one."""
        if not self.plan.audited:
            return 0
        return self.plan.audit.quorum or default_quorum(len(self.keys.roster.members))

    @property
    def least(self) -> int:
        """Owners without whom no round can be."""
        return max(self.plan.fewest_asked, self.quorum)

    @property
    def wanted(self) -> int:
        """Owners that make a full cohort and a quorum, as far as there are so many."""
        return min(len(self.admitted), max(self.plan.rounds.cohort_size, self.quorum))


def look_at(
    plan_file: Path, folder: FederationFolder, out: Path, *, resume: bool, now: datetime | None = None
) -> Ready:
    """Everything that is on disk. The run's folder has to be held, see :mod:`testudo_server.deployment.run_lock`.

    Args:
        plan_file: The plan.
        folder: Of the federation.
        out: Of the run.
        resume: Whether a run is to go on.
        now: The time, for certificates.

    Raises:
        TestudoError: Something cannot be used; see the message.
    """
    plan = load_plan(plan_file)
    settings = folder.settings()
    members = folder.members()
    keys = keys_in(folder.folder)
    ready = Ready(plan, settings, members, keys, check_certificate(folder, now or datetime.now(UTC)))
    _check_members(ready)
    _check_run_folder(plan, out, resume=resume)
    return ready


def check_certificate(folder: FederationFolder, now: datetime) -> tuple[str, ...]:
    """The door's certificate: that it is there, valid and its key's.

    Returns:
        A warning, where it soon expires.

    Raises:
        UsageError: It is not.
    """
    path = folder.server_certificate
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        key = load_pem_private_key(folder.server_key.read_bytes(), password=None)
        folder.ca_certificate.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(error.filename), remedy="make it with testudo-server init"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            "not a certificate and its key", where=str(path), remedy="make it anew with testudo-server renew"
        ) from error
    ends = certificate.not_valid_after_utc
    if not certificate.not_valid_before_utc <= now <= ends:
        when = f"expired on {ends:%Y-%m-%d}" if now > ends else f"is valid from {certificate.not_valid_before_utc} on"
        raise UsageError(
            f"the server's certificate {when}",
            where=str(path),
            remedy="make a new one with testudo-server renew, and look at the clock",
        )
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        raise UsageError(
            "the server's certificate is not its key's", where=str(path), remedy="make both with testudo-server renew"
        )
    remedy = f"testudo-server renew {folder.folder}"
    warning = expiry_warning("the server's certificate", certificate, now, remedy=remedy)
    return (warning,) if warning else ()


def check_free(address: Address, option: str) -> None:
    """That the port can be listened on.

    Raises:
        UsageError: It is another process's, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address.host, address.port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address}: {error.strerror or 'no such address'}",
            where=option,
            remedy="choose another one, or stop what listens there",
        ) from error


def _check_members(ready: Ready) -> None:
    plan, admitted = ready.plan, ready.admitted
    if len(admitted) < ready.least:
        raise UsageError(
            f"{len(admitted)} owners are admitted, and the plan needs {ready.least}",
            where=ready.settings.federation,
            remedy="admit more with testudo-server admit, or ask for fewer in the plan",
        )
    if strangers := [name for name in admitted if name not in ready.keys.roster.members]:
        raise UsageError(
            f"{strangers[0]!r} is admitted and not on the roster", where="roster.json", remedy="admit it again"
        )
    plan.check_withstood(len(admitted))
    check_held_back(plan, len(admitted))


def _check_run_folder(plan: FederationPlan, out: Path, *, resume: bool) -> None:
    store, kept = RunStore(out), out / PLAN_FILE
    if store.exists and not resume:
        raise UsageError(
            "there is a run here already",
            where=str(out),
            remedy="go on with it with --resume, or choose another --out",
        )
    if resume and not store.exists:
        raise CheckpointError("there is no run to go on with", where=str(out), remedy="start it without --resume")
    if resume:
        store.load(plan.digest)
    elif kept.exists() and load_plan(kept).digest != plan.digest:
        raise UsageError("another plan was to be run here", where=str(kept), remedy="choose another --out")
