"""The sections of the page, from values to Markup: findings, tables, privacy in plain words, small print."""

from __future__ import annotations

import json
from collections.abc import Sequence

from testudo_common.markup import Markup, block, join, table, tag
from testudo_common.reporting import shown
from testudo_common.reporting.page import details, section, unbroken
from testudo_simulations.report import wording
from testudo_simulations.report.comparisons import best
from testudo_simulations.report.headlines import headline
from testudo_simulations.report.scores import federated_scores
from testudo_simulations.report.statement import statements
from testudo_simulations.report.summaries import ArmSummary, SettingSummary, rows_by_shots
from testudo_simulations.results import Report, RunResult

Settings = Sequence[SettingSummary]
SIGNS = {"better": "▲", "worse": "▼", "tie": "≈", None: "·"}

GUARANTEE = (
    "Differential privacy here protects one example of one client: whoever sees everything that client's "
    "training sent out learns almost the same whether or not any single example was in its data. How much "
    "“almost” is, epsilon and delta say; smaller is stricter."
)
NOT_COVERED = (
    "The unit is one example. A client with many similar examples, or the fact that it took part at all, is "
    "not hidden by this guarantee.",
    "Only some clients are asked in a round. No smaller epsilon is claimed for that: each account charges "
    "every round its client took part in.",
    "Where an unseen client adapts “with DP”, its adaptation is charged as a run of its own at the same "
    "epsilon. It spends nothing of the training clients' accounts, since it uses none of their data.",
    "Where a figure or table says “no DP”, or a dot is hollow, adapting itself was not protected. A model adapted "
    "so must stay with its owner.",
    "The scores of unseen clients in this report were computed in simulation, without noise. They are not part of the "
    "guarantee.",
)
UNPROTECTED = (
    "No run of this report was differentially private. Updates and models can give away examples they were trained on."
)


def found(settings: Settings) -> Markup:
    """The headline sentences."""
    items = []
    for setting in settings:
        lines = [
            tag("p", tag("span", SIGNS[one.verdict], aria_hidden="true"), unbroken(one.text),
                class_=" ".join(filter(None, ["main" if i == 0 else "", one.verdict or ""])))
            for i, one in enumerate(headline(setting).findings)
        ]  # fmt: skip
        items.append(tag("li", *lines))
    return section("What was found", tag("ul", *items, class_="found"))


def arm_table(setting: SettingSummary) -> Markup:
    """Every arm at the headline support size."""
    private = setting.privacy.unit != "none"
    arms = setting.at(setting.headline_shots)
    winner = best(arms, higher_is_better=setting.higher_is_better)
    head = [
        "",
        *(["Adapted"] if private else []),
        shown.metric_title(setting.metric),
        "p10",
        "p50",
        "p90",
        "Hurt",
    ]
    rows = []
    for arm in arms:
        value = wording.with_spread(setting.metric, arm.score)
        label = tag("strong", arm.label) if arm is winner else arm.label
        rows.append(
            [
                label,
                *([wording.adaptation(arm)] if private else []),
                tag("strong", value) if arm is winner else value,
                *(shown.number(setting.metric, one) for one in arm.percentiles),
                shown.MISSING if arm.share_hurt is None else f"{100 * arm.share_hurt:.0f} %",
            ]
        )
    title = f"{wording.place(setting)}: {wording.support_title(setting.headline_shots).lower()}"
    return table(head, rows, caption=title, numbers=range(2 if private else 1, len(head)))


def shots_tables(settings: Settings) -> Markup:
    """Arms by support size; of several settings, closed until asked for, since the figure says it first."""
    tables = [_shots_table(setting) for setting in settings]
    return details("The same in numbers", *tables) if len(tables) > 1 else join(*tables)


def _shots_table(setting: SettingSummary) -> Markup:
    """Arms by support size."""
    sizes = setting.shot_sizes
    if len(sizes) < 2:
        return Markup("")
    winners = [best(setting.at(shots), higher_is_better=setting.higher_is_better) for shots in sizes]
    rows = []
    for row in rows_by_shots(setting):
        first = next(arm for arm in row if arm is not None)
        rows.append([first.label, *(_shots_cell(setting, arm, won) for arm, won in zip(row, winners, strict=True))])
    title = f"{wording.place(setting)}: {shown.metric_title(setting.metric)}, by number of support examples"
    return table(["", *map(wording.support, sizes)], rows, caption=title)


