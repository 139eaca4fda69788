"""From the rows of one table to clients: grouped, encoded one by one, and left out by name when they fail.

One client's bad row must not end a run of a hundred, and must not pass in silence either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from testudo_client.table import Table, is_absent
from testudo_common.errors import DataError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_simulations.federations.base import Exclusion, Federation, UnseenClient
from testudo_simulations.federations.split import MIN_CLIENTS

NAMELESS = "(no name)"
_REASONS_SHOWN = 3


def group_rows(table: Table, column: str, min_rows: int) -> tuple[dict[str, Table], list[Exclusion]]:
    """The rows of every client, ids sorted, rows in file order; and who has too few, or no name.

    Raises:
        DataError: There is no such column, or fewer than three clients have enough rows.
    """
    places: dict[str, list[int]] = {}
    for place, client in enumerate(table.cells(column)):
        places.setdefault(NAMELESS if is_absent(client) else client, []).append(place)
    groups: dict[str, Table] = {}
    excluded: list[Exclusion] = []
    for client in sorted(places):
        rows = table.take(places[client])
        if client == NAMELESS:
            reason = f"column {column!r} is empty in {len(rows)} rows, the first on line {rows.lines[0]}"
            excluded.append(Exclusion(client, reason))
        elif len(rows) < min_rows:
            excluded.append(Exclusion(client, f"{len(rows)} rows, and {min_rows} are the least"))
        else:
            groups[client] = rows
    if len(groups) < MIN_CLIENTS:
        raise too_few(f"{len(groups)} clients have rows enough", excluded, table.source)
    return groups, excluded


def encode_clients(
    groups: Mapping[str, Table], encode: Callable[[Table], Examples]
) -> tuple[dict[str, Examples], list[Exclusion]]:
    """The examples of every client that ``encode`` accepts; the others as exclusions with its reason."""
    examples: dict[str, Examples] = {}
    excluded: list[Exclusion] = []
    for client, rows in groups.items():
        try:
            examples[client] = encode(rows)
        except DataError as error:
            excluded.append(Exclusion(client, error.problem))
    return examples, excluded


def in_order(examples: Examples) -> UnseenClient:
    """A client scored on whatever follows the first k of its examples."""
    return UnseenClient(examples)


def assemble(
    plan: FederationPlan,
    groups: Mapping[str, Table],
    unseen: Collection[str],
    encode: Callable[[Table], Examples],
    excluded: Sequence[Exclusion],
    *,
    source: str,
    where: str,
    split: Callable[[Examples], UnseenClient] = in_order,
) -> Federation:
    """A federation of the clients that can be used.

    Args:
        plan: Complete.
        groups: Client id -> its rows.
        unseen: Ids that never train; may name clients that are not in ``groups``.
        encode: Rows to examples; its DataError leaves that client out.
        excluded: Clients already left out.
        source: Of the data, one line.
        where: The data's path, for errors.
        split: What an unseen client adapts on and is scored on.

    Raises:
        DataError: Fewer than three clients are left, or none that trains, or none that is unseen.
    """
    examples, failed = encode_clients(groups, encode)
    out = [*excluded, *failed]
    training = {client: rows for client, rows in examples.items() if client not in unseen}
    evaluated: dict[str, UnseenClient] = {}
    for client, rows in examples.items():
        if client in unseen:
            candidate = split(rows)
            if reason := _unscorable(candidate, max(plan.evaluation.shots)):
                out.append(Exclusion(client, reason))
            else:
                evaluated[client] = candidate
    out.sort(key=_name_of)
    check_enough(len(training), len(evaluated), out, where)
    return Federation(plan, training, evaluated, tuple(out), source)


def _unscorable(client: UnseenClient, shots: int) -> str:
    if client.query is not None:
        return "" if len(client.query) else "no example is left to score it on"
    if len(client.support) > shots:
        return ""
    return f"{len(client.support)} rows, and the largest of evaluation.shots, {shots}, leaves none to score"


def _name_of(exclusion: Exclusion) -> str:
    return exclusion.client


def check_enough(training: int, unseen: int, excluded: Sequence[Exclusion], where: str) -> None:
    """Check that enough clients are left.

    Raises:
        DataError: With the first reasons why clients were left out.
    """
    if training + unseen < MIN_CLIENTS or not training or not unseen:
        raise too_few(f"{training} clients can train and {unseen} can be evaluated", excluded, where)


def too_few(left: str, excluded: Sequence[Exclusion], where: str) -> DataError:
    """The error that says how many clients are left, and the first reasons why others are not."""
    reasons = [f"client {one.client!r}: {one.reason}" for one in excluded[:_REASONS_SHOWN]]
    if len(excluded) > _REASONS_SHOWN:
        reasons.append(f"and {len(excluded) - _REASONS_SHOWN} more")
    named = f" (left out: {'; '.join(reasons)})" if reasons else ""
    return DataError(
        f"{left}, and a federation needs {MIN_CLIENTS}, some that train and some that never do{named}",
        where=where,
        remedy="Correct what is named here, or bring data of more clients" if reasons else "Bring data of more clients",
    )
