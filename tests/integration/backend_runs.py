"""One small federation for every backend, and what has to hold of its run on each. No tests in here."""

from __future__ import annotations

from pathlib import Path

from small_runs import rounding_of

from testudo_common.audit.log import AuditLog
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_server.audit_file import read_log
from testudo_server.store import RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.scenarios import find_plan

CLIENTS = 6
# Private training with a noise multiplier of 0: all of the private path, and repeatable.
NOISELESS = ['privacy.unit="example"', "privacy.noise_multiplier=0.0"]
SMALL = [f"data.clients={CLIENTS}", "data.unseen_clients=2", "rounds.count=3", "rounds.cohort_size=4"]


def small_federation(mode: str, *extra: str) -> Federation:
    """Sine waves, with sums that are ``plain`` or ``secure``."""
    tables, source = find_plan("sine")
    settings = [*SMALL, f"secure_aggregation.mode={mode}", *extra]
    return load_federation(parse_plan(tables, source=source, settings=settings), None)


def tolerance_of(plan: FederationPlan) -> float:
    """How far two runs of one plan may be apart in a coordinate."""
    return rounding_of(plan) if plan.secure else 1e-6


def everybody_mirrors_the_log(folder: Path) -> None:
    """Each client in a file of its own, which outlives its process."""
    with read_log(folder) as log:
        entries = list(log.entries())
    mirrors = sorted((folder / "clients").glob("*/state/audit-*.db"))
    assert len(mirrors) == CLIENTS
    for path in mirrors:
        mirror = AuditLog(path)
        assert list(mirror.entries()) == entries
        mirror.close()
    sent = sum(entry.startswith(b'{"statement":{"attempt"') for entry in entries)
    assert len(list((folder / "clients").glob("*/receipts/*/*.tlog-proof"))) == sent > 0


def no_client_was_set_aside(store: RunStore, plan: FederationPlan) -> None:
    """Not one, in any round."""
    for record in store.records():
        assert record.excluded == ()
        assert [group.survivors for group in record.groups] == ([record.cohort] if plan.secure else [])
