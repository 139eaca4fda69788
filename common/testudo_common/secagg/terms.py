"""What both sides of a round must agree on before they begin, and the contexts that bind everything to it.

``round_context`` names version, federation, roster, plan, round, attempt and model; ``group_context`` also the
members of a group and their keys. Both enter every derived key, sealed share and signature after them, so two clients
that were handed different models, plans or member lists derive different masks: their sum opens to noise instead of
leaking (Pasquini et al. 2022).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.codec import Digest
from testudo_common.secagg.graph import graph_of, share_of
from testudo_common.secagg.groups import largest_group
from testudo_common.secagg.messages import ClientId, DirectoryEntry
from testudo_common.secagg.noise import SumNoise
from testudo_common.secagg.primitives import digest, number
from testudo_common.secagg.quantize import Layout

LEAST_MIN_GROUP = 3
_ROUNDING = 1e-9  # 0.1 * 30 is a little more than 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """The numbers of secure aggregation that a plan fixes.

    Attributes:
        group_size: Members of a group where the cohort has so many; groups grow to less than twice it.
        min_cohort: Fewest clients that may be grouped: stops a server that asks the victim and its own friends only.
        min_group: Fewest survivors whose sum is opened; 3 or more, since a sum of two tells each the other's.
        corruption: Share of a group's members that may be on the server's side, in [0, 1).
        dropout: Share of a group's members that may drop out, in [0, 1).
        max_left_out: Largest share of the cohort that may be missing after nonces were revealed, in [0, 1). Whom to
            leave out is the server's choice, made when it can compute the groups: 0 leaves it none.
        layout: What a client's vector holds.
        noise: What an opened sum must carry at the least, from its honest survivors alone; None: nothing.
    """

    group_size: int
    min_cohort: int
    min_group: int
    corruption: float
    dropout: float
    max_left_out: float
    layout: Layout
    noise: SumNoise | None = None

    def least_survivors(self, members: int) -> int:
        """Fewest survivors of a group of ``members`` whose sum is opened: with fewer, noise would be missing on it."""
        if self.noise is None:
            return self.min_group
        return max(self.min_group, members - math.floor(self.dropout * members + _ROUNDING))

    def honest_survivors(self, members: int) -> int:
        """Of these, how many are not on the server's side and so have surely added their noise; 0 or less: nobody.

        One member is taken to be corrupt in any case: whoever looks at the sum knows the noise that it added itself.
        """
        return self.least_survivors(members) - max(1, share_of(members, self.corruption))

    def noise_share(self, members: int) -> SumNoise | None:
        """Deviations of what each of ``members`` adds, so that the honest survivors' noise is the sum's; None for none.

        Raises:
            ProtocolError: Nobody may be left whose noise is sure.
        """
        if self.noise is None:
            return None
        honest = self.honest_survivors(members)
        if honest < 1:
            raise ProtocolError(
                Breach.TOO_FEW,
                f"of a group of {members}, nobody's noise is sure to be in the sum",
                remedy="Raise group_size or min_group, or lower corruption or dropout, of secure_aggregation",
            )
        return self.noise.times(1 / math.sqrt(honest))

    def check_noise(self, cohort_size: int) -> None:
        """Check that groups of every size that a cohort can be cut into can carry the noise.

        Raises:
            ProtocolError: In one of them nobody's noise would be sure, a share of it cannot be drawn, or the sum could
                wrap.
        """
        _check_noise(self, cohort_size)

    def check(self, cohort_size: int) -> None:
        """Check the numbers against each other and against a cohort of at most ``cohort_size`` clients.

        Raises:
            ProtocolError: A sum could wrap, a group could be too small to hide anybody, or no threshold withstands both
                corruption and dropouts.
        """
        if not LEAST_MIN_GROUP <= self.min_group <= self.group_size:
            raise ProtocolError(
                Breach.TOO_FEW,
                f"groups of {self.group_size} cannot keep {self.min_group} survivors"
                if self.min_group > self.group_size
                else f"a sum of {self.min_group} does not hide its members",
                remedy=f"min_group must be {LEAST_MIN_GROUP} to group_size",
            )
        if not self.min_group <= self.min_cohort <= cohort_size:
            raise ProtocolError(
                Breach.TOO_FEW,
                f"a cohort of {cohort_size} cannot keep to {self.min_cohort} clients at the least",
                remedy="min_cohort must be min_group to the cohort's size",
            )
        for members in {min(self.group_size, cohort_size), largest_group(cohort_size, self.group_size)}:
            graph_of(members, self.corruption, self.dropout)
        self.layout.check_budget(largest_group(cohort_size, self.group_size))
        if self.noise is not None:
            self.check_noise(cohort_size)


@lru_cache(maxsize=64)
def _check_noise(parameters: Parameters, cohort_size: int) -> None:
    """Once for all clients of a process: there can be thousands of sizes."""
    least = min(parameters.min_cohort, parameters.group_size)
    for members in range(least, largest_group(cohort_size, parameters.group_size) + 1):
        share = parameters.noise_share(members)
        if share is not None:
            share.check_share()
            parameters.layout.check_budget(members, share.times(math.sqrt(members)))


@dataclass(frozen=True, slots=True)
class Terms:
    """One attempt at one round, as one side sees it. Sides that see it differently end up with different contexts.

    Attributes:
        federation: Its name.
        roster_digest: Of the roster that this side has pinned, 32 bytes.
        roster: Client id -> Ed25519 verification key, 32 bytes.
        plan_digest: 32 bytes.
        round_number: 1 and up.
        attempt: 0 and up.
        model_digest: 32 bytes.
        parameters: The plan's.
        clip: S, where it is of this round and not of the plan.
        round_context: 32 bytes that name all of this.
    """

    federation: str
    roster_digest: bytes
    roster: Mapping[str, bytes] = field(repr=False)
    plan_digest: bytes
    round_number: int
    attempt: int
    model_digest: bytes
    parameters: Parameters
    clip: float | None = None
    round_context: bytes = field(init=False)

    def __post_init__(self) -> None:
        named = digest(
            "round context",
            self.federation.encode(),
            self.roster_digest,
            self.plan_digest,
            number(self.round_number),
            number(self.attempt),
            self.model_digest,
            *(() if self.clip is None else (struct.pack(">d", self.clip),)),
        )
        object.__setattr__(self, "round_context", named)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group, with what it advertised."""

    client_id: ClientId
    channel_key: Digest
    mask_key: Digest
    seed_digest: Digest


def members_of(entries: Mapping[str, DirectoryEntry], group: tuple[str, ...]) -> tuple[Member, ...]:
    """The members of a group in the order of their positions."""
    found = (entries[client].advertisement for client in group)
    return tuple(
        Member(client, entry.channel_key, entry.mask_key, entry.seed_digest)
        for client, entry in zip(group, found, strict=True)
    )


def group_context(round_context: bytes, group: int, members: tuple[Member, ...]) -> bytes:
    """32 bytes that name a group: its round, its number from 0, its members in order, and their keys."""
    parts = [
        part
        for member in members
        for part in (member.client_id.encode(), member.channel_key, member.mask_key, member.seed_digest)
    ]
    return digest("group context", round_context, number(group), *parts)
