"""Who garbles its group's sum: strikes are counted over rounds, and whom they single out is named. Pure; a fold.

Not the check of an opened sum (that fails a group), and not a verdict on one round: within one group nobody can be
told apart. It needs a partition drawn anew each round by the public coin, which no behaviour of the members sways.

The test. Take a client for honest: then its place among the round's n members is uniform, whatever others do who do
not look where it stands. So given that groups of B places in all are bad, it is in a bad one with probability at most
B/n; less if others are the cause, for they fill some of the B places. A gambler who bets on "it is in a bad group" at
these odds gains nothing on average, and the chance that the capital ever grows from 1 to 1/a is at most a (Ville 1939;
Shafer, Shen, Vereshchagin and Vovk, "Test martingales, Bayes factors and p-values", Statistical Science 2011). So it
may be looked at after every round, with no base rate to estimate, however many others garble and however often. The
capital is spread evenly over stakes of 1/8 to 1, since the best one depends on how often the client garbles
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2023). With N clients, one
is named at a capital of N/false_alarm (Bonferroni). Rounds with no bad group, or none but bad ones, win nothing.

Framing. Members know their group before they send, so a poisoner can garble just when it meets its victim, and no test
tells those two apart. So a client is named only if its capital is that high for every set of ``framers`` others, who
are excused: they may have garbled for any reason, and only bad groups without them count. The least capital over the
sets is valid, since it is no more than that for the true one (Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 2023). Those named are excused from the next round
on: what they garble is explained, and counts against nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

STAKES = np.arange(1, 9) / 8  # shares of the capital set on "in a bad group"
LOST = np.append(np.log1p(-STAKES[:-1]), -np.inf)  # log of what is left of it; of a stake of 1 nothing


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What became of one group of one round.

    Attributes:
        round: Of which draw of the partition; a redrawn attempt is a draw of its own and needs its own number.
        members: Client ids as drawn, those who dropped out since included: one who could leave the list after it saw
            its group would choose which rounds count, and against whom. Each client is in one group of a round.
        opened: False if the opened sum failed its check, or a member's fault kept it closed. True otherwise, also for
            a group that fell under ``min_group`` by dropouts: that is nobody's fault.
    """

    round: int
    members: tuple[str, ...]
    opened: bool


def strikes(history: Iterable[GroupOutcome]) -> dict[str, int]:
    """Client id -> bad groups it was in; every client of the history, sorted, those with 0 too.

    All bad groups count, also those that a named culprit explains. Honest clients collect strikes by bad luck, so this
    is to be shown and not to be acted on: ``culprits`` says whom the strikes single out.
    """
    count: dict[str, int] = {}
    for group in history:
        for client in group.members:
            count[client] = count.get(client, 0) + (not group.opened)
    return dict(sorted(count.items()))


