"""Flower's ClientApp: decode, call the participant, encode. No decisions: those are the participant's.

Flower forwards an exception's text to the server, so nothing that is raised here leaves: a refusal does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from testudo_client.consent import OwnerConsent
from testudo_client.data import load_owner_examples
from testudo_client.gate import Gate, reason_of
from testudo_client.home import OwnerHome
from testudo_client.ledger import FINGERPRINT_KEY_FILE
from testudo_client.ledger.fingerprint import fingerprint_key, fingerprint_of
from testudo_client.membership import read_membership
from testudo_client.observer import Observer
from testudo_client.own_voice import LedgerVoice
from testudo_client.participant import Answer, Participant
from testudo_client.policy.findings import NOTHING_KNOWN, Launch
from testudo_client.store import ClientStore
from testudo_client.witness import Witness
from testudo_common.errors import RosterError, TestudoError, UsageError, WireError
from testudo_common.flower_records import from_records, identity_records, records_of
from testudo_common.plan.load import load_plan
from testudo_common.signed_replies import IDENTIFICATION, Asked, ReplySigner
from testudo_common.wire import LogUpdate, Parts, Refusal, RefusalReason, SecureMessage, TrainRequest, encode

_LOG = logging.getLogger("testudo.client")
_NO_PLAN = "0" * 64

ParticipantOf = Callable[[Context], Participant]
ObserverOf = Callable[[Context], Observer | None]
SignerOf = Callable[[Context], ReplySigner | None]


def no_observer(_context: Context) -> None:
    """The participant watches the log itself, as where it is there already."""


def build_client_app(
    participant_of: ParticipantOf, observer_of: ObserverOf = no_observer, signer_of: SignerOf | None = None
) -> ClientApp:
    """A ClientApp that answers for the participant of its context.

    Args:
        participant_of: Makes it, or finds it.
        observer_of: What answers the log's messages before the participant, and its data, is asked for; or None.
        signer_of: Signs every reply, or None where the owner has no key; none given: the participant's own.
    """
    client_app = ClientApp()
    signer_of = signer_of or partial(_own_signer, participant_of, observer_of)

    @client_app.query("identify")
    def identify(message: Message, context: Context) -> Message:
        try:
            signer, client_id = signer_of(context), _client_id(context, participant_of, observer_of)
            if signer is not None and signer.client_id != client_id:
                raise RosterError(
                    f"the roster holds your key under the name {signer.client_id!r}",
                    where=client_id,
                    remedy="write that name into your policy",
                )
            signature = None if signer is None else signer.sign(_asked(message, context), IDENTIFICATION)
            return Message(identity_records(client_id, signature), reply_to=message)
        except Exception as error:
            _LOG.error("cannot start: %s", _safe(error))
            return Message(RecordDict(), reply_to=message)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        parts = encode(_answer(message, context, participant_of, observer_of))
        signature = _signature(signer_of, message, context, parts)
        return Message(records_of(parts, signature), reply_to=message)

    return client_app


def _own_signer(participant_of: ParticipantOf, observer_of: ObserverOf, context: Context) -> ReplySigner | None:
    observer = observer_of(context)
    if observer is not None and observer.witness is not None:
        return observer.witness.signer
    return participant_of(context).signer


def _signature(signer_of: SignerOf, message: Message, context: Context, parts: Parts) -> bytes | None:
    """Of the reply; None where there is no key, or none that can be used: whoever needs one will not count it."""
    try:
        signer = signer_of(context)
        return None if signer is None else signer.sign(_asked(message, context), parts)
    except Exception as error:
        _LOG.error("a reply is not signed: %s", _safe(error))
        return None


def _asked(message: Message, context: Context) -> Asked:
    return Asked(context.run_id, message.metadata.message_id)


def _client_id(context: Context, participant_of: ParticipantOf, observer_of: ObserverOf) -> str:
    """The owner's name: of one that watches, also where it does not consent to training."""
    observer = observer_of(context)
    if observer is not None and observer.witness is not None:
        return observer.witness.client_id
    return participant_of(context).client_id


def _answer(message: Message, context: Context, participant_of: ParticipantOf, observer_of: ObserverOf) -> Answer:
    request = None
    try:
        request = from_records(message.content)
        if not isinstance(request, TrainRequest | SecureMessage | LogUpdate):
            raise WireError("not a message for a client")
        observer = None if isinstance(request, SecureMessage) else observer_of(context)
        if isinstance(request, LogUpdate) and observer is not None:
            return observer.answer(request)
        if isinstance(request, TrainRequest) and observer is not None and (refusal := observer.refusal_of(request)):
            return refusal
        return participant_of(context).answer(request)
    except Exception as error:
        _LOG.error("a request was refused: %s", _safe(error))
        if isinstance(request, TrainRequest | SecureMessage | LogUpdate):
            return Refusal(request.plan_digest, request.round, request.attempt, reason_of(error))
        return Refusal(_NO_PLAN, 0, 0, RefusalReason.INTERNAL)


def _safe(error: Exception) -> str:
    """What may be written to the owner's own log: our sentences; of anything else, only its kind."""
    return str(error) if isinstance(error, TestudoError) else type(error).__name__


