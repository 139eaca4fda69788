"""One HTTP connection, as uvicorn and httptools (llhttp) read it, with what they leave open: bounds and a deadline.

A head has to be whole within ten seconds of a connection's beginning, or of its own (slow loris), and neither it nor
the whole message may be larger than what is ever answered. What goes beyond is cut off: nobody honest gets there.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from testudo_client.serving.limits import HEAD_SECONDS, MAX_BYTES, MAX_HEAD_BYTES


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, bounded."""

    _in_head = True
    _received = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head has to come."""
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more has to come."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes more of a message."""
        self._received += len(data)
        super().data_received(data)
        if self._received > (MAX_HEAD_BYTES if self._in_head else 2 * MAX_BYTES):
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._received = True, 0
        if self._deadline is None:
            self._set_deadline()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._cancel_deadline()
        super().on_headers_complete()

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
