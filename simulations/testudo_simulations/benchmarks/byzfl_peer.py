"""ByzFL's aggregators and attacks, imported past its own ``__init__``: that needs torchvision, which may not be there.

Source: https://github.com/LPD-EPFL/byzfl, 0.0.11; installed without its dependencies (see Makefile).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from types import ModuleType


def byzfl_aggregators() -> ModuleType | None:
    """The module ``byzfl.aggregators``, pre-aggregators included; None where ByzFL is not installed."""
    return _imported("byzfl.aggregators")


def byzfl_attacks() -> ModuleType | None:
    """The module ``byzfl.attacks``; None where ByzFL is not installed."""
    return _imported("byzfl.attacks")


@lru_cache(maxsize=2)
def _imported(module: str) -> ModuleType | None:
    spec = importlib.util.find_spec("byzfl")
    if spec is None:
        return None
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "byzfl"}
    sys.modules["byzfl"] = importlib.util.module_from_spec(spec)  # its path, and none of its code
    try:
        return importlib.import_module(module)
    finally:  # nobody else shall find half a package
        for name in [name for name in sys.modules if name.split(".")[0] == "byzfl"]:
            del sys.modules[name]
        sys.modules.update(before)
