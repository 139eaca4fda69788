"""Small reports for the tests of the report package, and how they are read. Holds no test."""

from __future__ import annotations

import io
from functools import cache

from rich.console import Console

from helpers import make_plan
from testudo_common.privacy.planned import run_spending
from testudo_common.privacy.statement import statement_of
from testudo_simulations.report.html import to_html
from testudo_simulations.report.terminal import print_summary
from testudo_simulations.results import (
    Arm,
    AuditSummary,
    ClientScore,
    Cost,
    CurvePoint,
    KeptReceipt,
    PrivacySummary,
    Report,
    RobustSummary,
    RoundRecord,
    RunResult,
    SecureSummary,
    TrainingSummary,
)

HOSTILE = '$_{$</svg><script>alert("1")</script>\x1b[2J\u202e$x_{[bold]'
ACCURACIES = {
    "scratch": (0.50, 0.60),
    "meta": (0.62, 0.78),
    "adapted": (0.70, 0.80),
    "local_ridge": (0.55, 0.65),
}
FAMILIES = {"meta": "meta", "adapted": "meta", "fedavg_finetuned": "federated"}

_PLAN = make_plan('privacy.unit="example"', "privacy.noise_multiplier=1.25", "rounds.max_participations=4")


def arm(
    name: str,
    values: tuple[float, ...],
    *,
    metric: str = "accuracy",
    label: str = "",
    shots: int | None = None,
    private: bool = False,
    hurt: float | None = None,
) -> Arm:
    scores = [ClientScore(client=f"u{i}", metrics={metric: value}) for i, value in enumerate(values)]
    family = FAMILIES.get(name, "baseline")
    return Arm(
        name=name,
        label=label or name.replace("_", " "),
        family=family,
        shots=shots,
        private=private,
        scores=scores,
        share_hurt=hurt,
    )


def run(
    arms: list[Arm],
    *,
    seed: int = 0,
    setting: str = "",
    spent: float | None = None,
    metric: str = "accuracy",
    client: str = "c7",
    name: str = "digits",
) -> RunResult:
    private = spent is not None
    return RunResult(
        name=name,
        setting=setting,
        seed=seed,
        plan_digest="ab" * 32,
        plan={"name": name, "note": client},
        backend="inline",
        training=TrainingSummary(engine="stacked", why_not="", at_once=38, asked=40, device="cpu", threads=2),
        model_digest="cd" * 32,
        parameters=1234,
        metric=metric,
        higher_is_better=metric != "rmse",
        federation="digits in styles",
        training_clients=10,
        unseen_clients=2,
        excluded_clients=[(client, "too few rows")],
        privacy=PrivacySummary(
            unit="example" if private else "none",
            epsilon=spent,
            target_epsilon=8.0 if private else None,
            delta=1e-5 if private else None,
            noise_multiplier=1.25 if private else None,
            sample_rate=0.1,
            max_grad_norm=1.0 if private else None,
            steps_per_client=100,
            accountant="prv" if private else None,
        ),
        statement=statement_of(_PLAN, run_spending(_PLAN), subject=client).as_json(),
        secure=SecureSummary(
            mode="secure",
            groups_opened=3,
            groups_lost=1,
            smallest_sum=5,
            attempts=2,
            barred=[client],
            client_cpu_seconds=0.004,
            server_cpu_seconds=0.009,
            plain_bytes_up=800_000,
            plain_bytes_down=1_600_000,
        ),
        robust=RobustSummary(rule=["nnm", "trimmed_mean"], corruption=0.2, withstood=1, rows=4, outvoted=[client]),
        audit=audited(client),
        rounds=[
            RoundRecord(
                round=1,
                cohort=["c1", client],
                survivors=["c1"],
                excluded=[(client, "no reply")],
                mean_update_norm=0.5,
                seconds=0.25,
            )
        ],
        curve=[CurvePoint(round=0, before=0.1, after=0.5), CurvePoint(round=10, before=0.6, after=0.7)],
        arms=arms,
        cost=Cost(
            cpu_seconds=10.0,
            training_cpu_seconds=6.0,
            wall_seconds=5.0,
            bytes_down=2_000_000,
            bytes_up=1_000_000,
            peak_memory_bytes=500_000_000,
        ),
    )


