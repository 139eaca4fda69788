"""What secure aggregation costs a client and the server: ours against its primitives alone, and against Flower's.

A round is played once, and then each side's part in it is done again and timed: steps are functions of states and
messages. Decoding and encoding messages counts; delivering them does not, nor does saving states between them.

The limit is what the protocol cannot do without, done plainly with the same libraries, for d words and k neighbours
among n members, of whom s survive and q drop out after they have shared their keys; in a complete graph k = n - 1::

    client = (k + 1) mask + k (2 agree + 2 derive + seal + unseal) + quantise + n verify + sign
    server = s add + s mask + n verify + recover + q s (agree + derive + mask)

mask expands AES-256-CTR into a buffer and adds it, d words; add adds d words; agree is X25519 with the peer's key
loaded, derive HKDF, seal and unseal AES-256-GCM of two shares; quantise is a pass for the norm and one that scales,
clips and rounds at random; verify and sign are Ed25519, keys loaded; recover is Lagrange's formula for n secrets.

Goals: with 10 members a client within 1.5 and the server within 2 times the limit; with 50 a twentieth of Flower's
client and a hundredth of its server; with 1000 two CPU seconds of the server; three words of memory a coordinate at a
client, and at the server no more for many members than for few.
"""

from __future__ import annotations

import hashlib
import math
import os
import statistics
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from unittest import mock

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from testudo_common.secagg import client, client_checks, quantize, server
from testudo_common.secagg.client import ClientState, Identity, Shared
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import MESSAGES
from testudo_common.secagg.primitives import verification_key
from testudo_common.secagg.quantize import Contribution, Layout
from testudo_common.secagg.server import Sum
from testudo_common.secagg.shamir import LIMBS, PRIME, SHARE_BYTES
from testudo_common.secagg.terms import LEAST_MIN_GROUP, Parameters, Terms
from testudo_simulations.benchmarks.flower_secagg import FlowerCost, measure_flower
from testudo_simulations.benchmarks.measure import Measurement, Seconds, compared, median_seconds_in_turn

