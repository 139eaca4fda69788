"""Numbers of a report as a reader sees them, for both views. Plain text: escaping is each view's business."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from testudo_common.markup import printable
from testudo_common.reporting.shown import (
    DIVERGED,
    MISSING,
    delta,
    epsilon,
    is_percent,
    metric_name,
    number,
    seconds,
    size,
)
from testudo_simulations.report.summaries import (
    ArmSummary,
    Exclusion,
    SettingSummary,
    Spread,
    without_privacy,
)
from testudo_simulations.results import (
    AuditSummary,
    ClientAccount,
    Cost,
    PrivacySummary,
    Report,
    RobustSummary,
    RunResult,
    SecureSummary,
    TrainingSummary,
)


def with_spread(metric: str, spread: Spread) -> str:
    """``77.1 ± 0.8``, or the mean alone where one run has no spread."""
    mean = number(metric, spread.mean)
    return mean if spread.std is None else f"{mean} ± {number(metric, spread.std)}"


SCORE_NOISE = (
    "These scores carry noise, so that they say almost the same whether or not any single example was counted; the "
    "account includes them. After ± "
    "stands its standard deviation; two rounds that differ by less than that may not differ. For the calibration error "
    "(ECE) it is what noise alone would show: the error reported is too large on average, by up to that much."
)
SCORES_WITHHELD = (
    "Not reported are classes and confidence bins with too few examples, or hardly more than their noise, and scores "
    "that are mostly noise. Averages over classes leave such classes out."
)


def with_noise(metric: str, value: float, noise: float | None) -> str:
    """``83.1 ± 0.9`` where noise has that standard deviation, or the value alone where the sums are exact."""
    said = number(metric, value)
    return said if noise is None else f"{said} ± {number(metric, noise)}"


def withheld(counts: Mapping[str, int]) -> str:
    """``2 classes, 1 bin``; a dash for nothing."""
    one = {"classes": "class", "bins": "bin", "metrics": "score"}
    many = {"classes": "classes", "bins": "bins", "metrics": "scores"}
    parts = [f"{count} {(one if count == 1 else many).get(kind, kind)}" for kind, count in counts.items() if count]
    return ", ".join(parts) or MISSING


def place(setting: SettingSummary) -> str:
    """The setting as a reader says it: what the sweep changed, or the privacy it ran under."""
    named, account = printable(setting.setting), setting.privacy
    if named == "epsilon = none" or named.startswith("epsilon = none,"):
        return f"Without differential privacy{named.removeprefix('epsilon = none')}"
    if named.startswith("epsilon = "):
        return f"At epsilon {named.removeprefix('epsilon = ')}"
    if named:
        return f"With {named}"
    if account.unit == "none" and account.client is not None:
        whole = account.client.target_epsilon or account.client.epsilon
        return f"At client-level epsilon {epsilon(whole)}"
    if account.unit == "none":
        return "Without differential privacy"
    target = account.target_epsilon
    return f"At epsilon {epsilon(account.epsilon) if target is None else f'{target:g}'}"


def support(shots: int | None) -> str:
    """A support size as a column title."""
    return "all" if shots is None else str(shots)


def support_title(shots: int | None) -> str:
    """A support size as a title."""
    return "All of the support set" if shots is None else f"{shots} support example{'s' if shots != 1 else ''}"


def adaptation(arm: ArmSummary) -> str:
    """Whether the adaptation was differentially private; nothing for the arm that takes no step."""
    if arm.name == "meta":
        return MISSING
    return "with DP" if arm.private else "no DP"


def gain(metric: str, value: float, *, signed: bool = True) -> str:
    """A difference: ``+9.7 points``, or ``0.076`` in the metric's own unit; a true minus sign."""
    if not math.isfinite(value):
        return DIVERGED
    shown = number(metric, abs(value))
    sign = ("+" if value >= 0 else "−") if signed else ""
    return f"{sign}{shown} points" if is_percent(metric) else f"{sign}{shown}"


