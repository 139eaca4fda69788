"""Whose rows the benchmark of drift is measured on, and the shifts that it looks for; drift.py measures.

Clients that never trained, and a made-up population. Batches are drawn from a client's rows with replacement: then
nothing drifts, at any size of batch, which real weeks and windows in their order would not promise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_client.personal.own_model import Answerer, OwnModel
from testudo_client.watching.sources import answers
from testudo_common.learning.columns import InputColumn, columns_of_table
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.shifts import SHIFTS
from testudo_common.learning.tasks import Examples
from testudo_common.plan.load import parse_plan
from testudo_common.plan.sections import Column
from testudo_server.store import RunStore
from testudo_simulations.federations import UnseenClient, load_federation
from testudo_simulations.federations.activity import FEATURES, PEAKS
from testudo_simulations.federations.retail import DISPLAY_SCALE, LOG_PRICE_CENTER, LOG_PRICE_SCALE
from testudo_simulations.inline_backend import computing_on, federate_in_process
from testudo_simulations.scenarios import find_plan

Outputs = npt.NDArray[np.float32]
ROUNDS = 40
MADE_UP_ROWS = 20_000

Shifted = Callable[[Examples, np.random.Generator], Examples]


@dataclass(frozen=True, slots=True)
class Population:
    """Clients, and a model that was trained on none of them.

    Attributes:
        name: Of the federation.
        clients: Their rows.
        columns: Which inputs are whose.
        labels: Classes; none for regression.
        answer: ``float32[n, C or 1]`` for inputs.
        shifts: Name -> what happens.
    """

    name: str
    clients: Sequence[Examples]
    columns: tuple[InputColumn, ...]
    labels: tuple[str, ...]
    answer: Callable[[npt.NDArray[np.float32]], Outputs] = field(repr=False)
    shifts: Mapping[str, Shifted] = field(repr=False)


def populations(data: Mapping[str, Path]) -> list[Population]:
    """The made-up one, and those whose file is given: ``activity`` and ``retail``."""
    found = [_made_up()]
    if "activity" in data:
        swapped = {"two axes of the sensor swapped": _axes_swapped}
        found.append(_real("activity", data["activity"], _activity_columns(), swapped))
    if "retail" in data:
        price = InputColumn("price", 1, transform="log", center=LOG_PRICE_CENTER, scale=LOG_PRICE_SCALE)
        dearer = partial(_shifted, "scale", (price,), 1.2)
        columns = (InputColumn("display", 0, scale=DISPLAY_SCALE), price)
        found.append(_real("retail", data["retail"], columns, {"prices up by 20 %": dearer}))
    return found


def _activity_columns() -> tuple[InputColumn, ...]:
    return columns_of_table([Column(name=name, missing=name in PEAKS) for name in FEATURES])


def _customary(columns: tuple[InputColumn, ...], *, classes: bool) -> dict[str, Shifted]:
    """Shifts of every population."""
    found: dict[str, Shifted] = {
        "one column's spread x 1.5": partial(_shifted, "spread", columns, 1.5),
        "one column's mean + 0.5 sd": partial(_shifted, "mean_shift", columns, 0.5),
        "one column's mean + 1 sd": partial(_shifted, "mean_shift", columns, 1.0),
        "30 % of one column missing": partial(_shifted, "missing", columns, 0.3),
        "noise of 0.5 sd on all numbers": partial(_shifted, "noise", columns, 0.5),
        "one class (or the upper half) x 4": partial(_shifted, "labels", columns, 4.0),
    }
    if classes:
        found["30 % of the outcomes at random"] = _outcomes_changed
    return found


def _shifted(
    name: str, columns: Sequence[InputColumn], severity: float, examples: Examples, rng: np.random.Generator
) -> Examples:
    return SHIFTS[name](examples, columns, rng, severity)


def _axes_swapped(examples: Examples, rng: np.random.Generator) -> Examples:
    """All features of X in the place of those of Y, and the other way round."""
    columns = {column.name: column for column in _activity_columns()}
    for name, column in columns.items():
        if name.startswith("X") and (other := columns.get(f"Y{name[1:]}")):
            examples = SHIFTS["swap"](examples, (column, other), rng, 1.0)
    return examples


def _outcomes_changed(examples: Examples, rng: np.random.Generator) -> Examples:
    """What inputs mean changes, and they do not."""
    classes = examples.targets.astype(np.int64)
    return Examples(examples.inputs, np.where(rng.random(len(classes)) < 0.3, rng.permutation(classes), classes))


def _made_up() -> Population:
    """Eight columns, of which one is often empty and one a category; the model is the truth."""
    plain = [Column(name=f"number {place}") for place in range(6)]
    of_kinds = Column(name="kind", kind="category", categories=("a", "b", "c"))
    columns = columns_of_table([*plain, Column(name="lab", missing=True), of_kinds])
    rng = np.random.default_rng(0)
    inputs = np.zeros((MADE_UP_ROWS, columns[-1].stop), dtype=np.float32)
    inputs[:, :3] = rng.normal(size=(MADE_UP_ROWS, 3))
    inputs[:, 3:6] = rng.exponential(size=(MADE_UP_ROWS, 3))
    empty = rng.random(MADE_UP_ROWS) < 0.2
    inputs[:, 6], inputs[:, 7] = np.where(empty, 0.0, rng.normal(size=MADE_UP_ROWS)), empty
    inputs[np.arange(MADE_UP_ROWS), 8 + rng.choice(3, MADE_UP_ROWS, p=[0.6, 0.3, 0.1])] = 1.0

    def answer(rows: npt.NDArray[np.float32]) -> Outputs:
        yes = 1.0 / (1.0 + np.exp(-(rows[:, :3].sum(axis=1) + rows[:, 3] - 1.0)))
        return np.stack([1.0 - yes, yes], axis=1).astype(np.float32)

    targets = (rng.random(MADE_UP_ROWS) < answer(inputs)[:, 1]).astype(np.int64)
    return Population(
        "made up", [Examples(inputs, targets)], columns, ("no", "yes"), answer, _customary(columns, classes=True)
    )


def _real(name: str, path: Path, columns: tuple[InputColumn, ...], more: Mapping[str, Shifted]) -> Population:
    """The federation's unseen clients, and the meta-model of its others after forty rounds, as it is."""
    tables, source = find_plan(name)
    settings = [f"rounds.count={ROUNDS}", "audit.mode=off", "secure_aggregation.mode=plain"]
    federation = load_federation(parse_plan(tables, source=source, settings=settings), path)
    plan = federation.plan
    with tempfile.TemporaryDirectory(prefix="testudo-") as folder:
        store = RunStore(Path(folder), durable=False)
        model = federate_in_process(federation, store, None, computing=computing_on("cpu", 1)).state.model
    assert plan.model.inputs is not None
    centre = LocalCentre(np.zeros(plan.model.inputs, dtype=np.float32), 0.0)
    answerer = Answerer(OwnModel(plan, model, centre, 1.0, Conformal.of(np.empty(0))))
    classes = plan.task.kind == "classification"
    labels = tuple(map(str, range(plan.model.outputs or 0))) if classes else ()
    joined = [_joined(client) for client in federation.unseen.values()]
    clients = [LocalCentre.of(each, plan.task.local_centring).subtract(each) for each in joined]
    shifts = {**_customary(columns, classes=classes), **more}
    return Population(name, clients, columns, labels, partial(answers, answerer), shifts)


def _joined(client: UnseenClient) -> Examples:
    if client.query is None:
        return client.support
    return Examples(
        np.concatenate([client.support.inputs, client.query.inputs]),
        np.concatenate([client.support.targets, client.query.targets]),
    )
