"""Who is measured at what. Imported by the process that the others are forked from."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from testudo_simulations.benchmarks.simulation.children import Peer
from testudo_simulations.benchmarks.simulation.federated import (
    digits_in_process,
    digits_on_ray,
    mask_free_rounds,
    ray_rounds,
    whole_rounds,
)
from testudo_simulations.benchmarks.simulation.loops import engine_alone, opacus_loop, plain_loop
from testudo_simulations.benchmarks.simulation.pfl_peer import pfl_rounds
from testudo_simulations.benchmarks.simulation.workload import Model, Work


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is measured.

    Attributes:
        label: As people see it.
        peer: Does it.
        model: See :class:`Work`.
        private: The same.
        secure: The same.
        package: What has to be installed.
        extra: The extra that brings it.
        sizes: The only numbers of clients that it is run with; none: all that are asked for.
    """

    label: str
    peer: Peer
    model: Model = "mlp"
    private: bool = False
    secure: bool = False
    package: str = ""
    extra: str = ""
    sizes: tuple[int, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is Testudo."""
        return self.peer in (whole_rounds, mask_free_rounds, engine_alone, digits_in_process)

    def work(self, clients: int) -> Work:
        """With so many clients."""
        return Work(clients, self.model, private=self.private, secure=self.secure)

    def hindrance(self, clients: int) -> str:
        """Why it is not run with so many clients here; empty if it is."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"not installed: pip install 'testudo-fl[{self.extra}]'"
        if self.sizes and clients not in self.sizes:
            return f"not run: at {' and '.join(map(str, self.sizes))} clients only"
        return ""


def _engine(model: Model, *, private: bool) -> Contender:
    return Contender("Testudo's engine", engine_alone, model, private)


def _opacus(model: Model) -> Contender:
    return Contender("Opacus loop", opacus_loop, model, private=True)


_PLAIN = Contender("PyTorch loop", plain_loop)
_PFL = Contender("pfl-research", pfl_rounds, package="pfl", extra="bench")
_RAY = Contender("Flower on Ray", ray_rounds, package="ray", extra="ray", sizes=(10, 100))

TRAINING = {
    "MLP": (_engine("mlp", private=False), _PLAIN, _PFL),
    "MLP, DP-SGD": (_engine("mlp", private=True), _opacus("mlp")),
    "conv net, DP-SGD": (_engine("conv net", private=True), _opacus("conv net")),
}
"""What is trained -> ours, and whom it is held against."""

ROUNDS = {
    "whole rounds": (Contender("Testudo", whole_rounds), _PLAIN, _PFL, _RAY),
    "whole rounds, DP-SGD": (Contender("Testudo, DP-SGD", whole_rounds, private=True), _opacus("mlp")),
}
"""The same, for rounds with all that belongs to them."""

SECURE = (
    Contender("with masks", whole_rounds, "wide mlp", secure=True),
    Contender("mask-free", mask_free_rounds, "wide mlp", secure=True),
)

DIGITS = (
    Contender("Testudo", digits_in_process),
    Contender("Flower on Ray", digits_on_ray, package="ray", extra="ray"),
)
