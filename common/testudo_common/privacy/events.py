"""What a client spends privacy on, as values. Knows no accountant, no torch, no storage.

Source: Abadi et al. 2016 (DP-SGD); the shape follows dp_accounting's frozen events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from testudo_common.errors import PrivacyError


@dataclass(frozen=True, slots=True, order=True)
class SampledGaussian:
    """``steps`` Gaussian mechanisms, each on a Poisson sample of one data set.

    Attributes:
        noise_multiplier: sigma / C: standard deviation of the noise over the L2 clipping norm; 0 is no privacy.
        sample_rate: q in (0, 1]: each example is in a sample with this probability, independently.
        steps: How many times; 0 or more. A step on an empty sample counts.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.noise_multiplier >= 0 and 0 < self.sample_rate <= 1 and self.steps >= 0):
            raise PrivacyError(
                f"no such event: noise multiplier {self.noise_multiplier}, "
                f"sample rate {self.sample_rate}, {self.steps} steps"
            )


Events = tuple[SampledGaussian, ...]


class Unit(StrEnum):
    """What one data set and its neighbour differ in: one example of a client, or a whole client."""

    EXAMPLE = "example"
    CLIENT = "client"


def compose(events: Iterable[SampledGaussian]) -> Events:
    """The same events with equal mechanisms merged, sorted: equal histories become equal values."""
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.noise_multiplier, event.sample_rate] += event.steps
    return tuple(SampledGaussian(*key, count) for key, count in sorted(steps.items()) if count > 0)


@dataclass(frozen=True, slots=True)
class Spending:
    """What something costs, in each unit's own account.

    Attributes:
        example: Against whoever sees all that the client sent.
        client: Against whoever sees sums over enough clients only.
    """

    example: Events = ()
    client: Events = ()

    def __add__(self, other: Spending) -> Spending:
        """Both together, composed."""
        return Spending(compose([*self.example, *other.example]), compose([*self.client, *other.client]))

    def times(self, count: int) -> Spending:
        """The same ``count`` times over."""
        return Spending(
            *(tuple(replace(e, steps=e.steps * count) for e in events) for events in (self.example, self.client))
        )

    def of(self, unit: Unit) -> Events:
        """The events of one unit's account."""
        return self.example if unit is Unit.EXAMPLE else self.client
