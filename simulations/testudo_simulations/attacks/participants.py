"""Poisoned clients: participants that answer the server's messages as an adversary wants. For simulations only.

They speak the protocol to the letter; a client that breaks it is refused by the protocol itself, and those attacks are
tests of it. What they may choose is what they train on, and the numbers that they put in.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.participant import Participant
from testudo_common.learning.tasks import Examples
from testudo_common.secagg.masking import Words
from testudo_common.secagg.quantize import Layout
from testudo_common.secagg.terms import Terms
from testudo_common.vectors import Vector
from testudo_common.wire import RefusalReason, TrainRequest
from testudo_simulations.attacks.adversary import Adversary
from testudo_simulations.mask_free import MaskFreeParticipant


class PoisonedParticipant(Participant):
    """A client that an adversary answers for.

    Args:
        adversary: Shared by all poisoned clients of a run.
        given: As for :class:`Participant`.
    """

    def __init__(self, adversary: Adversary, *given: Any, **more: Any) -> None:
        self._adversary = adversary
        self._crafted: Vector | None = None
        super().__init__(*given, **more)

    def own_update(self, request: TrainRequest) -> Vector | RefusalReason:
        """What it trained: on its own data, or on what the adversary made of them."""
        return super()._update_for(request)

    def _update_for(self, request: TrainRequest) -> Vector | RefusalReason:
        own = super()._update_for(request)
        if isinstance(own, RefusalReason):
            return own
        self._crafted = self._adversary.update_of(self.client_id, request)
        return own if self.plan.secure or self._crafted is None else self._crafted

    def _draw_task(self, seeded: np.random.Generator) -> Examples:
        return self._adversary.task_of(super()._draw_task(seeded), seeded)

    def _encoded(self, terms: Terms, members: int, counts: npt.NDArray[np.int64]) -> tuple[Vector, Words]:
        own, words = super()._encoded(terms, members, counts)
        layout = terms.parameters.layout
        if self._adversary.poison.garble:
            words[: layout.values] = np.frombuffer(secrets.token_bytes(4 * layout.values), dtype=np.uint32)
        elif self._crafted is not None:
            words[: layout.values] = amplified(layout, self._crafted, self._adversary.amplification)
        return own, words


class PoisonedMaskFreeParticipant(PoisonedParticipant, MaskFreeParticipant):
    """The same, where vectors travel without masks."""


def amplified(layout: Layout, update: Vector, times: int) -> Words:
    """``update`` so often in one vector, past what an honest client's encoding lets through: ``uint32[values]``.

    Nobody sees a single vector in a secure sum, so nothing bounds it but what the group's mean is checked for.
    """
    bound = times * layout.largest
    fixed = np.nan_to_num(update.astype(np.float64) * layout.scale * times, nan=bound, posinf=bound, neginf=-bound)
    return np.clip(np.rint(fixed), -bound, bound).astype(np.int64).astype(np.uint32)
