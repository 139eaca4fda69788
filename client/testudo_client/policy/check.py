"""A policy's verdict on a plan, here and now: one finding a rule. Reads no data, no file and no clock.

What is not known is not allowed: a pin that cannot be checked here, a number that the plan leaves open. Here are the
rules on the circumstances; those on the plan itself are in rules.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from testudo_client.policy.contract import contract_of
from testudo_client.policy.findings import Circumstances, Finding
from testudo_client.policy.rules import ContractOf, plan_findings
from testudo_client.policy.sections import OwnerPolicy, Pins
from testudo_common.audit.checkpoints import default_quorum
from testudo_common.errors import Fault, PolicyError
from testudo_common.plan import FederationPlan


def refuse(
    policy: OwnerPolicy,
    plan: FederationPlan,
    here: Circumstances,
    *,
    source: str,
    contract_of: ContractOf = contract_of,
) -> None:
    """Return only if the policy allows the plan.

    Raises:
        PolicyError: It does not; with everything that is refused.
    """
    if faults := check(policy, plan, here, contract_of):
        raise PolicyError(faults, source=source)


def check(
    policy: OwnerPolicy, plan: FederationPlan, here: Circumstances, contract_of: ContractOf = contract_of
) -> list[Fault]:
    """Everything that the policy refuses; empty: the plan is allowed."""
    return [finding.fault for finding in examine(policy, plan, here, contract_of) if finding.fault is not None]


def examine(
    policy: OwnerPolicy, plan: FederationPlan, here: Circumstances, contract_of: ContractOf = contract_of
) -> Iterator[Finding]:
    """What each rule says, those that allow the plan too."""
    yield _same_client(policy, here)
    yield from _dates(policy, here)
    yield from _pins(policy, here)
    yield from _quorum(policy, plan, here)
    yield from plan_findings(policy, plan, contract_of)


def _same_client(policy: OwnerPolicy, here: Circumstances) -> Finding:
    remedy = "Start it under the policy's name, or correct client"
    return Finding(
        "client", policy.client, f"this client is {here.client_id!r}", policy.client == here.client_id, remedy
    )


def _dates(policy: OwnerPolicy, here: Circumstances) -> Iterator[Finding]:
    dates, asked = policy.dates, f"today is {here.today}"
    yield Finding("dates.not_before", f"from {dates.not_before}", asked, dates.not_before <= here.today, "Wait")
    remedy = "Read the policy through, and then move the day"
    yield Finding("dates.not_after", f"to {dates.not_after}", asked, here.today <= dates.not_after, remedy)


def _pins(policy: OwnerPolicy, here: Circumstances) -> Iterator[Finding]:
    pins = policy.pins
    learn = "Put federation.pub into your folder, once you have compared it with the federation by another way"
    yield _pin("federation_key", pins.federation_key, _one(here.federation_key), learn)
    yield _pin("code", pins.code, _one(here.code_digest), "Look at what was installed")
    learn = "Start your node with testudo-client run, which looks at the bundle: Flower's own executor does not tell"
    yield _pin("bundle", pins.bundle, _one(here.bundle_digest), learn)
    learn = "Start your node with testudo-client run, which sees the certificate: Flower's own executor does not tell"
    if here.connected or pins.server_certificate == "any":
        yield _pin("server_certificate", pins.server_certificate, here.server_certificates, learn)
    else:
        limit = " or ".join(pins.server_certificate) or "none yet"
        later = "compared in every round, when your node is connected"
        yield Finding("pins.server_certificate", limit, later, pins.server_certificate != (), learn)
    if pins.witnesses:
        known = here.witnesses
        missing = sorted(set(pins.witnesses) - set(known or ()))
        asked = f"not among those here: {', '.join(missing)}" if missing else "all are here"
        asked = "not known here, and cannot be checked" if known is None else asked
        limit = f"all {len(pins.witnesses)} witnesses pinned"
        yield Finding(
            "pins.witnesses", limit, asked, known is not None and not missing, "Ask the federation who watches its log"
        )


def _quorum(policy: OwnerPolicy, plan: FederationPlan, here: Circumstances) -> Iterator[Finding]:
    """How many witnesses have to have seen the log; what a plan says of it depends on how many there are."""
    if not plan.audited:
        return
    stated, witnesses = plan.audit.quorum, here.witnesses
    limit = "any number of witnesses" if policy.audit.lower_quorum else "more than two thirds of the witnesses"
    remedy = "Ask for a plan without audit.quorum"
    if stated is None:
        yield Finding("audit.lower_quorum", limit, "more than two thirds have to cosign", True, remedy)
    elif witnesses is None:
        asked = f"{stated} have to cosign, and how many witnesses there are is not known here"
        yield Finding("audit.lower_quorum", limit, asked, policy.audit.lower_quorum, "Put roster.json into your folder")
    else:
        asked = f"{stated} of {len(witnesses)} have to cosign"
        allowed = policy.audit.lower_quorum or stated >= default_quorum(len(witnesses))
        yield Finding("audit.lower_quorum", limit, asked, allowed, remedy)


def _one(found: str | None) -> tuple[str, ...] | None:
    return None if found is None else (found,)


def _pin(name: str, pins: Pins, found: tuple[str, ...] | None, learn: str) -> Finding:
    """A pin's verdict, if one of what was found is pinned; ``learn`` says how what is not known can become known."""
    key = f"pins.{name}"
    known = " under ".join(found or ())
    if pins == "any":
        return Finding(key, "any", known or "not known here", True, "")
    limit = " or ".join(pins) if pins else "none yet"
    if not found:
        return Finding(key, limit, "not known here, and cannot be checked", False, learn)
    remedy = f'Make sure that it is right, and then write in [pins] {name} = ["{found[0]}"]'
    return Finding(key, limit, f"here it is {known}", not set(found).isdisjoint(pins), remedy)
