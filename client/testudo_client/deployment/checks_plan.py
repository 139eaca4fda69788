"""What ``doctor`` looks at inside an owner's folder: policy, ledger, room on disk, and one plan with its table.

Of a table nothing is kept and nothing charged. A model is built only where the policy allows it: a factory is code.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from testudo_client.approvals import check_approved
from testudo_client.deployment.check import Check, Verdict, fails, ok, refused, tried, warning
from testudo_client.home import OwnerHome
from testudo_client.ledger import utc_now
from testudo_client.policy import check as policy_check
from testudo_client.policy.findings import Launch
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.errors import TestudoError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan

LEAST_DISK_BYTES, LITTLE_DISK_BYTES = 200_000_000, 1_000_000_000
_MEMORY_FILES = (Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
TORCH_BYTES = 600_000_000
"""What a process with torch and Opacus holds before it trains."""


def of_folder(home: OwnerHome) -> Iterator[Check]:
    """Policy, ledger and disk."""
    yield tried("policy", lambda: _policy(home))
    yield tried("ledger", lambda: _ledger(home))
    yield _disk(shutil.disk_usage(home.folder).free)


def of_plan(home: OwnerHome, path: Path, data: Path | None) -> Iterator[Check]:
    """One plan, with the owner's table where it is given.

    Args:
        home: The owner's folder.
        path: The plan's file.
        data: The table; None: none is looked at.
    """
    try:
        plan, policy = load_plan(path), home.policy()
    except TestudoError as error:
        yield refused("plan", error)
        return
    yield ok("plan", f"{plan.name!r}, digest {plan.digest[:16]}")
    allowed = tried("policy for the plan", lambda: _allowed(home, plan, policy))
    yield allowed
    yield tried("approval", lambda: _approved(home, plan, policy))
    rows = 0
    if data is not None:
        fitting, rows = _data(plan, data)
        yield fitting
    if allowed.verdict is Verdict.FAILS:
        yield warning("dry round", "left away, since your policy does not allow the plan")
        return
    memory = _memory(plan, available_bytes())
    yield memory
    if memory.verdict is not Verdict.FAILS:
        yield tried("dry round", lambda: _dry_round(plan, rows))


def _policy(home: OwnerHome) -> str:
    policy, today = home.policy(), utc_now().date()
    last = policy.dates.not_after
    if today > last:
        raise UsageError(f"your policy ended on {last}", remedy="read it through, and then move the day")
    return f"holds to {last}"


def _ledger(home: OwnerHome) -> str:
    policy = home.policy()
    if not home.has_ledger(policy):
        return "empty: nothing was spent yet"
    return f"{len(home.ledger(policy).entries())} entries, verified"


def _disk(free: int) -> Check:
    said = f"{free / 1e9:.1f} GB free"
    if free < LEAST_DISK_BYTES:
        return fails("disk", f"{said}, and a full disk stops the ledger: make room")
    return ok("disk", said) if free >= LITTLE_DISK_BYTES else warning("disk", f"{said}: make room")


def _allowed(home: OwnerHome, plan: FederationPlan, policy: OwnerPolicy) -> str:
    from testudo_common.app_bundle import bundle_digest

    pinned = policy.pins.bundle != "any"
    launch = Launch(bundle_digest=bundle_digest() if pinned else None, connected=False)
    here = home.circumstances(policy.client, utc_now(), plan=plan, launch=launch)
    policy_check.refuse(policy, plan, here, source=str(home.policy_file))
    return "allowed"


def _approved(home: OwnerHome, plan: FederationPlan, policy: OwnerPolicy) -> str:
    entries = home.ledger(policy).entries() if home.has_ledger(policy) else ()
    check_approved(entries, home.key().public_key(), plan, policy)
    return "approved by you"


def _data(plan: FederationPlan, data: Path) -> tuple[Check, int]:
    from testudo_client.data import load_owner_examples

    rows = 0

    def look() -> str:
        nonlocal rows
        rows = len(load_owner_examples(plan, data))
        return f"{rows} rows fit the plan"

    return tried("data", look), rows


def memory_needed(values: int, batch: int, input_values: int) -> int:
    """Bytes that a round takes at the most, roughly.

    Args:
        values: d, parameters of the model.
        batch: Expected examples a step; each has a gradient of its own under differential privacy.
        input_values: Numbers of one example.
    """
    copies = 8  # model, start, gradient, update, its integers, mask, message and its parts
    return TORCH_BYTES + 4 * values * (copies + 2 * batch) + 8 * batch * input_values


def available_bytes(files: tuple[Path, Path, Path] = _MEMORY_FILES) -> int | None:
    """Memory that this process may still take: of the machine, or of its container; None: not known."""
    limits = []
    meminfo, most, current = files
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with suppress(OSError, ValueError):  # "max": the container has no limit
        limits.append(int(most.read_text()) - int(current.read_text()))
    return min(limits, default=None)


def _memory(plan: FederationPlan, available: int | None) -> Check:
    import math

    from testudo_client.policy.contract import contract_of, values_of

    try:
        values = values_of(contract_of(plan.model))
    except TestudoError as error:
        return refused("memory", error)
    rows = getattr(plan.data, "min_rows", 1) or 1
    batch = max(1, math.ceil(plan.inner.sample_rate * rows)) if plan.private else 1
    needed = memory_needed(values, batch, math.prod(plan.model.inputs or (1,)))
    said = f"a round takes about {needed / 1e9:.1f} GB ({values:,} parameters, {batch} examples a step)"
    if available is None:
        return warning("memory", f"{said}; how much there is cannot be seen here")
    said += f", and {available / 1e9:.1f} GB are free"
    if needed > available:
        return fails("memory", f"{said}: use a machine with more, or allow this one more")
    return ok("memory", said) if needed < available / 2 else warning("memory", said)


def _dry_round(plan: FederationPlan, rows: int) -> str:
    from testudo_client.deployment.dry_round import play

    return str(play(plan, rows))
