"""Why a wish cannot be, and what each of its numbers alone would have to be instead: found by search, not estimated."""

from __future__ import annotations

from dataclasses import replace

from testudo_common.errors import PlannerError
from testudo_common.robustness.planner import Wish, hides, is_possible
from testudo_common.robustness.shares import percent, share_of_count
from testudo_common.robustness.tails import groups_of
from testudo_common.robustness.withstand import is_hopeless, outvoted
from testudo_common.secagg.terms import LEAST_MIN_GROUP

LARGEST_COHORT = 1000


def refusal(wish: Wish) -> PlannerError:
    """The error for a wish that is not possible."""
    found = {
        "corruption": highest_corruption(wish),
        "min_group": highest_min_group(wish),
        "cohort": least_cohort(wish),
        "dropout": highest_dropout(wish),
    }
    nearest = {name: value for name, value in found.items() if value is not None}
    return PlannerError(_problem(wish), where="robustness", remedy=_remedy(wish, nearest), nearest=nearest)


def highest_corruption(wish: Wish) -> float | None:
    """The largest number of poisoned clients that is possible, as a share of few decimals; fewer are possible, too."""
    if not is_possible(replace(wish, corruption=0.0)):
        return None
    possible, impossible = 0, wish.poisoned
    while impossible - possible > 1:
        bad = (possible + impossible) // 2
        if is_possible(replace(wish, corruption=share_of_count(bad, wish.clients))):
            possible = bad
        else:
            impossible = bad
    return share_of_count(possible, wish.clients)


def highest_min_group(wish: Wish) -> int | None:
    """The largest smaller one that is possible: 3 or more if any, else 1, plain aggregation."""
    smaller = [*range(wish.min_group - 1, LEAST_MIN_GROUP - 1, -1), 1] if wish.min_group > 1 else []
    return next((least for least in smaller if is_possible(replace(wish, min_group=least))), None)


def highest_dropout(wish: Wish) -> float | None:
    """The largest smaller one that is possible, in whole percent."""
    smaller = [count / 100 for count in range(49, -1, -1) if count / 100 < wish.dropout] if wish.min_group > 1 else []
    return next((share for share in smaller if is_possible(replace(wish, dropout=share))), None)


def least_cohort(wish: Wish) -> int | None:
    """The smallest larger one that is possible, up to all clients, and to :data:`LARGEST_COHORT`.

    With the same number of groups a larger cohort only has larger ones, of which more are bad. So a cohort can be the
    first possible one only where its groups are all of ``group_size``, and these are the ones that are tried.
    """
    bad = wish.poisoned
    for cohort in range(wish.cohort + 1, min(wish.clients, LARGEST_COHORT) + 1):
        larger = replace(wish, cohort=cohort)
        for members in range(wish.min_group, cohort + 1 if wish.min_group > 1 else 2):
            if is_hopeless(wish.clients, bad, members, wish.max_failure):
                break  # and so are larger groups
            outvotes = cohort % members == 0 and outvoted(wish.clients, bad, cohort, members, wish.max_failure)
            if outvotes and hides(larger, members):
                return cohort
    return None


def _problem(wish: Wish) -> str:
    poisoned = f"{wish.poisoned} of {wish.clients} clients ({percent(wish.corruption)}) poisoned"
    if wish.min_group == 1:
        return (
            f"with {poisoned}, half or more of the {wish.cohort} updates of a round are bad with a probability over "
            f"{wish.max_failure:g}, and no rule outvotes them"
        )
    smallest = next((m for m in range(wish.min_group, wish.cohort + 1) if hides(wish, m)), None)
    if smallest is None:
        return (
            f"no groups of a cohort of {wish.cohort} keep {wish.min_group} clients each when {percent(wish.dropout)} "
            "of them drop out"
        )
    sizes = groups_of(wish.cohort, smallest)
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return (
        f"with {poisoned}, half or more of the {len(sizes)} groups of a round (of {span} clients: it takes {smallest} "
        f"to keep {wish.min_group} when {percent(wish.dropout)} drop out) hold one with a probability over "
        f"{wish.max_failure:g}, and no rule outvotes them"
    )


def _remedy(wish: Wish, nearest: dict[str, float]) -> str:
    ways = []
    if "corruption" in nearest:
        ways.append(f"lower corruption from {percent(wish.corruption)} to {percent(nearest['corruption'])}")
    if "min_group" in nearest:
        plain = " (the server then sees single updates)" if nearest["min_group"] == 1 else ""
        ways.append(f"lower min_group from {wish.min_group} to {nearest['min_group']}{plain}")
    if "cohort" in nearest:
        ways.append(f"raise the cohort from {wish.cohort} to {nearest['cohort']} clients")
    if "dropout" in nearest:
        ways.append(f"lower dropout from {percent(wish.dropout)} to {percent(nearest['dropout'])}")
    if not ways:
        return "No one of corruption, min_group, cohort and dropout is enough by itself: move several of them"
    sentence = ", or ".join(ways)
    return sentence[0].upper() + sentence[1:]
