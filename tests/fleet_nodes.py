"""Owners as threads of one process, over Flower's Fleet API: each pulls a message, answers and signs. No tests.

What they answer means nothing: it is as long as it has to be, and needs no torch.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import fleet_http_connection
from flwr.supernode.fleet_http_client import FleetHttpClient

from testudo_client.deployment.tls import door_context
from testudo_client.membership import read_membership
from testudo_client.provisioning.connection import read_connection
from testudo_common.flower_records import from_records, records_of
from testudo_common.signed_replies import Asked, ReplySigner
from testudo_common.wire import TrainReply, TrainRequest, encode

POLL_SECONDS = 0.05
CONTEXTS: dict[str, ssl.SSLContext] = {}
ONE_AT_A_TIME = threading.Lock()
"""A reply takes its sender from a variable of Flower's that the whole process shares."""


class OwnersClient(FleetHttpClient):
    """Flower's, with the certificate of the owner whose thread it is made in."""

    @classmethod
    def from_server_address(cls, server_address: str, *_args: Any, **more: Any) -> OwnersClient:
        context = CONTEXTS[threading.current_thread().name]
        return cls(f"https://{server_address}", interceptors=more["interceptors"], verify=context)


def reply_to(request: TrainRequest, message: Message, signer: ReplySigner) -> Message:
    update = np.full_like(request.model, 1e-3)
    made = TrainReply(request.plan_digest, request.round, request.attempt, request.model_digest, update)
    parts = encode(made)
    signature = signer.sign(Asked(message.metadata.run_id, message.metadata.message_id), parts)
    return Message(records_of(parts, signature), reply_to=message)


def answer(folder: Path, name: str) -> None:
    """One owner, for ever. It stays connected whatever happens: Flower lets nobody in again for a minute."""
    connection, membership = read_connection(folder), read_membership(folder)
    signer = ReplySigner(name, membership.key)
    CONTEXTS[name] = door_context(connection.files)
    key = load_ssh_private_key(connection.files.node_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with fleet_http_connection.http_request_response(
        connection.address, insecure=False, authentication_keys=(key, key.public_key())
    ) as (node, receive, send, _run, _fab, pull_object, push_object, confirm):
        print(f"{name} connected", flush=True)
        while True:
            try:
                if (found := receive()) is None:
                    time.sleep(POLL_SECONDS)
                    continue
                message, tree = found
                run, number = message.metadata.run_id, message.metadata.message_id
                objects = pull_objects(
                    [each.object_id for each in iterate_object_tree(tree)],
                    pull_object_fn=partial(pull_object, run),
                    initial_backoff=POLL_SECONDS,
                )
                asked = inflate_object_from_contents(number, objects)
                confirm(run, number)
                asked.metadata.__dict__["_message_id"] = number
                with ONE_AT_A_TIME:
                    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run, node
                    reply = reply_to(from_records(asked.content), asked, signer)
                    reply.metadata.__dict__["_message_id"] = reply.object_id
                wanted, session = send(reply, get_object_tree(reply), 0.0)
                for identifier, part in get_all_nested_objects(reply).items():
                    if identifier in wanted:
                        push_object(run, session, identifier, part.deflate())
            except (Exception, RunNotRunningException) as error:  # the latter is no Exception
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                time.sleep(POLL_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("owners", nargs="+", help="NAME=FOLDER")
    fleet_http_connection.FleetHttpClient = OwnersClient
    for each in parser.parse_args().owners:
        name, _, folder = each.partition("=")
        threading.Thread(target=answer, args=(Path(folder), name), name=name, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
