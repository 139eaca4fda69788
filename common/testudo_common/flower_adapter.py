"""Reaches into Flower's internals: shorter polls, and a TLS context of our own. Decides no policy.

This, flower_repairs.py and the simulations' flower_dispatcher.py are the only places that do.

Source: the installed flwr 1.41 (``supernode/start_client_internal.py``, ``supercore/inflatable/inflatable_utils.py``,
``supernode/fleet_http_connection.py``, ``supercore/protobuf/client.py``). What is found there is compared with what is
written here before anything is replaced. Where it differs, polls stay Flower's own, with a warning; a TLS context that
cannot be put in place is an error, since the connection would be opened without certificate and pin.

========================== ================= ================================================
what                        Flower 1.41       here
========================== ================= ================================================
node asks the server        every 3 s         0.2 s, growing to 3 s within 30 s of a message
node looks for its reply    every 0.5 s       0.02 s, growing to 0.5 s
object not there yet        after 1, 2, ... s after 0.02, 0.04, ... s, at the most 10 s
========================== ================= ================================================

A pause is a tenth of the time that has passed since the last message, so that no wait becomes longer by more than a
tenth; and twenty times as long as the last question took, so that a server that many nodes ask, and that answers more
slowly for it, is asked less often. It costs at the most 27 more requests a message and node (0.01 s of a core each at
the SuperLink, where it was measured), and none once a node has been idle for 30 s.
"""

from __future__ import annotations

import ast
import inspect
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any, Protocol

from testudo_common.errors import UsageError

_LOG = logging.getLogger("testudo.flower")

VERSION = "1.41."
PATIENCE = 0.1
"""A pause, as a share of the time since the last message."""
LOAD = 20.0
"""A pause between two questions to the server, as a multiple of what the last one took."""
_IDLE = 3
_SHORTEST = {_IDLE: 0.2, 0.5: 0.02}
"""Flower's pause in seconds -> the shortest that takes its place."""
INITIAL_BACKOFF = 0.02
_PULL_DEFAULTS = {"max_time": 7200, "max_tries_per_object": 500, "initial_backoff": 1, "backoff_cap": 10}
_REMEDY = "install the version of Flower that this program was made for: flwr>=1.41,<1.42"

Contact = Callable[[str, int], None]
"""Told the path of a request and the status of its answer; 0: there was none."""
_SESSION_LASTS = 412
"""What the server answers a node whose last session has not ended."""


class Sessions(Protocol):
    """Remembers a node's session at the server after a kill."""

    def last(self) -> int | None:
        """The node's number in a session that may still last; None: there is none that it may end."""

    def began(self, node: int, /) -> None:
        """A session has begun."""


class _NoSessions:
    """Remembers nothing: a node that was killed waits until its session has run out."""

    def last(self) -> int | None:
        """There is none."""
        return None

    def began(self, node: int, /) -> None:
        """Forget it."""


_NO_SESSIONS: Sessions = _NoSessions()


class _ChangedError(Exception):
    """Flower's internals are not as they are written down here."""


class Clock(Protocol):
    """What a poll needs of time."""

    def monotonic(self) -> float:
        """Seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class AdaptivePause:
    """Takes the place of ``time`` in the SuperNode's loop, which uses nothing of it but ``sleep``.

    Args:
        clock: The real one.
    """

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self._took = 0.0

    def now(self) -> float:
        """Seconds, by that clock."""
        return self._clock.monotonic()

    def noted(self) -> None:
        """A message came, or its reply went."""
        self._last = self._clock.monotonic()

    def asked_in_vain(self, seconds: float) -> None:
        """The server was asked, and had no message; that took ``seconds``."""
        self._took = seconds

    def sleep(self, seconds: float) -> None:
        """Wait for as long as is worth it, at the most for as long as Flower would."""
        waited = self._clock.monotonic() - self._last
        load = LOAD * self._took if seconds == _IDLE else 0.0
        self._clock.sleep(min(seconds, max(_SHORTEST[seconds], PATIENCE * waited, load)))


def quicken_node_polls() -> bool:
    """Shorten the pauses of this process's SuperNode; False: Flower is not as expected, and they stay as they are."""
    return or_stock("the polls of the node", _quicken_node_polls)