def privacy_line(privacy: PrivacySummary) -> str:
    """Unit, epsilon, delta, accountant, noise and steps in one line; of each unit's account where there are two."""
    if privacy.client is not None:
        whole = client_account_line(privacy.client)
        examples = privacy.model_copy(update={"client": None})
        return whole if privacy.unit == "none" else f"{privacy_line(examples)}. And {whole}"
    if privacy.unit == "none":
        return "none; training is not differentially private"
    spent = f"epsilon {epsilon(privacy.epsilon)}"
    if privacy.target_epsilon is not None:
        spent += f" of {privacy.target_epsilon:g}"
    parts = [
        f"unit: one {privacy.unit} of one client",
        f"{spent} spent" + ("" if privacy.delta is None else f" at delta {delta(privacy.delta)}"),
        f"accountant {printable(privacy.accountant or 'not named').upper()}",
        *_named_number("noise multiplier", privacy.noise_multiplier),
        *_named_number("sample rate", privacy.sample_rate),
        *_named_number("clipped at", privacy.max_grad_norm),
        f"{privacy.steps_per_client} steps a client",
    ]
    return "; ".join(parts)


def client_account_line(account: ClientAccount) -> str:
    """The account of a whole client, against whoever sees sums and the model."""
    spent = f"epsilon {epsilon(account.epsilon)}"
    if account.target_epsilon is not None:
        spent += f" of {account.target_epsilon:g}"
    parts = [
        "unit: one client, in secure sums",
        f"{spent} spent at delta {delta(account.delta)}",
        f"accountant {printable(account.accountant).upper()}",
        *_named_number("noise multiplier", account.noise_multiplier),
        f"{account.sums} sums a client",
    ]
    return "; ".join(parts)


def robust_line(robust: RobustSummary, secure: SecureSummary) -> str:
    """What one poisoned client could do, or how many of them are outvoted."""
    rule = ", then ".join(name.replace("_", " ") for name in robust.rule)
    if robust.corruption == 0:
        return f"none outvoted ({rule}): one poisoned client moves the model as far as its update's norm may be"
    rows = "updates" if secure.mode == "plain" else "groups"
    said = f"{rule}; outvotes {robust.withstood} bad of {robust.rows} {rows} a round"
    if robust.outvoted:
        said += f"; given little weight again and again, look at them: {', '.join(map(printable, robust.outvoted))}"
    return said


def secure_line(secure: SecureSummary, cost: Cost) -> str:
    """Who saw what, and what hiding it took."""
    if secure.mode == "plain":
        return "none; the server saw every client's update"
    lost = f", {secure.groups_lost} lost" if secure.groups_lost else ""
    opened = f"{secure.groups_opened} group{'s' if secure.groups_opened != 1 else ''} opened{lost}"
    seen = f"{opened}; at least {secure.smallest_sum} clients in a sum"
    if secure.barred:
        seen += f"; barred after strikes: {', '.join(map(printable, secure.barred))}"
    if secure.mode == "mask-free":
        return f"simulated without masks: the same sums, no secrecy, and not their cost; {seen}"
    parts = [seen]
    if secure.client_cpu_seconds is not None:
        parts.append(f"{1000 * secure.client_cpu_seconds:.3g} ms CPU a client and round")
    if secure.server_cpu_seconds is not None:
        parts.append(f"{1000 * secure.server_cpu_seconds:.3g} ms a round at the server")
    if secure.plain_bytes_up and secure.plain_bytes_down:
        up, down = cost.bytes_up / secure.plain_bytes_up, cost.bytes_down / secure.plain_bytes_down
        parts.append(f"{up:.2f} times the plain bytes up, {down:.2f} times down")
    return "; ".join(parts)


def audit_line(audit: AuditSummary | None) -> str:
    """What the audit log holds, who stands behind it, and what it took."""
    if audit is None:
        return "none; nobody can check afterwards what the server did"
    parts = [
        f"{audit.entries} entries, {audit.rounds} round{'s' if audit.rounds != 1 else ''} closed",
        cosigned(audit),
        "its replay found nothing wrong" if audit.verified else f"ITS REPLAY {first_failure(audit)}",
        *([f"{len(audit.incidents)} incident{'s' if len(audit.incidents) != 1 else ''}"] if audit.incidents else []),
        *audit_cost(audit),
    ]
    return "; ".join(parts)


def first_failure(audit: AuditSummary) -> str:
    """The first check that the log failed."""
    return printable(next((line for line in audit.checks if line.startswith("FAILED")), "FAILED"))