_VALUE_BITS = 16
_CORRUPTION = 0.05
_TIMES_A_REPEAT = 10  # most parts take a hundredth of a second
_SERVER_LIMIT_SECONDS = 2.0
_CLIENT_LIMIT_WORDS = 3.0
_PRIMITIVES = "its primitives alone"
_CHUNK = 1 << 15  # coordinates
_ZEROS = memoryview(bytes(1 << 18))
_STREAM = bytearray(len(_ZEROS) + 15)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Members, coordinates of an update and, where there is a third, members that drop out after sharing keys."""

    alone: tuple[int, int] = (10, 10**6)
    beside_flower: tuple[int, int, int] = (50, 10**5, 5)
    large: tuple[int, int, int] = (1000, 10**5, 50)
    few: tuple[int, int] = (10, 10**6)
    many: tuple[int, int] = (40, 10**6)


def measure_secagg(repeats: int, sizes: Sizes | None = None) -> list[Measurement]:
    """Seconds, bytes on the wire and peak memory, of one client and of the server."""
    sizes = sizes or Sizes()
    return [
        *beside_the_limit(*sizes.alone, repeats=repeats),
        *beside_flower(*sizes.beside_flower, repeats=repeats),
        *in_a_large_group(*sizes.large, repeats=repeats),
        *peak_memory(sizes.few, sizes.many),
    ]


def beside_the_limit(members: int, size: int, *, repeats: int) -> list[Measurement]:
    """One client and the server against their primitives; the server also where one member drops out."""
    whole, broken = play(members, size), play(members, size, dropped=1)
    graph, thinned = _graph(members, 0), _graph(members, 1)
    found: list[Measurement] = []
    for case, ours, limit in (
        (whole.case("client"), whole.client_part, client_limit(graph, size)),
        (whole.case("server"), whole.server_part, server_limit(graph, size, dropped=0)),
        (broken.case("server"), broken.server_part, server_limit(thinned, size, dropped=1)),
    ):
        mine, least = median_seconds_in_turn([ours, limit], repeats * _TIMES_A_REPEAT)
        found += compared(case, mine, least, _PRIMITIVES)
    return [*found, *whole.bytes_on_the_wire()]


def beside_flower(members: int, size: int, dropped: int, *, repeats: int) -> list[Measurement]:
    """One client and the server against Flower's SecAgg+, in turn, in a complete graph with the same threshold.

    Ours decode and encode their messages; in Flower's part that is left out.
    """
    played, threshold = play(members, size, dropped=dropped), _graph(members, dropped).threshold
    clients: list[Seconds] = []
    servers: list[Seconds] = []
    costs: list[FlowerCost] = []
    for _ in range(repeats):
        ours = median_seconds_in_turn([played.client_part, played.server_part_to_the_mean], _TIMES_A_REPEAT)
        clients.append(ours[0])
        servers.append(ours[1])
        if cost := measure_flower(members, size, threshold, dropped):
            costs.append(cost)
    name = f"Flower's SecAgg+, threshold {threshold}" if costs else "none: the installed flwr has no SecAgg+"
    extrapolated = f"\n{costs[0].extrapolated}" if costs and costs[0].extrapolated else ""
    return [
        *_beside(played.case("client"), clients, [cost.client_seconds for cost in costs], name),
        *_beside(played.case("server"), servers, [cost.server_seconds for cost in costs], name + extrapolated),
        *played.bytes_on_the_wire(),
    ]


def _beside(case: str, ours: list[Seconds], theirs: list[float], name: str) -> list[Measurement]:
    wall, cpu = statistics.median(each.wall for each in ours), statistics.median(each.cpu for each in ours)
    reference = statistics.median(theirs) if theirs else None
    return [
        Measurement(case, "wall_seconds", "s", wall, None, "none: Flower's is measured in CPU seconds"),
        Measurement(case, "cpu_seconds", "s", cpu, reference, name),
    ]


def in_a_large_group(members: int, size: int, dropped: int, *, repeats: int) -> list[Measurement]:
    """The server of one large group against our own limit, and one of its clients against its primitives."""
    played = play(members, size, dropped=dropped)
    (served,) = median_seconds_in_turn([played.server_part_to_the_mean], repeats)
    mine, least = median_seconds_in_turn([played.client_part, client_limit(_graph(members, dropped), size)], repeats)
    limit = Seconds(_SERVER_LIMIT_SECONDS, _SERVER_LIMIT_SECONDS)
    return [
        *compared(played.case("server"), served, limit, "our own limit"),
        *compared(played.case("client"), mine, least, _PRIMITIVES),
        *played.bytes_on_the_wire(),
    ]


def peak_memory(few: tuple[int, int], many: tuple[int, int]) -> list[Measurement]:
    """Peak of what is allocated, in words of 4 bytes a coordinate.

    Of a client, while it quantises and masks an update that is there already. Of the server, from the first masked
    input to the open sum; it takes one input at a time, and whoever hands it in holds it. Sealed shares, of which
    there are as many as members squared, have left by then.
    """
    small, large = play(*few, keep_inputs=False), play(*many, keep_inputs=False)
    metric, unit, name = "words_per_coordinate", "words", f"the server of {few[0]} members"
    of_client = small.client_peak_bytes() / (4 * few[1])
    of_few, of_many = small.server_peak_bytes() / (4 * few[1]), large.server_peak_bytes() / (4 * many[1])
    return [
        Measurement(small.case("client"), metric, unit, of_client, _CLIENT_LIMIT_WORDS, "our own limit"),
        Measurement(large.case("server"), metric, unit, of_many, of_few, name),
    ]


class Clients(Protocol):
    """A cohort as the server meets it."""

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Client id -> its reply to what it was sent; an empty message opens the round."""

    def inputs(self) -> Iterator[tuple[str, Words]]:
        """Who sends a masked input, and that: ``uint32[size]``, one at a time."""


def serve(terms: Terms, clients: Clients) -> Sum:
    """All of the server's part in a round of one group, from bytes to bytes."""

    def ask(sent: Mapping[str, bytes]) -> dict[str, Any]:
        return {name: MESSAGES.decode(reply) for name, reply in clients.answers(sent).items()}

    # What is done with is let go: each name holds one step's only.
    state: Any
    told: Any
    replies = ask(dict.fromkeys(terms.roster, b""))
    state, told = server.begin(terms, replies)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    (state,), told, _ = server.gather(terms, state, replies)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    state, told, _ = server.share(terms, state, replies)
    replies = ask({name: MESSAGES.encode(message) for name, message in told.items()})
    told = None
    for name, vector in clients.inputs():
        state = server.accept(state, name, vector)
    state, told = server.close_masking(terms, state)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    state, told = server.confirm(terms, state, replies)
    replies = ask({name: MESSAGES.encode(message) for name, message in told.items()})
    return server.open_sum(terms, state, replies)