def _shots_cell(setting: SettingSummary, arm: ArmSummary | None, won: ArmSummary | None) -> str:
    if arm is None:
        return shown.MISSING
    value = wording.with_spread(setting.metric, arm.score)
    return tag("strong", value) if arm is won else value


def privacy(settings: Settings) -> Markup:
    """The guarantee and its limits in plain words, and each setting's account."""
    whole = [_client_sentence(setting) for setting in settings if setting.privacy.client is not None]
    protected = [setting for setting in settings if setting.privacy.unit != "none"]
    if not protected:
        return section("Privacy", *(whole or [tag("p", UNPROTECTED)]), statements(settings), anchor="privacy")
    columns = [_account(setting) for setting in settings]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    accounts = table(["", *map(wording.place, settings)], rows, caption="The largest account of any client")
    return section(
        "Privacy",
        tag("p", GUARANTEE),
        accounts,
        *whole,
        tag("h3", "What is not covered"),
        tag("ul", *(tag("li", sentence) for sentence in NOT_COVERED)),
        statements(settings),
        anchor="privacy",
    )


def _client_sentence(setting: SettingSummary) -> Markup:
    assert setting.privacy.client is not None
    said = wording.client_account_line(setting.privacy.client)
    return tag("p", f"{wording.place(setting)}, against whoever sees sums and the model: {said}.")


def _account(setting: SettingSummary) -> dict[str, str]:
    """What one setting's account says, by name, in the order of the table."""
    account, nothing = setting.privacy, shown.MISSING
    private = account.unit != "none"

    def rounded(value: float | None) -> str:
        return nothing if value is None else f"{value:.3g}"

    return {
        "Unit": f"one {account.unit} of one client" if private else "none",
        "Epsilon spent": shown.epsilon(account.epsilon) if private else "without bound",
        "Epsilon allowed": nothing if account.target_epsilon is None else f"{account.target_epsilon:g}",
        "Delta": nothing if account.delta is None else shown.delta(account.delta),
        "Accountant": (account.accountant or nothing).upper(),
        "Noise multiplier": rounded(account.noise_multiplier),
        "Gradient of an example clipped at": rounded(account.max_grad_norm),
        "Share of examples drawn a step": rounded(account.sample_rate),
        "Steps a client": str(account.steps_per_client),
    }


SECURE_TEXT = (
    "With secure aggregation the server learns sums over groups of clients and no single client's update; a sum over "
    "too few is never opened. It hides who contributed what, not what all contributed together: that is what "
    "differential privacy is for."
)


def secure(settings: Settings) -> Markup:
    """Who saw what of the updates, and what training clients scored together."""
    rows = [[wording.place(one), wording.secure_line(one.secure, one.cost)] for one in settings]
    parts = [tag("p", SECURE_TEXT)] if any(one.secure.mode != "plain" for one in settings) else []
    parts.append(table(["", "Secure sums"], rows, caption="Who saw what, and what that took", numbers=range(0)))
    robust_rows = [[wording.place(one), wording.robust_line(one.robust, one.secure)] for one in settings]
    caption = "How many poisoned clients are outvoted; no rule by itself stops a backdoor"
    parts.append(table(["", "Poisoning"], robust_rows, caption=caption, numbers=range(0)))
    parts += [federated_scores(run, run_name(run)) for one in settings for run in one.runs]
    return section("What the server saw", *parts, anchor="seen")


