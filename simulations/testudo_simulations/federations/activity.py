"""Activity recognition from a phone's accelerometer, a person a client: 10-second windows, six activities.

Source: WISDM Lab, Activity Prediction v1.1, the 43 features of ``WISDM_ar_v1.1_transformed`` as a CSV with
the columns user, X0 ... RESULTANT, class. Kwapisz, Weiss, Moore 2010 (SensorKDD). Keep its readme.txt too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from testudo_client.data import examples_of_rows, model_shape
from testudo_client.table import read_table
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import ActivityData, Column, TableData
from testudo_simulations.federations.base import Federation
from testudo_simulations.federations.clients import assemble, encode_clients, group_rows
from testudo_simulations.federations.columns import labels_of, scaled_columns
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.split import split_each_class, split_unseen

AXES = ("X", "Y", "Z")
PEAKS = tuple(f"{axis}PEAK" for axis in AXES)  # milliseconds between peaks; empty where there is none
# UNIQUE_ID numbers the rows and XAVG is 0 in all of them: neither is an input
FEATURES = (
    *(f"{axis}{share}" for axis in AXES for share in range(10)),
    "YAVG",
    "ZAVG",
    *PEAKS,
    *(f"{axis}ABSOLDEV" for axis in AXES),
    *(f"{axis}STANDDEV" for axis in AXES),
    "RESULTANT",
)
MIN_WINDOWS = 2
SUPPORT_WINDOWS = 10


def load(plan: FederationPlan, data: ActivityData, path: Path) -> Federation:
    """Read the federation.

    Args:
        plan: A classification plan.
        data: Its data section.
        path: The CSV, ``.gz`` or not; rows of one person in time order.

    Returns:
        Inputs ``float32[n, 45]``: 42 features standardised over the people who train, and for each of the
        three peaks whether it was missing. An unseen person adapts on the first windows of each activity, ten
        (or the largest of ``evaluation.shots``) but never more than half, and is scored on all others.

    Raises:
        DataError: The file or too many of its people cannot be used.
        PlanError: The plan states another shape for the model.
    """
    table = read_table(path)
    groups, excluded = group_rows(table, "user", MIN_WINDOWS)
    unseen = split_unseen(groups, data.unseen_share)
    raw = tuple(Column(name=name, missing=name in PEAKS) for name in FEATURES)
    draft = TableData(client="user", target="class", columns=raw, labels=labels_of(table.cells("class"), "class"))
    usable, _ = encode_clients(groups, partial(examples_of_rows, draft, "classification"))
    training = [groups[person] for person in usable if person not in unseen]
    section = draft.model_copy(update={"columns": scaled_columns(raw, training)})
    inputs, outputs = model_shape(section, "classification")
    most = max(SUPPORT_WINDOWS, *plan.evaluation.shots)
    return assemble(
        complete_plan(plan, inputs, outputs),
        groups,
        unseen,
        partial(examples_of_rows, section, "classification"),
        excluded,
        where=str(path),
        source="WISDM activity prediction v1.1 (Kwapisz, Weiss, Moore 2010; research use, cite the paper)",
        split=partial(split_each_class, most=most),
    )