@dataclass(slots=True)
class Played:
    """A round of one group as it was played, so that either side's part in it can be done again.

    Attributes:
        terms: Everybody's; the roster is the cohort, and its first client the one that is measured.
        update: ``float32[d]``, the measured client's.
        dropped: How many members shared their keys and sent no masked input.
        plain_sum: ``uint32[d]``, of the survivors' vectors.
        replies: What the clients answered, step by step: client id -> bytes.
        inputs: Client id -> how to come by its masked input.
        steps: The measured client's states, and what it was sent, step by step.
    """

    terms: Terms
    update: npt.NDArray[np.float32]
    dropped: int
    plain_sum: Words
    replies: list[dict[str, bytes]] = field(default_factory=list)
    inputs: dict[str, Callable[[], Words]] = field(default_factory=dict)
    steps: list[tuple[ClientState, bytes]] = field(default_factory=list)

    def case(self, side: str) -> str:
        """What one side's part is called."""
        lost = f", {self.dropped} dropped" if self.dropped else ""
        return f"{side}, {len(self.terms.roster)} members{lost}, {len(self.update):,} coordinates"

    def client_part(self) -> None:
        """All that a client does, from its update to its last reply."""
        me = _identity(next(iter(self.terms.roster)))
        vector = quantize.encode(self.terms.parameters.layout, Contribution(self.update), os.urandom(32))
        MESSAGES.encode(client.commit(self.terms, me)[1].message)
        for state, sent in self.steps:
            MESSAGES.encode(client.step(self.terms, me, state, MESSAGES.decode(sent), vector)[1].message)

    def server_part(self) -> Sum:
        """All that the server does, to the open sum."""
        return serve(self.terms, _Replay(self))

    def server_part_to_the_mean(self) -> None:
        """The same, to the mean of the updates, where Flower's part ends."""
        found = self.server_part()
        quantize.decode(self.terms.parameters.layout, found.total, len(found.survivors))

    def check(self, found: Sum) -> None:
        """A benchmark of a wrong sum would say nothing."""
        assert found.survivors == tuple(sorted(self.inputs)) and not found.disputes and not found.faults
        assert len(found.survivors) == len(self.terms.roster) - self.dropped
        assert np.array_equal(found.total, self.plain_sum)

    def bytes_on_the_wire(self) -> list[Measurement]:
        """Of one client in a round, its update and the model included, which alone travel without protection."""
        name = next(iter(self.terms.roster))
        plain = 4 * len(self.update)
        up = plain + sum(len(replies[name]) for replies in self.replies)
        down = plain + sum(len(sent) for _, sent in self.steps)
        return [
            Measurement(self.case("client"), "bytes_up", "B", up, plain, "plain float32 update"),
            Measurement(self.case("client"), "bytes_down", "B", down, plain, "plain float32 model"),
        ]

    def client_peak_bytes(self) -> int:
        """While a client quantises and masks its update."""
        me = _identity(next(iter(self.terms.roster)))
        state, message = next((s, MESSAGES.decode(sent)) for s, sent in self.steps if isinstance(s, Shared))
        tracemalloc.start()
        vector = quantize.encode(self.terms.parameters.layout, Contribution(self.update), os.urandom(32))
        client.step(self.terms, me, state, message, vector)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    def server_peak_bytes(self) -> int:
        """Of the server from the first masked input to the open sum; making and holding that input does not count."""
        replay = _Replay(self)
        tracemalloc.start()
        found = serve(self.terms, replay)
        peak = max(replay.peak_bytes, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        self.check(found)
        return peak


class _Replay:
    """The clients' replies again. While memory is traced, it keeps the server's peak while masked inputs arrive."""

    def __init__(self, played: Played) -> None:
        self._inputs, self._replies = played.inputs, iter(played.replies)
        self.peak_bytes = 0

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        replies = next(self._replies)
        assert replies.keys() <= sent.keys()
        return replies

    def inputs(self) -> Iterator[tuple[str, Words]]:
        for name, made in self._inputs.items():
            vector = made()
            tracemalloc.reset_peak()  # what it took to make it is not the server's
            yield name, vector
            self.peak_bytes = max(self.peak_bytes, tracemalloc.get_traced_memory()[1])


class _Live:
    """Clients that play a round and write it down.

    Args:
        played: Where to; there is nothing in it yet.
        keep_inputs: Keep masked inputs; else each is made anew when it is asked for, all in one place.
    """

    def __init__(self, played: Played, *, keep_inputs: bool) -> None:
        self._played = played
        self._place = None if keep_inputs else np.empty_like(played.plain_sum)
        self._states: dict[str, ClientState] = {}
        names = list(played.terms.roster)
        self._measured, self._gone = names[0], set(names[len(names) - played.dropped :])

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        decoded: dict[bytes, Any] = {b"": None}  # what all are sent is decoded once for all
        replies: dict[str, bytes] = {}
        for name, data in sent.items():
            if name in self._gone and isinstance(self._states.get(name), Shared):
                continue
            if data not in decoded:
                decoded[data] = MESSAGES.decode(data)
            if name == self._measured and data:
                self._played.steps.append((self._states[name], data))
            replies[name] = self._reply(name, decoded[data])
        self._played.replies.append(replies)
        return replies

    def inputs(self) -> Iterator[tuple[str, Words]]:
        for name, made in self._played.inputs.items():
            yield name, made()

    def _reply(self, name: str, message: Any) -> bytes:
        played, me, state, vector = self._played, _identity(name), self._states.get(name), None
        if isinstance(state, Shared):
            vector = _plain_vector(played, name)
            played.plain_sum += vector
            played.inputs[name] = (
                _kept(vector) if self._place is None else _anew(played, name, state, message, self._place)
            )
        if state is None:
            self._states[name], reply = client.commit(played.terms, me)
        else:
            self._states[name], reply = client.step(played.terms, me, state, message, vector)
        return MESSAGES.encode(reply.message)


def _plain_vector(played: Played, name: str) -> Words:
    """All have the same update; how it is rounded differs."""
    rounding_key = hashlib.sha256(name.encode()).digest()
    return quantize.encode(played.terms.parameters.layout, Contribution(played.update), rounding_key)


def _kept(vector: Words) -> Callable[[], Words]:
    def made() -> Words:
        return vector

    return made


def _anew(played: Played, name: str, state: Shared, message: Any, place: Words) -> Callable[[], Words]:
    def made() -> Words:
        place[:] = _plain_vector(played, name)
        client.step(played.terms, _identity(name), state, message, place)
        return place

    return made


def play(members: int, size: int, *, dropped: int = 0, keep_inputs: bool = True) -> Played:
    """A round of one group; the last ``dropped`` members share their keys and send no masked input.

    While it is played, clients do not verify each other's signatures, which would be the square of their number; when
    a client's part is done again, it does. The sum that the server's part gives when it is done again is checked.
    """
    update = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    played = Played(_terms(members, size, dropped), update, dropped, np.zeros(size, dtype=np.uint32))

    def trusted(*_: object) -> None:
        """Nothing is checked."""

    with mock.patch.object(client_checks, "advertisements_are_signed", trusted):
        serve(played.terms, _Live(played, keep_inputs=keep_inputs))
    played.check(played.server_part())
    return played


def _identity(name: str) -> Identity:
    return Identity(name, hashlib.sha256(name.encode()).digest())


def _terms(members: int, size: int, dropped: int) -> Terms:
    """A plan that expects as many to drop out as will."""
    names = [f"owner-{number:04d}" for number in range(members)]
    return Terms(
        federation="benchmark",
        roster_digest=bytes(32),
        roster={name: verification_key(_identity(name).signing_key) for name in names},
        plan_digest=bytes(32),
        round_number=1,
        attempt=0,
        model_digest=bytes(32),
        parameters=Parameters(
            group_size=members,
            min_cohort=members,
            min_group=LEAST_MIN_GROUP,
            corruption=_CORRUPTION,
            dropout=dropped / members,
            max_left_out=0.0,
            layout=Layout(size, math.sqrt(size), _VALUE_BITS),
        ),
    )


def _graph(members: int, dropped: int) -> Graph:
    return graph_of(members, _CORRUPTION, dropped / members)


def client_limit(graph: Graph, size: int) -> Callable[[], None]:
    """A client's formula, to be timed."""
    update = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    secret, peer = os.urandom(32), X25519PrivateKey.generate().public_key().public_bytes_raw()
    signer = Ed25519PrivateKey.generate()
    signing_key, verifying_key = signer.private_bytes_raw(), signer.public_key().public_bytes_raw()
    message, shares = os.urandom(32), os.urandom(2 * SHARE_BYTES)

    def work() -> None:
        vector = _quantised(update)
        signature = Ed25519PrivateKey.from_private_bytes(signing_key).sign(message)
        for _ in range(graph.members):
            Ed25519PublicKey.from_public_bytes(verifying_key).verify(signature, message)
        channel, mask = X25519PrivateKey.from_private_bytes(secret), X25519PrivateKey.from_private_bytes(secret)
        for _ in range(graph.degree):
            cipher = AESGCM(_agreed(channel, peer))
            cipher.decrypt(message[:12], cipher.encrypt(message[:12], shares, message), message)
            _mask(vector, _agreed(mask, peer))
        _mask(vector, secret)

    return work


def server_limit(graph: Graph, size: int, *, dropped: int) -> Callable[[], None]:
    """The server's formula, to be timed; for a complete graph, where all secrets have the same holders."""
    assert graph.degree == graph.members - 1
    secret, peer = os.urandom(32), X25519PrivateKey.generate().public_key().public_bytes_raw()
    signer, message = Ed25519PrivateKey.generate(), os.urandom(32)
    signature, verifying_key = signer.sign(message), signer.public_key().public_bytes_raw()
    vector, survivors = np.ones(size, dtype=np.uint32), graph.members - dropped
    shares = np.random.default_rng(0).integers(PRIME, size=(graph.threshold, graph.members * LIMBS))

    def work() -> None:
        total = np.zeros(size, dtype=np.uint32)
        for _ in range(graph.members):
            Ed25519PublicKey.from_public_bytes(verifying_key).verify(signature, message)
        for _ in range(survivors):
            np.add(total, vector, out=total)
        _constant_terms(list(range(1, graph.threshold + 1)), shares)
        for _ in range(survivors):
            _mask(total, secret)
        for _ in range(dropped):
            key = X25519PrivateKey.from_private_bytes(secret)
            for _ in range(survivors):
                _mask(total, _agreed(key, peer))

    return work


def _agreed(key: X25519PrivateKey, peer: bytes) -> bytes:
    shared = key.exchange(X25519PublicKey.from_public_bytes(peer))
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=peer).derive(shared)


