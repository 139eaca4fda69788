"""A data owner's folder: where everything of its own lies. Reads policy and keys; decides nothing.

``policy.toml`` what it allows; ``identity.pem`` its private key; ``federation.pub`` and ``roster.json`` who the
federation is; ``state/`` the ledger, the mirror of the federation's log, and what it remembers of a run; ``approved/``
plans it approved; ``receipts/`` what it has of that log; ``owner.log``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from testudo_client.code_digest import code_digest
from testudo_client.ledger import ANCHOR_FILE, LEDGER_FILE, Ledger, open_ledger
from testudo_client.membership import FEDERATION_KEY_FILE, IDENTITY_FILE, ROSTER_FILE
from testudo_client.own_record import AuditFiles
from testudo_client.owner_log import OwnerLog
from testudo_client.policy.findings import NOTHING_KNOWN, Circumstances, Launch
from testudo_client.policy.load import load_policy
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.key_files import parse_public, read_key, read_public
from testudo_common.plan import FederationPlan
from testudo_common.roster import read_roster

POLICY_FILE = "policy.toml"
LOG_FILE = "owner.log"
STATE_FOLDER = "state"
APPROVED_FOLDER = "approved"


@dataclass(frozen=True, slots=True)
class OwnerHome:
    """The folder of one data owner.

    Attributes:
        folder: Which only the owner can read.
    """

    folder: Path

    @property
    def policy_file(self) -> Path:
        """What the owner allows."""
        return self.folder / POLICY_FILE

    @property
    def identity_file(self) -> Path:
        """The owner's private key."""
        return self.folder / IDENTITY_FILE

    @property
    def federation_key_file(self) -> Path:
        """The federation's public key."""
        return self.folder / FEDERATION_KEY_FILE

    @property
    def roster_file(self) -> Path:
        """Who takes part."""
        return self.folder / ROSTER_FILE

    @property
    def state(self) -> Path:
        """What is remembered between rounds."""
        return self.folder / STATE_FOLDER

    @property
    def approved(self) -> Path:
        """Copies of the plans that were approved."""
        return self.folder / APPROVED_FOLDER

    def audit(self, plan_digest: str) -> AuditFiles:
        """What belongs to one plan's log: mirror, receipts, and what was signed."""
        return AuditFiles(self.folder, plan_digest)

    @property
    def log(self) -> OwnerLog:
        """The owner's own log."""
        return OwnerLog(self.folder / LOG_FILE)

    def policy(self) -> OwnerPolicy:
        """The policy as it is now.

        Raises:
            PolicyError: There is none, or it cannot be used.
        """
        return load_policy(self.policy_file)

    def key(self) -> Ed25519PrivateKey:
        """The owner's private key.

        Raises:
            KeyFileError: It is missing, readable by others, or not a key.
        """
        return read_key(self.identity_file)

    def approving_key(self, policy: OwnerPolicy | None) -> Ed25519PublicKey:
        """Public half of the key that signs approvals: the one that the policy pins, or else the owner's own.

        Raises:
            KeyFileError: None is pinned, and the owner's own cannot be used; or what is pinned is not a key.
        """
        pinned = None if policy is None else policy.pins.approvals
        if pinned is None:
            return self.key().public_key()
        return parse_public(pinned, source=f"{self.policy_file}: pins.approvals")

    def ledger(self, policy: OwnerPolicy | None) -> Ledger:
        """The owner's ledger, with the anchors that the policy names; nothing is read before it is used."""
        return open_ledger(self.folder, self.anchors(policy))

    def anchors(self, policy: OwnerPolicy | None) -> tuple[Path, ...]:
        """Further places for the ledger's anchors; a relative one is seen from the folder."""
        return () if policy is None else tuple(self.folder / anchor for anchor in policy.ledger.anchors)

    def has_ledger(self, policy: OwnerPolicy | None) -> bool:
        """Whether there is a ledger, or anything that remembers one."""
        places = (self.folder / LEDGER_FILE, self.folder / ANCHOR_FILE, *self.anchors(policy))
        return any(place.exists() for place in places)

    def circumstances(
        self, client_id: str, now: datetime, *, plan: FederationPlan, launch: Launch = NOTHING_KNOWN
    ) -> Circumstances:
        """What can be known here and now.

        Args:
            client_id: Under which name this owner takes part.
            now: By this computer's clock.
            plan: That is asked about: who watches its log is known where it has one.
            launch: What whoever started this knows.

        Raises:
            KeyFileError: ``federation.pub`` is there, and is not a key.
            RosterError: ``roster.json`` is there and needed, and is not signed with it.
        """
        there = self.federation_key_file.exists()
        return Circumstances(
            today=now.astimezone(UTC).date(),
            client_id=client_id,
            federation_key=read_public(self.federation_key_file).public_bytes_raw().hex() if there else None,
            code_digest=code_digest(),
            bundle_digest=launch.bundle_digest,
            server_certificates=launch.server_certificates,
            connected=launch.connected,
            witnesses=self._witnesses() if plan.audited and there else None,
        )

    def _witnesses(self) -> tuple[str, ...] | None:
        """Keys of everybody on the roster, hex; None where there is none."""
        if not self.roster_file.exists():
            return None
        pinned = read_public(self.federation_key_file)
        roster = read_roster(self.roster_file.read_bytes(), pinned, source=str(self.roster_file))
        return tuple(key.hex() for key in roster.members.values())