def quicken_object_pulls() -> bool:
    """Shorten the first pause before an object is asked for again, for SuperNode, executor and HttpGrid alike.

    False: Flower is not as expected, and it stays as it is.
    """
    return or_stock("the pauses before an object is asked for again", _quicken_object_pulls)


def use_tls_context(context: ssl.SSLContext, contact: Contact, sessions: Sessions = _NO_SESSIONS) -> None:
    """Make this process's SuperNode open its connections with ``context``, and tell how each request went.

    Redirects are not followed: the door has none. A node that is not let in since its last session lasts ends that one
    itself, where it remembers it: the server sees by the node's signature that it may.

    Args:
        context: With roots, and with certificate and key where the door asks for them.
        contact: Called in whatever thread sent the request.
        sessions: What is remembered of them.

    Raises:
        UsageError: Flower is not as expected, and would connect without it.
    """
    try:
        _use_tls_context(context, contact, sessions)
    except (_ChangedError, ImportError, AttributeError, TypeError, OSError) as error:
        raise UsageError(
            f"Flower cannot be made to show this node's certificate ({error})", where=_version(), remedy=_REMEDY
        ) from error


def or_stock(what: str, apply: Callable[[], None]) -> bool:
    """Whether ``apply`` did it; a warning, if Flower is not as it expects."""
    try:
        apply()
    except (_ChangedError, ImportError, AttributeError, TypeError, OSError) as error:
        _LOG.warning("%s stay Flower's own: %s", what, error)
        return False
    return True


def _version() -> str:
    import flwr

    return f"flwr {flwr.__version__}"


def expect(condition: bool, what: str) -> None:
    """Go on only if Flower is so; see :func:`or_stock`."""
    if not condition:
        raise _ChangedError(f"{_version()}: {what}")


def expect_version() -> None:
    """Go on only with the Flower that all this was written for."""
    expect(_version().startswith(f"flwr {VERSION}"), "another version")


def _quicken_node_polls() -> None:
    from flwr.supernode import start_client_internal as node

    expect_version()
    pauses = _pauses_in(node)
    expect(sorted(pauses) == [0.5, 0.5, 3], f"its loop pauses for {pauses}")
    loop = node.start_client_internal.__code__.co_names
    expect({"_pull_and_store_message", "_push_messages"} <= set(loop), "its loop calls other functions")
    expect(isinstance(node._pull_and_store_message, FunctionType), "its loop pulls in another way")
    pull, push, pause = node._pull_and_store_message, node._push_messages, AdaptivePause()

    def pull_and_note(*args: Any, **more: Any) -> int | None:
        started = pause.now()
        run_id = pull(*args, **more)
        if run_id is None:
            pause.asked_in_vain(pause.now() - started)
        else:
            pause.noted()
        return run_id

    def push_and_note(*args: Any, **more: Any) -> None:
        push(*args, **more)
        pause.noted()

    for name, value in (("_pull_and_store_message", pull_and_note), ("_push_messages", push_and_note), ("time", pause)):
        setattr(node, name, value)


def _pauses_in(module: ModuleType) -> list[float]:
    """Arguments of every ``time.sleep`` in a module that uses ``time`` for nothing else."""
    tree = ast.parse(inspect.getsource(module))
    pauses = []
    for part in ast.walk(tree):
        if isinstance(part, ast.Call) and ast.unparse(part.func) == "time.sleep":
            (argument,) = part.args
            expect(isinstance(argument, ast.Constant) and argument.value in _SHORTEST, "a pause is computed")
            pauses.append(argument.value)  # type: ignore[attr-defined]
    uses = [part for part in ast.walk(tree) if isinstance(part, ast.Name) and part.id == "time"]
    expect(len(uses) == len(pauses), "its loop reads the clock")
    return pauses


