"""A reply is signed over the id of its request: it is one id at the server, on the way and at the owner.

On Flower's deployed path a message travels as objects named by their digests; here it is taken apart and put together
as flwr.superlink.grid.http_grid and flwr.supernode.runtime.run_clientapp (1.41) do, without a socket. In a simulation
the Grid gives the id, and the ClientApp gets the message as it is.
"""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from helpers import make_participant, make_plan, request_for
from testudo_client.app import build_client_app
from testudo_client.participant import Participant
from testudo_common.errors import ReplyError
from testudo_common.flower_records import IDENTIFY, TRAIN, to_records
from testudo_common.wire import TrainReply
from testudo_server.replies import ReplyReader
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys

PLAN = make_plan()
KEYS = SimulatedKeys("small", ("ada",), b"k" * 32)
RUN_ID = 2**64 - 7


def travelled(message: FlowerMessage) -> FlowerMessage:
    """As it comes out at the other end, with its own digest as its id."""
    message.metadata.__dict__["_message_id"] = message.object_id
    tree = get_object_tree(message)
    contents = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
    assert {node.object_id for node in iterate_object_tree(tree)} == set(contents)
    arrived = inflate_object_from_contents(tree.object_id, contents)
    assert isinstance(arrived, FlowerMessage)
    arrived.metadata.__dict__["_message_id"] = tree.object_id
    return arrived


@pytest.fixture
def ada() -> ClientApp:
    honest = make_participant(PLAN)
    known = KEYS.membership_of("ada")
    participant = Participant(
        "ada", PLAN, honest._examples, honest._store, honest._gate, honest._learner, membership=known
    )
    return build_client_app(lambda context: participant)


def context() -> Context:
    return Context(run_id=RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={})


@pytest.mark.parametrize("run_id", [RUN_ID, 1])
def test_reply_over_flowers_objects(ada: ClientApp, run_id: int) -> None:
    InProcessGrid(ClientApp(), 0, run_id=run_id)  # makes messages possible
    node, reader = 1001, ReplyReader(RUN_ID, KEYS.roster)
    asked = FlowerMessage(to_records(request_for(PLAN)), node, TRAIN, ttl=10.0)
    reply = travelled(ada(travelled(asked), context()))
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id == asked.object_id
    found = reader.message_in("ada", reply)
    assert isinstance(found, TrainReply)
    assert found.update.dtype == np.float32
    again = FlowerMessage(to_records(request_for(PLAN)), node, TRAIN, ttl=10.0)
    travelled(again)
    assert again.metadata.message_id != asked.metadata.message_id, "the same request twice is two messages"
    reply.metadata.__dict__["_reply_to_message_id"] = again.metadata.message_id
    assert reader.message_in("ada", reply) == "reply not signed by ada"


def test_name_over_flowers_objects(ada: ClientApp) -> None:
    InProcessGrid(ClientApp(), 0, run_id=RUN_ID)
    asked = FlowerMessage(RecordDict(), 1001, IDENTIFY, ttl=10.0)
    reply = travelled(ada(travelled(asked), context()))
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    assert ReplyReader(RUN_ID, KEYS.roster).client_in(reply) == "ada"
    with pytest.raises(ReplyError, match="not signed with its key"):
        ReplyReader(RUN_ID - 1, KEYS.roster).client_in(reply)


def test_every_run_of_a_simulation_has_an_id_of_its_own() -> None:
    ids = {InProcessGrid(ClientApp(), 0).run.run_id for _ in range(20)}
    assert len(ids) == 20
    assert all(0 < number < 1 << 63 for number in ids)
