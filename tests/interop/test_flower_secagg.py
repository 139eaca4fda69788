"""What the benchmark times as Flower's SecAgg+ is a whole round: it yields the sum of the survivors' inputs."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from testudo_common.errors import UsageError
from testudo_simulations.benchmarks.flower_secagg import (
    CLIPPING_RANGE,
    MAX_WEIGHT,
    MODULUS_RANGE,
    QUANTIZATION_RANGE,
    Arrays,
    FlowerClient,
    dequantised_mean,
    flower_available,
    measure_flower,
    remove_pairwise_masks,
    remove_private_mask,
    sum_masked,
)

needs_flower = pytest.mark.skipif(not flower_available(), reason="the installed flwr has no SecAgg+")
STEPS_PER_UNIT = QUANTIZATION_RANGE // round(2 * CLIPPING_RANGE)


def unmasked_sum(inputs: np.ndarray, *, threshold: int, dropped: int, unmasked_dropped: int | None = None) -> Arrays:
    """A round of all clients; the last ``dropped`` send no masked vector, the masks of so many of them are removed."""
    from flwr.common import ndarrays_to_parameters

    members = len(inputs)
    clients = {nid: FlowerClient(nid, members, threshold) for nid in range(1, members + 1)}
    public_keys = {nid: client.set_up() for nid, client in clients.items()}
    sent = {nid: client.share_keys(public_keys) for nid, client in clients.items()}
    survivors, gone = list(clients)[: members - dropped], list(clients)[members - dropped :]
    masked = [
        clients[nid].mask(
            {src: sent[src][nid] for src in clients if src != nid}, ndarrays_to_parameters([inputs[nid - 1]])
        )
        for nid in survivors
    ]
    answers = [clients[nid].unmask(survivors, gone) for nid in survivors]
    vector = sum_masked(masked)
    for nid in survivors:
        vector = remove_private_mask(vector, [answer[nid] for answer in answers])
    for nid in gone[:unmasked_dropped]:
        vector = remove_pairwise_masks(vector, [answer[nid] for answer in answers], nid, public_keys)
    return vector


def inputs_on_the_grid(members: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """float32[n, d] that Flower's random rounding leaves alone, and their quantised values int64[n, d]."""
    quantised = np.random.default_rng(0).integers(QUANTIZATION_RANGE, size=(members, size))
    return (quantised / STEPS_PER_UNIT - CLIPPING_RANGE).astype(np.float32), quantised


@needs_flower
@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_unmasked_is_the_sum_of_the_quantised(dropped: int) -> None:
    inputs, quantised = inputs_on_the_grid(members=4, size=100)
    vector = unmasked_sum(inputs, threshold=2, dropped=dropped)
    survivors = 4 - dropped
    weight, found = (array % MODULUS_RANGE for array in vector)
    np.testing.assert_array_equal(weight, [survivors * QUANTIZATION_RANGE])
    np.testing.assert_array_equal(found, quantised[:survivors].sum(axis=0))
    np.testing.assert_allclose(dequantised_mean(vector, survivors), inputs[:survivors].mean(axis=0), atol=1e-6)


@needs_flower
def test_masks_of_the_dropped_matter() -> None:
    """Else the test above could pass without any mask."""
    inputs, quantised = inputs_on_the_grid(members=4, size=100)
    vector = unmasked_sum(inputs, threshold=2, dropped=1, unmasked_dropped=0)
    assert np.mean(vector[1] % MODULUS_RANGE == quantised[:3].sum(axis=0)) < 0.1


@needs_flower
def test_settings_are_the_workflows_defaults() -> None:
    from flwr.server.workflow import SecAggPlusWorkflow

    workflow = SecAggPlusWorkflow(4, 2)
    assert (workflow.clipping_range, workflow.max_weight) == (CLIPPING_RANGE, MAX_WEIGHT)
    assert (workflow.quantization_range, workflow.modulus_range) == (QUANTIZATION_RANGE, MODULUS_RANGE)


@needs_flower
def test_costs_are_measured() -> None:
    cost = measure_flower(4, 100, 2, 1)
    assert cost is not None
    assert 0 < cost.client_seconds < math.inf
    assert 0 < cost.server_seconds < math.inf
    assert cost.extrapolated == ""


@needs_flower
def test_extrapolation_is_said() -> None:
    cost = measure_flower(6, 10, 2, 2)
    assert cost is not None
    assert "3 of 4 surviving" in cost.extrapolated
    assert "1 of 2 dropped" in cost.extrapolated


def test_flower_without_secagg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.client.mod.secure_aggregation.secaggplus_mod", None)
    assert not flower_available()
    assert measure_flower(4, 100, 2, 1) is None


@pytest.mark.parametrize(
    ("members", "size", "threshold", "dropped"),
    [(2, 1, 2, 0), (4, 0, 2, 0), (4, 1, 1, 0), (4, 1, 4, 1), (4, 1, 2, -1)],
    ids=["too few members", "no coordinate", "threshold of one", "too few survivors", "less than nobody dropped"],
)
def test_no_such_round(members: int, size: int, threshold: int, dropped: int) -> None:
    with pytest.raises(UsageError, match="no round of"):
        measure_flower(members, size, threshold, dropped)
