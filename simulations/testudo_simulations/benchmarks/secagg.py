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

import statistics
from dataclasses import dataclass

from testudo_simulations.benchmarks.flower_secagg import FlowerCost, measure_flower
from testudo_simulations.benchmarks.measure import Measurement, Seconds, compared, median_seconds_in_turn
from testudo_simulations.benchmarks.played_round import graph_for, play
from testudo_simulations.benchmarks.secagg_limits import client_limit, server_limit

_TIMES_A_REPEAT = 10  # most parts take a hundredth of a second
_SERVER_LIMIT_SECONDS = 2.0
_CLIENT_LIMIT_WORDS = 3.0
_PRIMITIVES = "its primitives alone"


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
    graph, thinned = graph_for(members, 0), graph_for(members, 1)
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
    played, threshold = play(members, size, dropped=dropped), graph_for(members, dropped).threshold
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
    mine, least = median_seconds_in_turn([played.client_part, client_limit(graph_for(members, dropped), size)], repeats)
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
