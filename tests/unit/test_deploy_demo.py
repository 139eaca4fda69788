"""A rehearsal with a large model: its plan, and how the memory of its processes is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testudo_client.policy.contract import contract_of, values_of
from testudo_common.plan.load import load_plan
from testudo_simulations.deployment import memory
from testudo_simulations.deployment.command import large
from testudo_simulations.deployment.tables import shops_plan


@pytest.mark.parametrize("parameters", [1000, 100_000])
def test_a_large_model_has_at_least_so_many_parameters(tmp_path: Path, parameters: int) -> None:
    (tmp_path / "plan.toml").write_text(large(shops_plan(3), parameters))
    plan = load_plan(tmp_path / "plan.toml")
    assert parameters <= values_of(contract_of(plan.model)) < 1.2 * parameters
    assert not plan.private and plan.secure and plan.audited


def test_the_most_memory_that_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "NAMES", {"": "anything"})
    first = memory.highest([os.getpid()], {"another": 7})
    assert first["another"] == 7 and first["anything"] > 10_000_000
    assert memory.highest([2**22 + 1], first) == first, "a process that is gone"
    assert memory.highest([os.getpid()], {"anything": 10**15})["anything"] == 10**15, "the most so far"
