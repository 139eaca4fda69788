"""What a node sent back, as a message of the client that it is said to be from, or in words why it is none. No waiting.

Where the federation has a roster, only what the client signed counts, as its answer to what this server asked in this
run (testudo_common.signed_replies). A node that answers for another is nobody's reply: it blames no client.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import Message as FlowerMessage

from testudo_common.errors import ReplyError, WireError
from testudo_common.flower_records import identity_in, reply_in
from testudo_common.roster import Roster
from testudo_common.signed_replies import IDENTIFICATION, Asked, verify_reply
from testudo_common.wire import Message, decode
from testudo_server.exchange import FAILED_ON_THE_WAY, NOT_SIGNED


@dataclass(frozen=True, slots=True)
class ReplyReader:
    """Reads the replies of one run.

    Attributes:
        run_id: Flower's.
        roster: Whose signatures count; None: the federation has no keys, and nothing is verified.
    """

    run_id: int
    roster: Roster | None = None

    def message_in(self, client: str, reply: FlowerMessage) -> Message | str:
        """The client's message, or why there is none.

        Args:
            client: That was asked.
            reply: Matched with the request by the id of the message that it answers.
        """
        if reply.has_error():
            # The reason is the peer's text, or a trace of its code: neither goes into a record.
            return f"{FAILED_ON_THE_WAY} {reply.error.code}"
        try:
            parts, signature = reply_in(reply.content)
            if self.roster is not None:
                verify_reply(self.roster, client, self._asked(reply), parts, signature)
        except ReplyError:
            return f"{NOT_SIGNED} {client}"
        except WireError as error:
            return _not_understood(error) if self.roster is None else f"{NOT_SIGNED} {client}"
        try:
            return decode(parts)
        except WireError as error:
            return _not_understood(error)

    def client_in(self, reply: FlowerMessage) -> str:
        """Who a node is, by its answer.

        Raises:
            WireError: It gives no name.
            ReplyError: It gives the name of another, or of nobody.
        """
        if reply.has_error():
            raise WireError("no answer")
        client, signature = identity_in(reply.content)
        if self.roster is not None:
            verify_reply(self.roster, client, self._asked(reply), IDENTIFICATION, signature)
        return client

    def _asked(self, reply: FlowerMessage) -> Asked:
        return Asked(self.run_id, reply.metadata.reply_to_message_id)


def _not_understood(error: WireError) -> str:
    return f"reply not understood: {error.problem}"
