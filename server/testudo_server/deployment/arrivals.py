"""Replies on their way from the SuperLink to the server: taken as they come, and none waits for another.

A reply is announced before its parts are there. Flower's own grid waits for them, for minutes where their sender died
meanwhile, and for hours where it sends one now and then: one owner could hold up all others past every deadline. Here
what has not come yet is looked for at the next question. What nobody waits for any more is deleted at the SuperLink,
which would keep it, model and update in clear, for as long as the run lasts.

Source: ``flwr.superlink.grid.http_grid`` of Flower 1.41, ``HttpGrid.pull_messages``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents, pull_objects
from flwr.supercore.runtime import RuntimeHttpClient

_SLACK_SECONDS = 1.0


@dataclass(slots=True)
class _Arriving:
    """A reply that was announced: what it answers, its parts, and those that are here."""

    answers: str
    parts: tuple[str, ...]
    here: dict[str, bytes] = field(default_factory=dict, repr=False)
    lost: bool = False

    @property
    def whole(self) -> bool:
        return len(self.here) == len(self.parts)


class Arrivals:
    """What arrives for one run.

    Args:
        runtime: Of the run's task.
        node: The server's own.
        run_id: Of Flower.
    """

    def __init__(self, runtime: RuntimeHttpClient, node: Node, run_id: int) -> None:
        self._runtime, self._node, self._run_id = runtime, node, run_id
        self._arriving: dict[str, _Arriving] = {}
        self._given_up: dict[str, float] = {}

    def pull(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies to these messages that are here whole; and an error for one that cannot come any more."""
        wanted = set(message_ids)
        # Flower forgets a message once its reply is announced, and would call it unknown.
        self._take_up(wanted - {each.answers for each in self._arriving.values()})
        found = []
        for message_id, each in list(self._arriving.items()):
            if each.answers not in wanted:
                continue
            self._fetch(each)
            if each.whole or each.lost:
                del self._arriving[message_id]
                self._delete(message_id)
                found.append(self._lost(each) if each.lost else _inflated(message_id, each))
        return found

    def give_up(self, message_ids: Iterable[str], seconds: float) -> None:
        """Nobody waits for replies to these messages any more.

        Args:
            message_ids: Of what was sent.
            seconds: Until they are no longer valid; Flower deletes none before.
        """
        ids = set(message_ids)
        for message_id, each in list(self._arriving.items()):
            if each.answers in ids:
                del self._arriving[message_id]
                self._delete(message_id)
        self._given_up.update(dict.fromkeys(ids, time.monotonic() + max(0.0, seconds) + _SLACK_SECONDS))

    def tidy(self) -> None:
        """Delete what was given up and is no longer valid: the messages, and replies that came too late."""
        now = time.monotonic()
        over = [message_id for message_id, end in self._given_up.items() if end <= now]
        if not over:
            return
        answer = self._runtime.PullMessages(PullAppMessagesRequest(message_ids=over))
        for message_id in (*(message.metadata.message_id for message in answer.messages_list), *over):
            self._delete(message_id)
        for message_id in over:
            del self._given_up[message_id]

    def _take_up(self, message_ids: set[str]) -> None:
        if not message_ids:
            return
        answer = self._runtime.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            parts = tuple(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
            self._arriving[message.metadata.message_id] = _Arriving(message.metadata.reply_to_message_id, parts)

    def _fetch(self, each: _Arriving) -> None:
        """Get what is there of it now."""
        pull = make_pull_object_fn_protobuf(self._runtime.PullObject, self._node, self._run_id)

        def fetch(part: str) -> bytes:
            try:
                each.here[part] = pull(part)
            except ObjectPullError:
                each.lost = True
                raise
            return each.here[part]

        missing = [part for part in each.parts if part not in each.here]
        try:
            pull_objects(missing, fetch, max_tries_per_object=1)
        except ObjectPullError:
            return  # it is not there yet, or lost

    def _delete(self, message_id: str) -> None:
        self._runtime.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._node, run_id=self._run_id, message_object_id=message_id)
        )

    def _lost(self, each: _Arriving) -> Message:
        here = self._node.node_id
        named = Metadata(self._run_id, "", here, here, each.answers, "", time.time(), 0, SYSTEM_MESSAGE_TYPE)
        return make_message(metadata=named, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "parts of the reply are lost"))


def _inflated(message_id: str, each: _Arriving) -> Message:
    message = inflate_object_from_contents(message_id, each.here)
    assert isinstance(message, Message)
    message.metadata.__dict__["_message_id"] = message_id  # what travels does not hold its own name
    return message
