"""``testudo-client serve``: what was asked for, checked, made into a server, and run until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from testudo_client.data import load_owner_examples
from testudo_client.home import STATE_FOLDER
from testudo_client.observations import Observations
from testudo_client.personal.adapt_command import AdaptRequest, adapt
from testudo_client.personal.versions import VersionRecord, VersionStore
from testudo_client.serving.access import TOKEN_FILE, Address, check_exposure, check_plain, token_in
from testudo_client.serving.certificate import TlsPair, own_certificate
from testudo_client.serving.core import Core
from testudo_client.serving.counts import Counts
from testudo_client.serving.exchange import Source
from testudo_client.serving.recorder import Recorder
from testudo_client.serving.server import Listening, serve
from testudo_client.serving.service import Adapted
from testudo_common.errors import UsageError
from testudo_common.files import make_private
from testudo_common.publication import read_published

SERVE_FOLDER = "serve"
Adapter = Callable[[AdaptRequest], Adapted]
"""Adapts anew, and lets the gate decide."""


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What was asked for.

    Attributes:
        folder: The owner's.
        http: ``HOST:PORT``, or ``none``.
        grpc: ``HOST:PORT``, or ``none``.
        level: Nominal coverage of sets and intervals.
        record: Whether answers are kept for watching.
        data: Table to adapt to when asked; with ``meta_model``.
        meta_model: Published meta-model to adapt.
        stays_here: Adapt without privacy, under a private plan too.
        tls_certificate: The owner's own, PEM; with ``tls_key``.
        tls_key: Of it.
        no_tls: Whether to answer in clear.
        plain_outside: Whether in clear to other machines too.
        share_unprotected: Whether other machines may ask a version that was adapted without privacy.
        as_json: Say where it answers as JSON.
    """

    folder: Path
    http: str = "127.0.0.1:8443"
    grpc: str = "127.0.0.1:8444"
    level: float = 0.9
    record: bool = True
    data: Path | None = None
    meta_model: Path | None = None
    stays_here: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    no_tls: bool = False
    plain_outside: bool = False
    share_unprotected: bool = False
    as_json: bool = False


def adapt_now(request: AdaptRequest) -> Adapted:
    """As ``testudo-client adapt`` does."""
    record = adapt(request, datetime.now(UTC)).record
    return Adapted(record.promoted, record.id, record.reason)


def run_server(request: ServeRequest, say: Callable[[str], None], adapter: Adapter = adapt_now) -> None:
    """Answer until SIGINT or SIGTERM.

    Args:
        request: What was asked for.
        say: Prints a line.
        adapter: Adapts when a caller asks for it.

    Raises:
        UsageError: The request contradicts itself, or no version can be answered at its addresses.
    """
    import torch

    torch.set_num_threads(1)  # a small model loses time to more, and whoever asks shares the cores
    addresses = _addresses(request)
    exposed = any(not address.loopback for address in addresses.values())

    def check(record: VersionRecord) -> None:
        check_exposure(record, exposed=exposed, share_unprotected=request.share_unprotected)

    source = Source(VersionStore(request.folder), request.level, check)
    mark = source.mark()
    own = source.load()
    adaptation = _adaptation(request, adapter, exposed=exposed)
    place = request.folder / STATE_FOLDER / SERVE_FOLDER
    make_private(place)
    tls = _tls(request, place, list(addresses.values()))
    listening = Listening(addresses.get("http"), addresses.get("grpc"), tls, token_in(place), place)

    def ready(found: dict[str, str | None]) -> None:
        logging.getLogger("testudo.serve").info("version %d is in use", own.version.record.id)
        say(_told(request, found, own.version.record, tls, place))

    async def run() -> None:
        counts = Counts()
        observations = Observations(request.folder / STATE_FOLDER) if request.record else None
        recorder = Recorder(observations, counts.unrecorded.inc) if observations is not None else None
        await serve(Core(own, counts, recorder), source, mark, listening, adapt=adaptation, ready=ready)

    asyncio.run(run())


def _addresses(request: ServeRequest) -> dict[str, Address]:
    given = {"http": request.http, "grpc": request.grpc}
    addresses = {face: Address.parse(text) for face, text in given.items() if text != "none"}
    if not addresses:
        raise UsageError("there is nothing to answer on", remedy="leave out --http none or --grpc none")
    if request.no_tls:
        check_plain(list(addresses.values()), said_again=request.plain_outside)
    return addresses


def _tls(request: ServeRequest, place: Path, addresses: list[Address]) -> TlsPair | None:
    if (request.tls_certificate is None) != (request.tls_key is None):
        raise UsageError("a certificate needs its key", remedy="give both --tls-cert and --tls-key")
    if request.no_tls:
        if request.tls_certificate is not None:
            raise UsageError("--tls-cert and --insecure-no-tls contradict each other", remedy="leave one out")
        return None
    if request.tls_certificate is not None and request.tls_key is not None:
        pair = TlsPair(request.tls_certificate, request.tls_key)
    else:
        pair = own_certificate(place, [address.host for address in addresses], datetime.now(UTC))
    pair.check()
    return pair


def _adaptation(request: ServeRequest, adapter: Adapter, *, exposed: bool) -> Callable[[], Adapted] | None:
    data, meta_model = request.data, request.meta_model
    if data is None and meta_model is None:
        return None
    if data is None or meta_model is None:
        raise UsageError("to adapt takes a table and a meta-model", remedy="give both --data and --meta-model")
    if exposed and not request.share_unprotected:
        raise UsageError(
            "what is adapted when a caller asks for it is not protected, and could not be answered to other machines",
            remedy="leave out --data and --meta-model, or accept that with --share-unprotected",
        )
    asked = AdaptRequest(meta_model, request.folder, data, stays_here=request.stays_here)
    plan = read_published(meta_model).plan
    if plan.private and not request.stays_here:
        raise UsageError(
            "each adaptation that a caller asks for would be charged to your ledger",
            where=str(meta_model),
            remedy="add --stays-here to adapt without privacy, or adapt by hand: testudo-client adapt",
        )
    load_owner_examples(plan, data)  # what is wrong with the table is said now

    def adapt_again() -> Adapted:
        return adapter(asked)

    return adapt_again


def _told(
    request: ServeRequest, found: dict[str, str | None], record: VersionRecord, tls: TlsPair | None, place: Path
) -> str:
    certificate = None if tls is None else str(tls.certificate)
    token = place / TOKEN_FILE
    if request.as_json:
        return json.dumps({**found, "version": record.id, "certificate": certificate, "token_file": str(token)})
    lines = [f"Version {record.id} answers:"]
    lines += [f"  {face}: {address}" for face, address in found.items() if address]
    lines += [f"  token: {token}", f"  certificate to trust: {certificate}" if tls else "  in clear, without TLS"]
    if url := found["http"]:
        trust = f"--cacert {certificate} " if tls else ""
        lines.append(f'Try: curl {trust}-H "Authorization: Bearer $(cat {token})" {url}/v1/contract')
    return "\n".join(lines)
