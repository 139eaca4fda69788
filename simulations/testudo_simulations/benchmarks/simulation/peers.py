"""The peers of the benchmark, each with what it needs to be there; imported by the process that the others are forked from."""

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