def _quicken_object_pulls() -> None:
    from flwr.supercore.inflatable import inflatable_utils as objects
    from flwr.superlink.grid import http_grid
    from flwr.supernode import start_client_internal as node

    expect_version()
    pulls = (objects.pull_objects, objects.pull_and_inflate_object_from_tree)
    expect(
        all(vars(user).get("pull_objects") is pulls[0] for user in (node, http_grid)),
        "node and grid pull in another way",
    )
    done = {**_PULL_DEFAULTS, "initial_backoff": INITIAL_BACKOFF}
    if all(done.items() <= (pull.__kwdefaults__ or {}).items() for pull in pulls):
        return  # asked for twice in one process
    expect("delay = min(delay * 2, backoff_cap)" in inspect.getsource(pulls[0]), "the pauses grow in another way")
    for pull in pulls:
        defaults: Mapping[str, Any] = pull.__kwdefaults__ or {}
        expect(_PULL_DEFAULTS.items() <= defaults.items(), f"{pull.__name__} has other defaults")
    for pull in pulls:
        pull.__kwdefaults__ = {**(pull.__kwdefaults__ or {}), "initial_backoff": INITIAL_BACKOFF}


def _use_tls_context(context: ssl.SSLContext, contact: Contact, sessions: Sessions) -> None:
    import httpx
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeRequest
    from flwr.supercore.protobuf import client as protobuf
    from flwr.supernode import fleet_http_connection as fleet
    from flwr.supernode.fleet_http_client import FleetHttpClient

    expect_version()
    expect(vars(fleet).get("FleetHttpClient") is FleetHttpClient, "the node's client is another one")
    expect(issubclass(FleetHttpClient, protobuf.ProtobufClient), "the node's client is made in another way")
    made, built = protobuf.ProtobufClient.__init__, protobuf.ProtobufClient.from_server_address
    _expect_parameters(made, ("self", "base_url", "interceptors", "verify", "timeout", "retry_invoker"))
    named = ("server_address", "insecure", "root_certificates", "interceptors", "retry_invoker")
    _expect_parameters(built, named)
    opened = inspect.unwrap(fleet.http_request_response).__code__.co_names
    expect({"FleetHttpClient", "from_server_address"} <= set(opened), "the node opens connections in another way")

    class Told:
        """Tells how each request went."""

        def intercept(self, call: protobuf.ProtobufRequestContext, call_next: protobuf.ProtobufCall) -> httpx.Response:
            path = call.request.url.path
            try:
                response = call_next(call)
            except httpx.TransportError:
                contact(path, 0)
                raise
            contact(path, response.status_code)
            return response

    class Client(FleetHttpClient):
        """The node's client, with our TLS context."""

        @classmethod
        def from_server_address(
            cls,
            server_address: str,
            insecure: bool,
            root_certificates: bytes | str | None,  # noqa: ARG003 - the context has them
            interceptors: Sequence[protobuf.ProtobufClientInterceptor],
            *,
            retry_invoker: Any = None,
        ) -> Client:
            if insecure:
                raise UsageError("a node connects with TLS or not at all", where=server_address)
            told = [*interceptors, Told()]
            client = cls(f"https://{server_address}", interceptors=told, verify=context, retry_invoker=retry_invoker)
            if not isinstance(client._client, httpx.Client):
                raise UsageError("Flower's client is not the expected one", where=_version(), remedy=_REMEDY)
            client._client.follow_redirects = False
            return client

        def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802 - Flower's name
            try:
                response = super().ActivateNode(request)
            except httpx.HTTPStatusError as error:
                last = sessions.last() if error.response.status_code == _SESSION_LASTS else None
                if last is None:
                    raise
                with suppress(httpx.HTTPStatusError):  # it ran out meanwhile
                    self.DeactivateNode(DeactivateNodeRequest(node_id=last))
                response = super().ActivateNode(request)
            sessions.began(response.node_id)
            return response

    vars(fleet)["FleetHttpClient"] = Client


def _expect_parameters(function: Callable[..., Any], names: Sequence[str]) -> None:
    found = tuple(inspect.signature(function).parameters)
    expect(found == tuple(names), f"{function.__qualname__} takes {', '.join(found)}")