def left_out(settings: Settings) -> Markup:
    """Clients that never took part, and replies that were not used, by name and with the reason."""
    never: dict[tuple[str, str], list[str]] = {}
    refused: dict[tuple[str, str], list[str]] = {}
    for setting in settings:
        for one in setting.left_out:
            never.setdefault((one.client, one.reason), []).append(wording.place(setting))
        for one in setting.refused:
            refused.setdefault((one.client, one.reason), []).append(f"{wording.place(setting)}: {one.times}")
    if not never and not refused:
        return section("Clients left out", tag("p", "None: every client took part, and every reply was used."),
                       anchor="left-out")  # fmt: skip
    everywhere = len(settings)
    parts = []
    if never:
        rows = [[*who, "all" if len(at) == everywhere else "; ".join(at)] for who, at in never.items()]
        parts.append(table(["Client", "Reason", "Settings"], rows, caption="Not in the federation", numbers=range(0)))
    if refused:
        rows = [[*who, "; ".join(at)] for who, at in refused.items()]
        parts.append(table(["Client", "Reason", "Rounds"], rows, caption="Replies not used", numbers=range(0)))
    return section("Clients left out", *parts, anchor="left-out")


def cost(settings: Settings) -> Markup:
    """What the runs of each setting took."""
    rows = [
        [
            wording.place(setting),
            str(len(setting.runs)),
            shown.seconds(setting.cost.cpu_seconds),
            shown.seconds(setting.cost.training_cpu_seconds),
            shown.seconds(setting.cost.wall_seconds),
            shown.size(setting.cost.bytes_down),
            shown.size(setting.cost.bytes_up),
            shown.size(setting.cost.peak_memory_bytes),
        ]
        for setting in settings
    ]
    head = ["", "Runs", "CPU", "of it training", "Wall", "To clients", "From clients", "Peak memory"]
    return section("Cost", table(head, rows, caption="All runs of a setting together; payloads only"), anchor="cost")


def small_print(report: Report, settings: Settings) -> Markup:
    """Everything else, closed until asked for."""
    parts = [_metrics_details(settings)]
    parts += [_rounds_details(run) for run in report.runs]
    parts += [_plan_details(run) for run in report.runs]
    ways = [[run_name(run), run.backend, wording.training(run.training)] for run in report.runs]
    caption = "Where the clients were, and how they were trained"
    parts.append(details("Training", table(["Run", "Backend", "Training"], ways, caption=caption, numbers=range(0))))
    digests = [[run_name(run), tag("code", run.plan_digest), tag("code", run.model_digest)] for run in report.runs]
    head = ["Run", "Plan", "Model"]
    parts.append(details("Digests", table(head, digests, caption="Digests of plans and models", numbers=range(0))))
    versions = [[name, version] for name, version in report.versions.items()]
    parts.append(details("Versions", table(["", "Version"], versions, caption="Versions it ran on", numbers=range(0))))
    return section("In detail", *parts, anchor="detail")


def run_name(run: RunResult) -> str:
    """What tells a run from the others of a report."""
    return ", ".join(part for part in (run.name, run.setting, f"seed {run.seed}") if part)


def _metrics_details(settings: Settings) -> Markup:
    tables = []
    for setting in settings:
        names = list(dict.fromkeys(name for arm in setting.arms for name in arm.metrics))
        rows = [
            [
                f"{arm.label} ({wording.support(arm.shots)})",
                *(wording.with_spread(name, arm.metrics[name]) if name in arm.metrics else shown.MISSING
                  for name in names),
            ]
            for arm in setting.arms
        ]  # fmt: skip
        head = ["Arm (support examples)", *map(shown.metric_title, names)]
        tables.append(table(head, rows, caption=wording.place(setting)))
    return details("Every metric of every arm", *tables)


def _rounds_details(run: RunResult) -> Markup:
    rows = [
        [
            str(record.round),
            f"{len(record.survivors)} of {len(record.cohort)}",
            f"{record.mean_update_norm:.3g}",
            f"{record.seconds:.2f} s",
            "; ".join(f"{client} ({reason})" for client, reason in record.excluded) or shown.MISSING,
        ]
        for record in run.rounds
    ]
    head = ["Round", "Replies used", "Mean update norm", "Time", "Not used"]
    name = run_name(run)
    return details(f"Rounds: {name}", table(head, rows, caption=f"{len(rows)} rounds of {name}", numbers=range(1, 4)))


def _plan_details(run: RunResult) -> Markup:
    plan = json.dumps(run.plan, indent=2, ensure_ascii=False, sort_keys=True)
    return details(f"Plan: {run_name(run)}", tag("pre", tag("code", block(plan)), tabindex="0"))