def culprits(history: Sequence[GroupOutcome], *, false_alarm: float = 1e-3, framers: int = 1) -> tuple[str, ...]:
    """Clients that bad groups single out: in the order they were named, those of one round by id.

    Who is named stays named when the history grows. Clients that always share a group are never named (one of them may
    frame the other), nor is anybody if there is one group a round.

    Rounds until one that always garbles is named, groups of 5, median of 100 runs: 17 if all of 20 clients are drawn (9
    with no framers), 62 if 20 of 100 are (48), of which it took part in 12; each of two such among 20, 29 (14).

    Args:
        history: All groups of all rounds, in any order; rounds are taken by their number. Nothing may be left out
            because of how it ended.
        false_alarm: Bound on the probability, in (0, 1), that any honest client is ever named, for any number of
            rounds. Counted are the clients seen so far: if M have been when the first is named, and late joiners make
            it N, the bound is ``false_alarm * (1 + ln(N / M))``.
        framers: How many clients may work together to frame one honest client, 0 or more; 0 names sooner, and lets one
            poisoner get any other client named. Memory is 128 bytes * suspects * others ** framers: suspects have been
            in a bad group, and others in a round that had one. Nobody else's capital grows, or makes another's less.

    Raises:
        ValueError: An argument is out of range, a client is twice in one round, or a group has no members.
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it is a probability in (0, 1)")
    if framers < 0:
        raise ValueError(f"framers is {framers}; it is a count, 0 or more")
    rounds = _by_round(history)
    bet_on = [groups for groups in rounds if not all(group.opened for group in groups)]
    others = sorted({client for groups in bet_on for group in groups for client in group.members})
    place = {client: index for index, client in enumerate(others)}
    suspected = {client for groups in bet_on for group in groups for client in group.members if not group.opened}
    column = {client: index for index, client in enumerate(sorted(suspected))}
    framing = _sets_of_at_most(framers, len(others))  # bool[s, n]
    log_capital = np.zeros((len(framing), len(column), 2 * len(STAKES)))
    seen: set[str] = set()
    named = np.zeros(len(others), dtype=np.bool_)
    order: list[str] = []
    for groups in rounds:
        members = [client for group in groups for client in group.members]
        seen.update(members)
        bad = np.array([not group.opened for group in groups])
        if not bad.any():  # no bet was taken
            continue
        member = np.array([place[client] for client in members], dtype=np.intp)
        group_of = np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])
        judged = np.array([index for index, client in enumerate(members) if client in suspected], dtype=np.intp)
        capital = np.array([column[members[index]] for index in judged], dtype=np.intp)
        excused = framing[:, member] | named[member]
        log_capital[:, capital] += log_returns(group_of, bad, excused, judged)
        judged = member[judged]
        least = np.where(framing[:, judged], np.inf, _log_mean_exp(log_capital[:, capital])).min(axis=0)
        new = judged[(least >= math.log(len(seen) / false_alarm)) & ~named[judged]]
        named[new] = True
        order.extend(others[index] for index in sorted(new))
    return tuple(order)


def log_returns(
    group_of: npt.NDArray[np.intp],
    bad: npt.NDArray[np.bool_],
    excused: npt.NDArray[np.bool_],
    judged: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[np.float64]:
    """By what one round multiplies the capital set against members: natural logarithm, ``float64[s, m, 16]``.

    For an honest member that is not excused the factor is at most 1 in expectation over its place, given the places of
    the excused and the outcomes of all groups without them. Two ways to bet, since neither is the better one always:
    on every round (the first 8; with two groups only this one can win), and only on those in which it is apart from
    the excused (the last 8; better the more clients garble).

    Args:
        group_of: ``intp[n]``, the group of each member of the round.
        bad: ``bool[g]``, of each group.
        excused: ``bool[s, n]``, s alternatives: who may have garbled for any reason.
        judged: ``intp[m]``, which members; None: all of them.
    """
    inside = group_of[:, None] == np.arange(len(bad))  # bool[n, g]
    touched = excused.astype(np.float32) @ inside.astype(np.float32) > 0  # bool[s, g]: holds an excused member
    counting = bad & ~touched
    places = inside.sum(axis=0)  # int[g]
    bad_places = counting @ places  # int[s]
    wanted = np.arange(len(group_of)) if judged is None else judged
    hit = counting[:, group_of[wanted]]  # bool[s, m]
    apart = ~touched[:, group_of[wanted]]

    def bet(total: npt.NDArray[np.intp], taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        odds = np.divide(total - bad_places, bad_places, out=np.zeros(len(total)), where=bad_places > 0)
        won = np.log1p(odds[:, None] * STAKES)  # float64[s, 8]
        taken = taken & (odds > 0)[:, None]  # without odds the stake comes back
        return np.where(taken[..., None], np.where(hit[..., None], won[:, None, :], LOST), 0.0)

    always = bet((~excused).sum(axis=1), ~excused[:, wanted])
    when_apart = bet(~touched @ places, apart)
    return np.concatenate([always, when_apart], axis=-1)


def _log_mean_exp(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the mean over the last axis, safe from overflow; that axis must hold a finite value."""
    top = logs.max(axis=-1)
    mean: npt.NDArray[np.float64] = np.log(np.exp(logs - top[..., None]).mean(axis=-1)) + top
    return mean


def _sets_of_at_most(size: int, n: int) -> npt.NDArray[np.bool_]:
    """All sets of at most ``size`` of ``n`` clients, as rows of ``bool[s, n]``; the empty one first."""
    chosen = [subset for count in range(min(size, n) + 1) for subset in combinations(range(n), count)]
    rows = np.zeros((len(chosen), n), dtype=np.bool_)
    for row, subset in zip(rows, chosen, strict=True):
        row[list(subset)] = True
    return rows


def _by_round(history: Iterable[GroupOutcome]) -> list[list[GroupOutcome]]:
    """The groups of each round, rounds ascending. Raises ValueError if they are no partition."""
    rounds: dict[int, list[GroupOutcome]] = {}
    for group in history:
        rounds.setdefault(group.round, []).append(group)
    for number, groups in rounds.items():
        if not all(group.members for group in groups):
            raise ValueError(f"round {number} is no partition; one of its groups has no members")
        members = [client for group in groups for client in group.members]
        if len(members) > len(set(members)):
            twice = sorted({client for client in members if members.count(client) > 1})
            raise ValueError(f"round {number} is no partition; more than once in it: {', '.join(twice)}")
    return [rounds[number] for number in sorted(rounds)]
