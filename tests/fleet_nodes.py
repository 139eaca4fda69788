"""Owners of a tiny plan as threads of one process, over Flower's Fleet API: they pull a message, answer, push. No tests."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Context, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response

from helpers import make_examples, make_participant
from testudo_client.app import build_client_app
from testudo_common.plan.load import load_plan

POLL_SECONDS = 0.05


def answer(name: str, arguments: argparse.Namespace) -> None:
    """One owner, for ever. It stays connected whatever happens, since Flower lets nobody in a second time for a minute."""
    plan = load_plan(arguments.plan)
    participant = make_participant(plan, make_examples(seed=sum(name.encode())))
    app = build_client_app(lambda _context: participant)
    key = load_pem_private_key((arguments.keys / f"{name}.pem").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with http_request_response(
        arguments.superlink,
        insecure=False,
        root_certificates=arguments.root.read_bytes(),
        authentication_keys=(key, key.public_key()),
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
                request = inflate_object_from_contents(number, objects)
                confirm(run, number)
                request.metadata.__dict__["_message_id"] = number
                TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run, node
                reply = app(request, Context(run, node, {}, RecordDict(), {}))
                reply.metadata.__dict__["_message_id"] = reply.object_id
                wanted, session = send(reply, get_object_tree(reply), 0.0)
                for identifier, part in get_all_nested_objects(reply).items():
                    if identifier in wanted:
                        push_object(run, session, identifier, part.deflate())
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--superlink", required=True)
    for name in ("root", "plan", "keys"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("owners", nargs="+")
    arguments = parser.parse_args()
    for name in arguments.owners:
        threading.Thread(target=answer, args=(name, arguments), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