def _mask(vector: Words, key: bytes) -> None:
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(_STREAM, dtype="<u4", count=len(_ZEROS) // 4)
    for start in range(0, len(vector), len(words)):
        block = vector[start : start + len(words)]
        stream.update_into(_ZEROS[: block.nbytes], _STREAM)
        np.add(block, words[: len(block)], out=block)


def _quantised(update: npt.NDArray[np.float32]) -> Words:
    """16 bits of value and 16 of chance are one int32, so that a pass in float32 is enough."""
    stream = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    chance = np.frombuffer(_STREAM, dtype="<u2", count=_CHUNK)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(update), _CHUNK)]
    norm = math.sqrt(sum(float(np.dot(update[chunk], update[chunk])) for chunk in chunks))
    largest = np.float32(((1 << 15) - 1) << 16)
    factor = np.float32(largest / max(norm, math.sqrt(len(update))))
    vector = np.empty(len(update), dtype=np.int32)
    for chunk in chunks:
        fine, into = update[chunk] * factor, vector[chunk]
        np.clip(fine, -largest, largest, out=fine)
        into[:] = fine
        stream.update_into(_ZEROS[: 2 * len(fine)], _STREAM)
        into += chance[: len(fine)]
        into >>= 16
    return vector.view(np.uint32)


def _constant_terms(points: list[int], shares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``int64[m]``, of the polynomials that have ``shares``, ``int64[t, m]``, at ``points``; Lagrange's formula."""
    weights = [
        math.prod(other * pow(other - point, -1, PRIME) for other in points if other != point) % PRIME
        for point in points
    ]
    return np.array(weights) @ shares % PRIME