def audited(client: str = "c7", *, rounds: int = 2, **changes: object) -> AuditSummary:
    """A log of so many rounds, in which ``client`` has sent an update in each."""
    receipts = [
        KeptReceipt(
            round=number,
            index=10 * number,
            cosigners=8,
            verified=True,
            file=f"receipts/{client}/round-{number:04d}.tlog-proof",
        )
        for number in range(1, rounds + 1)
    ]
    found = AuditSummary(
        origin=f"testudo/{client}/abababababababab",
        entries=42,
        rounds=rounds,
        root="qvRH1vjsrdBSCmJ7R3s1mUfH6nqoT1zPvqPpQJ5jXrw=",
        federation_key="ab" * 32,
        witnesses=10,
        quorum=7,
        window=1,
        cosigners=[10] + [8] * (rounds - 1),
        epsilon=7.9812,
        client_epsilon=None,
        incidents=[(12, "resumed", client)],
        client=client,
        receipts=receipts,
        verified=True,
        checks=["ok: 42 entries", f"ok: the receipts of {client}"],
        log_bytes=24_000,
        bytes_down=2_000_000,
        bytes_up=40_000,
        client_cpu_seconds=0.0031,
        server_cpu_seconds=0.042,
    )
    return found.model_copy(update=changes)


def with_scores(found: RunResult) -> RunResult:
    """The run with rounds 2 to 4, of which 2 and 4 have scores of training clients; nobody was counted before in 4."""
    (first,) = found.rounds
    scores = {"before": {"accuracy": 0.5, "ece": 0.25}, "after": {"accuracy": 0.75, "ece": 0.125}}
    more = [
        first.model_copy(update={"round": 2, "metrics": scores}),
        first.model_copy(update={"round": 3}),
        first.model_copy(update={"round": 4, "metrics": {"after": {"accuracy": 0.8}}}),
    ]
    return found.model_copy(update={"rounds": [first, *more]})


def with_noisy_scores(found: RunResult) -> RunResult:
    """The run with a second round, whose scores carry noise and leave something out."""
    (first,) = found.rounds
    noise = {"accuracy": 0.031, "examples": 40.0}
    changes = {
        "round": 2,
        "metrics": {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}},
        "metric_noise": {"before": noise, "after": noise},
        "withheld": {"before": {"classes": 1, "bins": 3}, "after": {"classes": 2, "bins": 3, "metrics": 1}},
    }
    nothing = {"round": 4, "withheld": {"before": {"metrics": 7}, "after": {"metrics": 7}}}
    return found.model_copy(
        update={"rounds": [first, first.model_copy(update=changes), first.model_copy(update=nothing)]}
    )


def report(*runs: RunResult, title: str = "Digits") -> Report:
    return Report(title=title, created="2025-01-01T00:00:00Z", versions={"testudo": "0.1.0"}, runs=list(runs))


def two_seeds(spent: float | None = 7.981) -> Report:
    """Two seeds at epsilon 8: the second run's accuracies are 0.02 above the first's."""
    runs = []
    for seed, lift in enumerate((0.0, 0.02)):
        arms = [
            arm(
                name,
                tuple(value + lift for value in values),
                private=name in ("adapted", "scratch"),
                hurt=0.25 + seed * 0.5 if name == "adapted" else None,
            )
            for name, values in ACCURACIES.items()
        ]
        arms += [
            arm("adapted", (0.66 + lift, 0.68 + lift), shots=5, private=True),
            arm("scratch", (0.40 + lift, 0.42 + lift), shots=5, private=True),
        ]
        runs.append(run(arms, seed=seed, setting="epsilon = 8", spent=spent))
    return report(*runs)


@cache
def page_of_two_seeds() -> str:
    return to_html(two_seeds())


def terminal(found: Report, *, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_summary(found, Console(file=stream, width=width))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def words(text: str) -> str:
    """The text on one line, as it is read."""
    return " ".join(text.replace("&nbsp;", " ").split())


def hostile() -> Report:
    """Every text that a plan, a client or a dependency could choose is an attack."""
    arms = [arm(name, (0.5, 0.6), label=HOSTILE + name, hurt=0.5) for name in (*ACCURACIES, HOSTILE)]
    arms += [arm("adapted", (0.5, 0.6), label=HOSTILE, shots=1)]
    arms = [
        one.model_copy(update={"scores": [s.model_copy(update={"client": HOSTILE + s.client}) for s in one.scores]})
        for one in arms
    ]
    attacked = run(arms, setting=HOSTILE, client=HOSTILE, name=HOSTILE, spent=3.0)
    attacked = attacked.model_copy(
        update={
            "federation": HOSTILE,
            "backend": HOSTILE,
            "training": TrainingSummary(engine=HOSTILE, why_not=HOSTILE, at_once=1, asked=2, device=HOSTILE, threads=1),
            "plan_digest": HOSTILE,
            "plan": {HOSTILE: [HOSTILE]},
        }
    )
    return report(attacked, title=HOSTILE).model_copy(update={"created": HOSTILE, "versions": {HOSTILE: HOSTILE}})
