"""The attacks of a matrix by name: on what poisoned clients train on, on what they send, or on the sums themselves."""

from __future__ import annotations

from collections.abc import Iterable

from testudo_common.errors import UsageError
from testudo_simulations.attacks.adversary import Poison
from testudo_simulations.attacks.data import with_backdoor, with_label_noise
from testudo_simulations.attacks.registry import UPDATE_ATTACKS
from testudo_simulations.attacks.simple import scaling

NO_ATTACK = "none"
BACKDOOR_SCALE = 2.5
BACKDOORS = frozenset({"backdoor", "backdoor_scaled"})
IN_GROUPS_ONLY = frozenset({"garble"})

_SHOWS = {
    "sign_flip": "minus its own update",
    "sign_flip_x10": "minus ten times its own update",
    "scaling": "its own update, ten times as long",
    "gaussian": "noise as long as an honest update",
    "non_finite": "NaN and infinity",
    "alie": "a little beside the honest mean, inside the honest spread",
    "ipm": "a little of the honest mean, backwards",
    "min_max": "as far off as the two most distant honest updates are apart",
    "min_sum": "as far off as summed distances allow",
    "mimic": "all send one honest client's update",
    "free_rider": "nothing but a whisper of noise",
    "adaptive_alie": "the same, each with noise of its own, so that no two are alike",
    "adaptive": "of many candidates the one that moves this very defence most",
    "adaptive_bias": "of many candidates the one that pushes this very defence back most",
}

SUITE: dict[str, Poison] = {
    **{name: Poison(name, update=make(), shows=_SHOWS.get(name, "")) for name, make in UPDATE_ATTACKS.items()},
    "label_noise": Poison("label_noise", task=with_label_noise, shows="trains on labels drawn at random"),
    "backdoor": Poison("backdoor", task=with_backdoor, shows="trains on examples with a trigger"),
    "backdoor_scaled": Poison(
        "backdoor_scaled", task=with_backdoor, update=scaling(BACKDOOR_SCALE), shows="the same, 2.5 times as long"
    ),
    "garble": Poison("garble", garble=True, shows="random numbers in the secure sum"),
}

DEFAULT_ATTACKS = (
    "sign_flip",
    "alie",
    "min_max",
    "ipm",
    "mimic",
    "label_noise",
    "backdoor",
    "backdoor_scaled",
    "adaptive",
    "adaptive_bias",
)
DEFAULT_DEFENCES = (
    "mean",
    "trimmed_mean",
    "multi_krum",
    "geometric_median",
    "nnm+trimmed_mean",
    "caf",
    "recommended",
    "mean+unshared_head",
    "mean+tasks=4",
    "recommended+unshared_head",
)


def find_attacks(names: Iterable[str]) -> list[Poison]:
    """Attacks by their names.

    Raises:
        UsageError: There is none of that name.
    """
    found = []
    for name in names:
        if name not in SUITE:
            raise UsageError(f"there is no attack {name!r}", remedy=f"name some of {', '.join(SUITE)}")
        found.append(SUITE[name])
    return found
