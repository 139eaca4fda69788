"""Data owners with folders of their own, from init to statement, behind Flower's messages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from helpers import OWNERS_TABLE, make_plan
from testudo_client.app import build_client_app, observer_from_context, participant_from_context, signer_from_context
from testudo_client.cli import app
from testudo_client.home import OwnerHome
from testudo_client.ledger import Purpose, Reserved
from testudo_client.observer import Observer
from testudo_client.participant import Participant
from testudo_client.policy.findings import Launch
from testudo_common.app_bundle import bundle_digest
from testudo_common.audit.entries import AnyEntry, OwnerWithdrawn, RoundClosed, decode_entry
from testudo_common.audit.log import AuditLog
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.signed_replies import ReplySigner
from testudo_server.app import run_federation
from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit, keys_in
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.grid import InProcessGrid

SHOPS = ("shop-0", "shop-1", "shop-2", "shop-3", "shop-4")
TABLE = {
    **OWNERS_TABLE,
    "inner": {"steps": 3, "learning_rate": 0.2, "sample_rate": 0.5},
    "rounds": {"count": 3, "cohort_size": 5, "max_participations": 3, "min_replies": 4},
    "privacy": {"unit": "example", "epsilon": 6.0},
    "secure_aggregation": {"group_size": 5, "min_cohort": 4},
}


def said(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def entries_in(path: Path) -> list[AnyEntry]:
    """What stands in a log's file."""
    log = AuditLog(path)
    try:
        return [decode_entry(entry) for entry in log.entries()]
    finally:
        log.close()


@pytest.fixture
def plan() -> FederationPlan:
    return make_plan('audit.mode="log"', tables=TABLE)


@pytest.fixture
def owners(tmp_path: Path, plan: FederationPlan) -> dict[str, Path]:
    """Five owners as people make them: key and policy, the roster, a look at the plan, and an approval."""
    server, keys = tmp_path / "server", {}
    (tmp_path / "plan.toml").write_text(dump_plan(plan))
    admit(server, "shops", {})
    for number, shop in enumerate(SHOPS):
        pinned = (server / FEDERATION_PUBLIC).read_text().strip()
        made = said(
            "init", str(tmp_path / shop), "--client", shop, "--min-cohort", "4", "--federation-key", pinned, "--json"
        )  # fmt: skip
        keys[shop] = json.loads(made)["public_key"]
        rng = np.random.default_rng(number)
        rows = "".join(f"{x:.4f},{y:.4f},{'yes' if x > y else 'no'}\n" for x, y in rng.normal(size=(40, 2)))
        (tmp_path / f"{shop}.csv").write_text("price,size,sold\n" + rows)
    admit(server, "shops", keys)
    for shop in SHOPS:
        for name in (ROSTER, FEDERATION_PUBLIC):
            (tmp_path / shop / name).write_bytes((server / name).read_bytes())
        previewed = json.loads(said("preview", str(tmp_path / "plan.toml"), str(tmp_path / shop), "--json"))
        assert previewed["allowed"]
        said("approve", str(tmp_path / "plan.toml"), str(tmp_path / shop), "--yes")
    return {shop: tmp_path / shop for shop in SHOPS}


def test_from_init_to_statement(tmp_path: Path, plan: FederationPlan, owners: dict[str, Path]) -> None:
    launch = Launch(bundle_digest())

    def own(context: Context) -> Context:
        shop = SHOPS[int(context.node_config["partition-id"])]
        config = {"owner": owners[shop], "plan": tmp_path / "plan.toml", "data": tmp_path / f"{shop}.csv"}
        node_config = {key: str(value) for key, value in config.items()}
        return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})

    def participant_of(context: Context) -> Participant:
        return participant_from_context(own(context), launch)

    def observer_of(context: Context) -> Observer | None:
        return observer_from_context(own(context), launch)

    def signer_of(context: Context) -> ReplySigner | None:
        return signer_from_context(own(context))

    def on_round(state: RunState, _record: RoundRecord) -> None:
        if state.round == 1:  # one owner has had enough
            said("withdraw", plan.digest, str(owners["shop-3"]))

    grid = InProcessGrid(build_client_app(participant_of, observer_of, signer_of), len(SHOPS))
    grid.run.fab_hash = bundle_digest()
    store = RunStore(tmp_path / "run", durable=False)
    run_federation(grid, plan, store, clients=len(SHOPS), keys=lambda: keys_in(tmp_path / "server"), on_round=on_round)

    records = store.records()
    # Her withdrawal travels with her cosignature of round 2, which was opened with her in it.
    assert [dict(record.excluded) for record in records] == [{}, {"shop-3": "refused: not_approved"}, {}]
    entries = entries_in(tmp_path / "run" / "audit.db")
    closed = [entry for entry in entries if isinstance(entry, RoundClosed)]
    assert [sorted(client for group in entry.survivors for client in group) for entry in closed] == [
        list(SHOPS),
        [shop for shop in SHOPS if shop != "shop-3"],
        [shop for shop in SHOPS if shop != "shop-3"],
    ]
    (withdrawn,) = [entry for entry in entries if isinstance(entry, OwnerWithdrawn)]
    assert (withdrawn.statement.client, withdrawn.rounds) == ("shop-3", (1,))
    for shop, folder in owners.items():
        home = OwnerHome(folder)
        contents = [entry.content for entry in home.ledger(home.policy()).entries()]
        trained = [c for c in contents if isinstance(c, Reserved) and c.occasion.purpose is Purpose.TRAINING]
        assert len(trained) == (1 if shop == "shop-3" else 3)
        files = home.audit(plan.digest)
        assert entries_in(files.mirror) == entries, "who has withdrawn watches on"
        receipts = [number for number in (1, 2, 3) if files.receipt(number, 0).exists()]
        assert receipts == ([1] if shop == "shop-3" else [1, 2, 3])
        assert not files.halt.exists()
        verified = said("audit", "verify", str(folder))
        assert "FAILED" not in verified
    stated = json.loads(said("statement", str(owners["shop-0"]), "--json"))
    (account,) = stated["statements"][0]["accounts"]
    assert 0.97 * 6 <= account["epsilon"] <= 6
    shown = json.loads(said("ledger", str(owners["shop-0"]), "--plan", str(tmp_path / "plan.toml"), "--json"))
    assert shown["rounds_left"] == 0
    lines = json.loads(said("log", str(owners["shop-3"]), "--json"))
    assert [line["event"] for line in lines] == ["approved", "withdrawn", "refused"]
    secrets = [(folder / "identity.pem").read_text().splitlines()[1] for folder in owners.values()]
    logged = "".join(
        (folder / "owner.log").read_text() for folder in owners.values() if (folder / "owner.log").exists()
    )
    assert not any(secret in logged for secret in secrets)
