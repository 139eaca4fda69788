"""Whatever the shape of a cohort, the vectorised engine takes the steps of the one-by-one path."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_cases import Way, alone, case_examples, case_plan, job_of, start_of
from testudo_common.learning.inner_loop import InnerLoop
from testudo_simulations.engine import Engine

widths = st.integers(1, 9)


@st.composite
def models(draw: st.DrawFn) -> tuple[str, ...]:
    activation = f"model.activation={draw(st.sampled_from(['relu', 'tanh']))}"
    head = f"model.unshared_head={str(draw(st.booleans())).lower()}"
    if draw(st.booleans()):
        hidden = draw(st.lists(widths, min_size=1, max_size=3))
        return ("model.name=mlp", f"model.inputs=[{draw(widths)}]", f"model.hidden={hidden}", activation, head)
    depth, height, width = draw(st.integers(1, 3)), draw(st.integers(5, 9)), draw(st.integers(5, 9))
    channels, blocks = draw(st.sampled_from([2, 3, 4, 8, 16])), draw(st.integers(1, 2))
    sizes = (f"model.inputs=[{depth}, {height}, {width}]", f"model.channels={channels}", f"model.blocks={blocks}")
    return ("model.name=conv", *sizes, activation, head)


@st.composite
def ways(draw: st.DrawFn) -> Way:
    loop = InnerLoop(draw(st.integers(1, 3)), 0.2, draw(st.floats(0.05, 1.0)))
    return Way(draw(st.none() | st.floats(1e-3, 10.0)), loop)


@settings(max_examples=25, deadline=None)
@given(models(), st.lists(st.tuples(st.integers(1, 9), ways()), min_size=1, max_size=4), st.integers(2, 5))
def test_every_client_ends_where_it_would_by_itself(
    model: tuple[str, ...], cohort: list[tuple[int, Way]], outputs: int
) -> None:
    plan = case_plan(*model, outputs=outputs)
    examples = [case_examples(plan, count, seed) for seed, (count, _) in enumerate(cohort)]
    jobs = [job_of(own, way, seed) for seed, (own, (_, way)) in enumerate(zip(examples, cohort, strict=True))]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    for seed, (own, (_, way)) in enumerate(zip(examples, cohort, strict=True)):
        end, _ = alone(plan, own, way, seed)
        assert np.abs(trained.ends[seed].numpy() - end).max() < 1e-8