def cosigned(audit: AuditSummary) -> str:
    """How many witnesses cosigned the rounds, and how many have to."""
    needed = f"{audit.quorum} of {audit.witnesses} have to"
    if not audit.cosigners:
        return needed
    least, most = min(audit.cosigners), max(audit.cosigners)
    return f"{least if least == most else f'{least} to {most}'} cosigned each round, {needed}"


def audit_cost(audit: AuditSummary) -> list[str]:
    """CPU at both ends, and bytes kept and sent."""
    parts = []
    if audit.client_cpu_seconds is not None:
        parts.append(f"{1000 * audit.client_cpu_seconds:.3g} ms CPU a client and round")
    if audit.server_cpu_seconds is not None:
        parts.append(f"{1000 * audit.server_cpu_seconds:.3g} ms a round at the server")
    parts.append(f"{size(audit.log_bytes)} of log, {size(audit.bytes_down)} down, {size(audit.bytes_up)} up")
    return parts


def _named_number(name: str, value: float | None) -> list[str]:
    return [] if value is None else [f"{name} {value:.3g}"]


def training(found: TrainingSummary) -> str:
    """How the clients were trained."""
    if not found.engine:
        return f"one by one: {found.why_not}"
    threads = "" if found.device != "cpu" else f", {found.threads} thread{'s' if found.threads > 1 else ''}"
    rest = found.asked - found.at_once
    alone = f"; {rest} one by one" if rest > 0 else ""
    return f"at once ({found.engine}, {found.device}{threads}): {found.at_once} of {found.asked} client-rounds{alone}"


def cost_line(cost: Cost) -> str:
    """CPU, wall, bytes both ways, memory."""
    return (
        f"{seconds(cost.cpu_seconds)} CPU (training {seconds(cost.training_cpu_seconds)}), "
        f"{seconds(cost.wall_seconds)} wall; "
        f"{size(cost.bytes_down)} down, {size(cost.bytes_up)} up; {size(cost.peak_memory_bytes)} RAM"
    )


def exclusions(found: tuple[Exclusion, ...], unit: str, *, usual: int = 1, most: int | None = None) -> str:
    """Clients by name with the reason.

    Args:
        found: Who, why, how often.
        unit: What ``times`` counts.
        usual: How often goes without saying.
        most: Past this many clients only their number is given.
    """
    parts = []
    for one in found[:most]:
        times = "" if one.times == usual else f"; {one.times} {unit if one.times > 1 else unit.removesuffix('s')}"
        parts.append(f"{printable(one.client)} ({printable(one.reason)}{times})")
    more = len(found) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def notes(settings: tuple[SettingSummary, ...]) -> list[str]:
    """How to read the numbers, one sentence each."""
    seeds = max((len(setting.runs) for setting in settings), default=0)
    lower = [metric_name(setting.metric) for setting in settings if not setting.higher_is_better]
    sentences = [
        *(f"Lower {name} is better." for name in dict.fromkeys(lower)),
        f"± is the standard deviation over {seeds} seeds." if seeds > 1 else "One seed: no spread is known.",
        "Too close to call: the mean difference is within its own standard deviation over seeds." * (seeds > 1),
        "p10, p50, p90: a tenth, half, nine tenths of the unseen clients have a lower value.",
        "Hurt: share of clients that adaptation made worse.",
    ]
    return [sentence for sentence in sentences if sentence]


def open_adaptation(settings: Sequence[SettingSummary]) -> str:
    """Where training is private and adapting to few examples is not; empty where there is no such thing."""
    said = []
    for setting in settings:
        if sizes := without_privacy(setting):
            said.append(f"{place(setting)}: no DP in adapting to {', '.join(map(support, sizes))}.")
    return " ".join(said)


def facts(report: Report) -> list[str]:
    """Where the data comes from and how many clients; a line for each that differs; then runs and seeds."""
    lines = dict.fromkeys(_fact(run) for run in report.runs)
    seeds = sorted({run.seed for run in report.runs})
    ran = f"{len(report.runs)} run{'s' if len(report.runs) != 1 else ''}, "
    ran += f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"
    return [*lines, ran] if seeds else []


def _fact(run: RunResult) -> str:
    return (
        f"{printable(run.federation)} · {run.training_clients} clients trained, "
        f"{run.unseen_clients} were never seen · {run.parameters:,} shared parameters"
    )
