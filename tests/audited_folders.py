"""Folders of owners that mirror an audit log, with receipts and what they signed; for tests. Holds no test."""

from __future__ import annotations

from pathlib import Path

from audit_logs import AuditLogBuilder
from testudo_client.approvals import approve
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_common.key_files import create_key
from testudo_common.plan import FederationPlan
from watching import ME, Watching


def audited_folder(plan: FederationPlan, tmp_path: Path) -> Path:
    """Of an owner that took part in three rounds of ``plan``, the last of which no quorum has seen."""
    log = AuditLogBuilder(plan, 5, enrol=False)
    folder = tmp_path / "mine"
    log.keys[ME] = create_key(folder / "identity.pem")
    log.charter()
    log.enrol()
    for owner in log.owners:
        log.approve(owner)
    make_home(
        InitRequest(
            folder,
            client=ME,
            epsilon_per_run=8.0,
            epsilon_for_life=10.0,
            delta=1e-5,
            no_privacy=True,
            min_cohort=4,
            min_group=4,
            max_participations=100,
            models=["linear"],
            max_bytes=1000,
            federation_key=log.federation_public.hex(),
            days=1,
            anchors=[],
        )
    )
    home = OwnerHome(folder)
    (folder / "federation.pub").write_text(log.federation_public.hex())
    ledger = home.ledger(home.policy())
    approve(ledger, log.keys[ME], plan, home.policy())
    watching = Watching(plan, folder, log=log, ledger=ledger)
    for _ in range(3):
        watching.round()
    return folder