@lru_cache(maxsize=64)
def _observer(owner: str, plan: str, launch: Launch) -> Observer:
    """Whoever watches the log for an owner: without its data, its policy's consent or its approval."""
    home, loaded = OwnerHome(Path(owner)), load_plan(Path(plan))
    witness = None
    if loaded.audited:
        membership = read_membership(home.folder)
        voice = LedgerVoice(home, loaded)
        witness = Witness(
            membership.client_id, loaded, membership, voice, home.folder, bundle_digest=launch.bundle_digest
        )
    return Observer(loaded.digest, witness, ClientStore(home.state), home.log)


@lru_cache(maxsize=64)
def _participant(owner: str, plan: str, data: str, launch: Launch) -> Participant:
    torch.set_num_threads(1)
    home, loaded = OwnerHome(Path(owner)), load_plan(Path(plan))
    policy = home.policy()
    ledger = home.ledger(policy)
    consent = OwnerConsent(home, loaded, policy.client, ledger=ledger, launch=launch)
    consent.check()  # before the data is read
    membership = read_membership(home.folder) if loaded.secure else None
    witness = _observer(owner, plan, launch).witness
    examples = load_owner_examples(loaded, Path(data))
    fingerprint = fingerprint_of(examples, fingerprint_key(home.folder / FINGERPRINT_KEY_FILE))
    gate = Gate(loaded, ledger, consent, fingerprint, log=home.log)
    store = ClientStore(home.state)
    return Participant(policy.client, loaded, examples, store, gate, membership=membership, witness=witness)


def participant_from_context(context: Context, launch: Launch = NOTHING_KNOWN) -> Participant:
    """The owner's participant, from what the owner wrote into the node's configuration.

    ``owner`` names its folder, with its policy, key, approvals and ledger. Nothing is read of ``data`` unless the
    policy allows the plan and the owner has approved it. Under Flower's simulation a node has a partition instead,
    which the installed simulator answers for.

    Args:
        context: Of the node.
        launch: What whoever started this knows.

    Raises:
        UsageError: The configuration names no folder, plan or data.
        PolicyError, ApprovalError, LedgerError: The owner does not consent. It stands in the owner's log.
    """
    if "partition-id" in context.node_config:
        return simulated_participant(context)
    owner, plan, data = _configured(context)
    with _refusals_logged(owner):
        return _participant(owner, plan, data, launch)


def observer_from_context(context: Context, launch: Launch = NOTHING_KNOWN) -> Observer | None:
    """Who watches the log for that owner; None under Flower's simulation, where its participant does.

    Args:
        context: Of the node.
        launch: What whoever started this knows.

    Raises:
        UsageError: The configuration names no folder, plan or data.
        KeyFileError, RosterError, AuditError: It is not known who the owner or the federation is.
    """
    if "partition-id" in context.node_config:
        return None
    owner, plan, _ = _configured(context)
    with _refusals_logged(owner):
        return _observer(owner, plan, launch)


@lru_cache(maxsize=64)
def _signer(owner: str) -> ReplySigner:
    membership = read_membership(Path(owner))
    return ReplySigner(membership.client_id, membership.key)


def signer_from_context(context: Context) -> ReplySigner | None:
    """Who signs that owner's replies, whatever it consents to; None: its folder holds no roster yet.

    Raises:
        UsageError: The configuration names no folder, plan or data.
        KeyFileError, RosterError: It is not known who the owner or the federation is.
    """
    if "partition-id" in context.node_config:
        return simulated_participant(context).signer
    owner, _, _ = _configured(context)
    if not OwnerHome(Path(owner)).roster_file.exists():
        return None
    with _refusals_logged(owner):
        return _signer(owner)


def _configured(context: Context) -> tuple[str, str, str]:
    keys = ("owner", "plan", "data")
    missing = [key for key in keys if not context.node_config.get(key)]
    if missing:
        raise UsageError(
            f"the node's configuration has no {', '.join(missing)}",
            remedy='start it with --node-config \'owner="my-folder" plan="plan.toml" data="mine.csv"\'',
        )
    owner, plan, data = (str(context.node_config[key]) for key in keys)
    return owner, plan, data


@contextmanager
def _refusals_logged(owner: str) -> Iterator[None]:
    try:
        yield
    except TestudoError as error:
        if Path(owner).is_dir():
            OwnerHome(Path(owner)).log.refused(error, reason="cannot_start")
        raise


def simulated_participant(context: Context) -> Participant:
    """The participant of a simulated partition, from the simulator installed beside this package.

    Raises:
        UsageError: No simulator is installed.
    """
    for entry in entry_points(group="testudo.simulated_owner"):
        participant: Participant = entry.load()(context)
        return participant
    raise UsageError("a simulated partition needs the simulator", remedy="install testudo-fl whole")


def app_for(bundle_digest: str | None, server_certificate: str | tuple[str, ...] | None) -> ClientApp:
    """The ClientApp of an owner that is told what Flower tells no ClientApp (1.41: it gets a message and a context).

    Args:
        bundle_digest: SHA-256 of the app bundle that came, hex, computed by whoever runs this; None: not known.
        server_certificate: SHA-256 of the DER of the certificate that the server showed, hex; or of it and those above
            it in its chain, in order; None: not known.
    """
    certificates = (server_certificate,) if isinstance(server_certificate, str) else server_certificate
    launch = Launch(bundle_digest, certificates)
    return build_client_app(
        partial(participant_from_context, launch=launch),
        partial(observer_from_context, launch=launch),
        signer_from_context,
    )


app = app_for(None, None)
"""What ``flwr run`` and Flower's own executor start."""
