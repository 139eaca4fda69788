"""Epsilon of a history of events, and the noise multiplier that a target epsilon needs. PRV's maths is Opacus's.

The neighbouring relation is add or remove one example. No amplification is claimed from drawing the cohort or from
aggregation. GDP is not offered: its approximation under-reports (5.26 where PRV says 5.98). RDP needs no torch; PRV
imports Opacus, which does.
Sources: PRV: Gopi, Lee, Wutschitz 2021; RDP: Mironov 2017, Mironov, Talwar, Zhang 2019.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from testudo_common.errors import PrivacyError
from testudo_common.privacy.events import Events, SampledGaussian, compose

AccountantName = Literal["prv", "rdp"]

_WHOLE_ORDERS: Final = (*range(2, 64), 80, 128, 256, 512, 1024)
_ORDERS: Final = (*(1 + tenth / 10 for tenth in range(1, 100)), *_WHOLE_ORDERS[10:])
_OPACUS_ORDERS: Final = len(_ORDERS) - 5  # as many of them are Opacus's own
_PRV_RELATIVE_ERROR = 0.004
_LARGEST_NOISE_MULTIPLIER = 1000.0
_RELATIVE_STEP = 1.001


def epsilon_of(events: Iterable[SampledGaussian], delta: float, accountant: AccountantName) -> float:
    """Epsilon at ``delta`` of all ``events`` on one data set together.

    Args:
        events: In any order; equal mechanisms are merged.
        delta: In (0, 1).
        accountant: ``prv`` (tight to 0.4 %, an upper bound) or ``rdp`` (looser, faster).

    Returns:
        0.0 for no events; ``inf`` if a step had no noise.

    Raises:
        PrivacyError: ``delta`` is too small for PRV's arithmetic.
    """
    return _epsilon(compose(events), delta, accountant)


@lru_cache(maxsize=4096)
def _epsilon(events: Events, delta: float, accountant: AccountantName) -> float:
    if not events:
        return 0.0
    if any(event.noise_multiplier == 0 for event in events):
        return math.inf
    by_rdp = _epsilon_rdp(events, delta)
    return by_rdp if accountant == "rdp" else _epsilon_prv(events, delta, by_rdp)


def _epsilon_rdp(events: Events, delta: float, orders: tuple[float, ...] = _ORDERS) -> float:
    from testudo_common.privacy.renyi import smallest_epsilon  # imports scipy

    return max(0.0, smallest_epsilon(orders, _rdp(events, orders), delta))


def _rdp(events: Events, orders: tuple[float, ...] = _ORDERS) -> npt.NDArray[np.float64]:
    total = sum(event.steps * _rdp_of_one_step(event.sample_rate, event.noise_multiplier, orders) for event in events)
    return np.asarray(total, dtype=np.float64)


@lru_cache(maxsize=1024)
def _rdp_of_one_step(
    sample_rate: float, noise_multiplier: float, orders: tuple[float, ...] = _ORDERS
) -> npt.NDArray[np.float64]:
    from testudo_common.privacy.renyi import renyi_divergences

    rdp = renyi_divergences(sample_rate, noise_multiplier, orders)
    rdp.flags.writeable = False  # it is shared by every caller through the cache
    return rdp


def _epsilon_prv(events: Events, delta: float, scale: float) -> float:
    """What Opacus's ``PRVAccountant`` says: its steps, but for a domain that takes no second here.

    Args:
        events: One or more, with noise.
        delta: In (0, 1).
        scale: Epsilon, roughly.
    """
    from opacus.accountants.analysis import prv

    # An absolute error would swamp a small epsilon, and waste time on a large one.
    error = max(1e-4, _PRV_RELATIVE_ERROR * min(scale, 50.0))
    delta_error = delta / 1000
    steps = [event.steps for event in events]
    mesh = error / math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
    end = _end_of_losses(events, error, delta_error)
    domain = prv.Domain.create_aligned(-end, end, mesh)
    losses = [prv.PoissonSubsampledGaussianPRV(event.sample_rate, event.noise_multiplier) for event in events]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        within = [prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss in losses]
        composed = prv.compose_heterogeneous([prv.discretize(loss, domain) for loss in within], steps)
        try:
            _, _, upper = composed.compute_epsilon(delta, delta_error, error)
        except ValueError as failure:
            raise PrivacyError(
                f"the PRV accountant cannot compute epsilon at delta {delta:g}",
                where="privacy.delta",
                remedy='write privacy.accountant = "rdp", or raise delta',
            ) from failure
    # Below zero for a large delta, where 0 holds as well.
    return max(0.0, float(upper))


def _end_of_losses(events: Events, error: float, delta_error: float) -> float:
    """How far PRV follows the losses: Gopi et al. 2021, remark 5.6, as in Opacus's ``compute_safe_domain_size``."""
    from testudo_common.privacy.renyi import smallest_epsilon

    orders = _ORDERS[:_OPACUS_ORDERS]
    one_delta = delta_error / (8 * sum(event.steps for event in events))
    together = smallest_epsilon(orders, _rdp(events)[:_OPACUS_ORDERS], delta_error / 4)
    alone = [smallest_epsilon(orders, _rdp((replace(e, steps=1),))[:_OPACUS_ORDERS], one_delta) for e in events]
    return max(together, *alone, error) + 3


