"""Owners' policies, plans that they allow exactly, and folders of owners; for tests. No tests in here."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import tomli_w

from helpers import make_plan
from testudo_client.home import OwnerHome
from testudo_client.policy.findings import Circumstances
from testudo_client.policy.load import parse_policy
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.key_files import create_key
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import apply_settings

KEY, CODE, BUNDLE, CERTIFICATE = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)

PRIVATE: dict[str, Any] = {
    "name": "private",
    "data": {"federation": "digits"},
    "task": {"kind": "classification"},
    "model": {"name": "linear", "inputs": [3], "outputs": 2},
    "inner": {"steps": 2, "learning_rate": 0.5, "sample_rate": 0.1},
    "rounds": {"count": 20, "cohort_size": 20, "max_participations": 5},
    "privacy": {"unit": "example", "noise_multiplier": 1.5, "accountant": "rdp"},
    "secure_aggregation": {"mode": "secure", "group_size": 10, "min_cohort": 10, "min_group": 4},
}
"""A plan that POLICY allows."""

POLICY: dict[str, Any] = {
    "version": 1,
    "client": "ada",
    "privacy": {"example": {"epsilon_per_run": 8.0, "epsilon_for_life": 10.0, "delta": 1e-5, "accountant": "rdp"}},
    "aggregation": {
        "min_cohort": 10,
        "min_group": 4,
        "min_corruption": 0.1,
        "max_attempts": 5,
        "max_participations": 5,
    },
    "model": {"allowed": ["linear", "mlp"], "max_bytes": 4_000_000},
    "pins": {"federation_key": [KEY], "code": [CODE], "bundle": "any"},
    "dates": {"not_before": date(2026, 1, 1), "not_after": date(2026, 12, 31)},
}


def private_plan(*settings: str) -> FederationPlan:
    """:data:`PRIVATE`, with an audit log, and ``section.key=value`` changed."""
    return make_plan('audit.mode="log"', *settings, tables=PRIVATE)


def policy_tables(*settings: str) -> dict[str, Any]:
    """:data:`POLICY` with ``section.key=value`` changed."""
    return apply_settings(copy.deepcopy(POLICY), settings)


def make_policy(*settings: str) -> OwnerPolicy:
    """:data:`POLICY` with ``section.key=value`` changed, checked."""
    return parse_policy(policy_tables(*settings), source="a test")


def circumstances(**more: Any) -> Circumstances:
    """What :data:`POLICY` pins."""
    known = {
        "today": NOON.date(),
        "client_id": "ada",
        "federation_key": KEY,
        "code_digest": CODE,
        "witnesses": (KEY, CODE, BUNDLE),
    }
    return Circumstances(**{**known, **more})


def write_policy(path: Path, *settings: str) -> Path:
    """A policy as a file that only its owner can write."""
    path.write_text(tomli_w.dumps(policy_tables(*settings)))
    path.chmod(0o600)
    return path


def make_home(folder: Path, *settings: str) -> OwnerHome:
    """An owner's folder with a key, and a policy without pins."""
    home = OwnerHome(folder)
    create_key(home.identity_file)
    write_policy(home.policy_file, 'pins.federation_key="any"', 'pins.code="any"', *settings)
    return home
