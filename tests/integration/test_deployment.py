"""A server and three owners as processes of their own, with all on that a real deployment has."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import testudo_client.cli
import testudo_server.cli
from testudo_client.data import load_owner_examples
from testudo_client.home import OwnerHome
from testudo_client.ledger import Purpose, Reserved
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.plan.secure import parameters_for
from testudo_common.vectors import Vector
from testudo_server.store import RunStore
from testudo_simulations.deployment.command import free_port, shop_names
from testudo_simulations.deployment.commands import answered, said
from testudo_simulations.deployment.federation import LocalFederation
from testudo_simulations.deployment.provisioned import Provisioned, provision
from testudo_simulations.deployment.tables import write_tables
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import federate_in_process
from zygote import ForkedFederation, Zygote

pytestmark = [pytest.mark.slow, pytest.mark.network]

ROUNDS = 2
SHOPS = shop_names(3)
# Instead of a search for it that takes seconds at each owner.
_STATED_NOISE = {r"epsilon = 8\.0": 'noise_multiplier = 1.5\naccountant = "rdp"'}
_NO_NOISE = {
    r'(?s)unit = "example"\nnoise.*?"rdp"': 'unit = "none"',
    r"sample_rate = .*": "sample_rate = 1.0",
    r'name = "shops"': 'name = "no-noise"',
}


class Finished(NamedTuple):
    """A private run that is over."""

    provisioned: Provisioned
    folder: Path
    federation: LocalFederation


def plan_text(text: str, changes: dict[str, str]) -> str:
    for pattern, value in {r"(?m)^(count|max_participations) = \d+$": rf"\1 = {ROUNDS}", **changes}.items():
        text, found = re.subn(pattern, value, text)
        assert found, pattern
    return text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("deployed")
    plan = write_tables(folder / "data", SHOPS, rows=60)
    plan.write_text(plan_text(plan.read_text(), _STATED_NOISE))
    data = {shop: folder / "data" / f"{shop}.csv" for shop in SHOPS}
    provisioned = provision(folder, plan, data, port=free_port(), words=("--no-privacy",))
    with LocalFederation(provisioned, folder / "run", folder / "logs") as federation:
        federation.start()
        federation.finish(200)
        yield Finished(provisioned, folder, federation)


def charged(home: OwnerHome, plan: FederationPlan) -> list[int]:
    """Rounds of the plan that an owner's ledger was charged for."""
    contents = (entry.content for entry in home.ledger(home.policy()).entries())
    return [
        content.occasion.round
        for content in contents
        if isinstance(content, Reserved)
        and content.occasion.purpose is Purpose.TRAINING
        and content.occasion.plan_digest == plan.digest
    ]


def test_private_run_finishes_with_everybody_in_it(finished: Finished) -> None:
    plan, store = load_plan(finished.provisioned.plan), RunStore(finished.folder / "run")
    assert plan.private and plan.secure and plan.audited
    status = finished.federation.status()
    assert (status["state"], status["round"], status["counted"], status["error"]) == ("finished", ROUNDS, 3, "")
    assert [dict(record.excluded) for record in store.records()] == [{}] * ROUNDS
    for folder in finished.provisioned.owners.values():
        assert charged(OwnerHome(folder), plan) == list(range(1, ROUNDS + 1))


def test_anybody_can_check_its_log(finished: Finished, tmp_path: Path) -> None:
    keys, exported = finished.provisioned.federation, tmp_path / "run.tlog"
    said(testudo_server.cli.app, "audit", "export", finished.folder / "run", "--keys", keys, "--to", exported)
    found = answered(testudo_client.cli.app, "audit", "verify", exported, "--federation-key", keys / "federation.pub")
    assert found["holds"]
    ((charter, *_),) = [log["entries"] for log in answered(testudo_client.cli.app, "audit", "show", exported)]
    bundle = answered(testudo_client.cli.app, "bundle")["digest"]
    assert charter["bundle"] == bundle, "owners can look up which bundle was run"
    for folder in finished.provisioned.owners.values():
        said(testudo_client.cli.app, "audit", "verify", folder)


def test_no_secret_is_in_any_log(finished: Finished) -> None:
    private = [
        path
        for pattern in ("**/*.pem", "**/*.key")
        for path in finished.folder.glob(pattern)
        if "PRIVATE" in path.read_text(errors="replace")
    ]
    assert len(private) >= 3 * len(SHOPS) + 4
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    logs = [*finished.folder.glob("logs/*"), *finished.folder.glob("*/owner.log"), finished.folder / "run/status.json"]
    said_by_all = "".join(path.read_text() for path in logs if path.exists())
    assert "Traceback" not in said_by_all
    for path in private:
        lines = [line for line in path.read_text().splitlines() if len(line) > 40 and "PRIVATE" not in line]
        assert not any(line in said_by_all for line in lines), path


def test_nothing_is_left_of_the_messages(finished: Finished) -> None:
    """Flower keeps payloads in clear in its database; a finished run leaves none."""
    database = finished.provisioned.federation / "superlink" / "state.db"
    with closing(sqlite3.connect(database)) as opened:
        names = {name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        held = {name: opened.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0] for name in names}
    payloads = {name for name in names if name.startswith(("message", "object"))}
    assert payloads and all(held[name] == 0 for name in payloads)
    assert held["node"] == len(SHOPS), "what is kept is who was registered"


def test_model_is_the_simulations_where_nothing_is_random(finished: Finished, tmp_path: Path) -> None:
    """At sigma 0 with whole batches only the rounding into the secure sum is random: less than a step each round."""
    found = finished.provisioned
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(plan_text(found.plan.read_text(), _NO_NOISE))
    plan = load_plan(plan_file)
    assert not plan.private and plan.secure and plan.audited
    for folder in found.owners.values():
        said(testudo_client.cli.app, "approve", plan_file, folder, "--yes")
    finished.federation.stop()
    again = Provisioned(plan_file, found.federation, found.owners, found.data)
    with (
        Zygote(tmp_path / "z") as zygote,
        ForkedFederation(zygote, again, tmp_path / "run", tmp_path / "logs") as federation,
    ):
        federation.start()
        federation.finish(200)
    deployed = RunStore(tmp_path / "run").load(plan.digest).model
    simulated = simulated_model(plan, found, tmp_path / "simulated")
    step = quantisation_step(plan)
    assert np.max(np.abs(deployed - simulated)) <= 2 * ROUNDS * step
    assert np.linalg.norm(deployed - initial_vector(plan)) > 1000 * step, "it did learn something"


def simulated_model(plan: FederationPlan, found: Provisioned, folder: Path) -> Vector:
    training = {shop: load_owner_examples(plan, path) for shop, path in sorted(found.data.items())}
    federation = Federation(plan, training, {})
    return federate_in_process(federation, RunStore(folder, durable=False), None).state.model


def quantisation_step(plan: FederationPlan) -> float:
    secure, norm = plan.secure_aggregation, plan.outer.max_update_norm
    return 1 / parameters_for(secure, plan.rounds, max_norm=norm, values=1, count_bounds=()).layout.scale