@lru_cache(maxsize=256)
def noise_multiplier_for(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: AccountantName, others: Events = ()
) -> float:
    """The smallest noise multiplier (to 0.1 %) with which ``steps`` steps, and ``others``, stay within ``epsilon``.

    Raises:
        PrivacyError: Not even the largest noise multiplier is enough.
    """

    def events(noise_multiplier: float) -> Events:
        return compose([SampledGaussian(noise_multiplier, sample_rate, steps), *others])

    def roughly(noise_multiplier: float) -> float:
        return _epsilon_rdp(events(noise_multiplier), delta, _WHOLE_ORDERS)

    def exactly(noise_multiplier: float) -> float:
        return _epsilon(events(noise_multiplier), delta, accountant)

    # RDP at whole orders alone is looser and takes milliseconds: an upper end from which the answer is not far.
    try:
        high = _search(epsilon, steps, roughly, low=0.05, high=1.0)
    except PrivacyError:
        if epsilon_of(others, delta, accountant) >= epsilon:
            raise
        high = _LARGEST_NOISE_MULTIPLIER  # others leave room that the rough bound does not see
    return _search(epsilon, steps, exactly, low=high / 1.1, high=high)


def _search(epsilon: float, steps: int, spent: Callable[[float], float], low: float, high: float) -> float:
    while spent(high) > epsilon:
        low, high = high, high * 2
        if high > _LARGEST_NOISE_MULTIPLIER:
            raise PrivacyError(
                f"no noise up to {_LARGEST_NOISE_MULTIPLIER:g} keeps {steps} steps within epsilon {epsilon:g}",
                where="privacy.epsilon",
                remedy="raise epsilon, or lower rounds, inner.steps or inner.sample_rate",
            )
    while spent(low) <= epsilon and low > 1e-2:
        low, high = low / 1.1, low
    # Epsilon against noise is close to a straight line in logarithms, and the root is found in a few steps.
    while high / low > _RELATIVE_STEP:
        middle = _between(low, high, math.log(spent(low) / epsilon), math.log(spent(high) / epsilon))
        if spent(middle) > epsilon:
            low = middle
        else:
            high = middle
    return high


def _between(low: float, high: float, above: float, below: float) -> float:
    """A noise multiplier between two ends, where the straight line through them meets the target, or just beside it.

    Args:
        low: Too little noise.
        high: Enough of it.
        above: Logarithm of epsilon at ``low`` over the target, above 0 or infinite.
        below: The same at ``high``, 0 or less.
    """
    share = above / (above - below) if math.isfinite(above) and above > below else 0.5
    # Half a step to the side of the end that is farther away, so that both ends close in on the root.
    half = math.log(_RELATIVE_STEP) / 2 / math.log(high / low)
    share = min(1 - half, max(half, share + (half if share < 0.5 else -half)))
    return low * math.exp(share * math.log(high / low))
