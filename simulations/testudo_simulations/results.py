"""What a run found: the values of ``report.json``, from which both views of it are drawn."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION: Final = 6


class Result(BaseModel):
    """Base: frozen, unknown keys refused, so that an old reader never misreads a new report."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class ClientScore(Result):
    """One unseen client under one arm; metric name -> value (accuracy in 0..1, RMSE in the target's unit)."""

    client: str
    metrics: dict[str, float]


class Arm(Result):
    """One way to get a model for unseen clients, at one support size.

    Attributes:
        name: Key of the arm: ``scratch``, ``meta`` (meta-initialisation, no step), ``adapted``, ``local_only``,
            ``fedavg_finetuned``, or a baseline's own name such as ``local_ridge``.
        label: What a reader sees.
        family: ``meta`` for ours, ``federated`` for other federated ways, ``baseline`` for non-federated ones.
        shots: Support examples (a class, or a client for regression); None: all of the support set.
        private: Whether the adaptation itself was differentially private at the run's epsilon.
        scores: One an unseen client.
        share_hurt: Share of clients whose headline metric adaptation made worse than ``meta``; None where it has
            no meaning.
    """

    name: str
    label: str
    family: Literal["meta", "federated", "baseline"]
    shots: int | None
    private: bool
    scores: list[ClientScore]
    share_hurt: Annotated[float | None, Field(ge=0, le=1)] = None


class RoundRecord(Result):
    """One finished round. Names are simulated clients'; a norm of a single client is never in it.

    Attributes:
        influence: (members, share) of each group, or single client, in the round's update; shares as the robust rule
            weighed them.
        metrics: ``before`` and ``after`` adaptation -> metric -> value, over the round's training clients together, as
            the secure sum of their counts gives it; empty in a round without.
        metric_noise: In the same places, the standard deviation that noise gives a metric, and for ``examples`` their
            number; empty where the sums are exact.
        withheld: ``before`` and ``after`` -> ``classes``, ``bins``, ``metrics`` -> how many are not reported, for too
            few examples or too much noise.
        clip: S of the round, where the plan adapts it.
    """

    round: int
    cohort: list[str]
    survivors: list[str]
    excluded: list[tuple[str, str]]
    mean_update_norm: float
    seconds: float
    influence: list[tuple[list[str], float]] = []
    metrics: dict[str, dict[str, float]] = {}
    metric_noise: dict[str, dict[str, float]] = {}
    withheld: dict[str, dict[str, int]] = {}
    clip: float | None = None


class CurvePoint(Result):
    """The headline metric on unseen clients after so many rounds, before and after adaptation."""

    round: int
    before: float
    after: float


class ClientAccount(Result):
    """What one client's account says at the unit of a whole client; epsilon is the largest of all clients.

    Attributes:
        noise_multiplier: Of one secure sum, over the clipping norm.
        sums: Secure sums that the client took part in, attempts included.
    """

    epsilon: float
    target_epsilon: float | None
    delta: float
    noise_multiplier: float
    sums: int
    accountant: str


class PrivacySummary(Result):
    """What one client's accounts say at the end of the run; epsilon is the largest of all clients.

    Attributes:
        client: The other unit's account, where sums carry noise for whole clients.
    """

    unit: Literal["none", "example"]
    epsilon: float | None
    target_epsilon: float | None
    delta: float | None
    noise_multiplier: float | None
    sample_rate: float | None
    max_grad_norm: float | None
    steps_per_client: int
    accountant: str | None
    client: ClientAccount | None = None


class SecureSummary(Result):
    """Who saw what of the clients' updates, and what that took.

    Attributes:
        mode: ``secure``; ``mask-free`` for a simulation of the same sums without secrecy; ``plain`` where the server
            saw each update.
        groups_opened: Over all rounds.
        groups_lost: Over all rounds and attempts: not opened, or opened and found wrong.
        smallest_sum: Clients in the smallest sum that was opened; 1 where updates were seen one by one.
        attempts: Begun, over all rounds.
        barred: Clients that strikes had singled out by the end.
        client_cpu_seconds: A client and round, mean; None where it was not measured.
        server_cpu_seconds: A round, mean; None where nothing was to compute.
        plain_bytes_up: What the plain exchange would have sent up: each update once, as float32.
        plain_bytes_down: What it would have sent down.
    """

    mode: Literal["secure", "mask-free", "plain"]
    groups_opened: int
    groups_lost: int
    smallest_sum: int
    attempts: int
    barred: list[str]
    client_cpu_seconds: float | None
    server_cpu_seconds: float | None
    plain_bytes_up: int
    plain_bytes_down: int


class RobustSummary(Result):
    """How updates became one, and what that withstands.

    Attributes:
        rule: In order; ``mean`` withstands nobody.
        corruption: Share of the clients that the plan takes for poisoned.
        withstood: Bad rows a round that the rule was run against, the fewest of all rounds; rows are groups under
            secure aggregation, and clients without.
        rows: Rows a round, the fewest of all rounds.
        outvoted: Clients whose rows were given little weight more often than chance would have it.
    """

    rule: list[str]
    corruption: float
    withstood: int
    rows: int
    outvoted: list[str]


class KeptReceipt(Result):
    """What one client keeps of one of its updates.

    Attributes:
        round: The round it was for.
        index: Of its entry in the log, from 0.
        cosigners: Witnesses under the checkpoint that covers it.
        verified: Whether the receipt holds: signatures, quorum and inclusion.
        file: Where it lies in the run's folder.
    """

    round: int
    index: int
    cosigners: int
    verified: bool
    file: str


class AuditSummary(Result):
    """What the audit log of a run holds, read from the log itself.

    Attributes:
        origin: Which log.
        entries: How many it has.
        rounds: Closed ones.
        root: Of the Merkle tree over all entries, base64 as in a checkpoint.
        federation_key: Whose signature makes the roster, hex.
        witnesses: Clients that may cosign.
        quorum: k, how many have to.
        window: Rounds for which a cosignature counts.
        cosigners: One a closed round: witnesses under the checkpoint that its clients trained on.
        epsilon: At the unit of an example, by RDP as the log states it; None: no such account, or no bound.
        client_epsilon: The same at the unit of a client.
        incidents: Index, kind and words of each.
        client: Who was asked most often; the receipts are its own.
        receipts: Of each of its updates.
        verified: Whether a replay of the whole log found nothing wrong.
        checks: What the replay looked at, or the first thing that it found wrong; a line each.
        log_bytes: Of the exported log.
        bytes_down: Of log updates to clients, over all rounds.
        bytes_up: Of what they answered.
        client_cpu_seconds: A client and round, mean; None where it was not measured.
        server_cpu_seconds: A round, mean.
    """

    origin: str
    entries: int
    rounds: int
    root: str
    federation_key: str
    witnesses: int
    quorum: int
    window: int
    cosigners: list[int]
    epsilon: float | None
    client_epsilon: float | None
    incidents: list[tuple[int, str, str]]
    client: str
    receipts: list[KeptReceipt]
    verified: bool
    checks: list[str]
    log_bytes: int
    bytes_down: int
    bytes_up: int
    client_cpu_seconds: float | None
    server_cpu_seconds: float | None


class Cost(Result):
    """What a run took.

    Attributes:
        cpu_seconds: Of everything: training, evaluation, comparisons.
        training_cpu_seconds: Of the federated rounds alone, with the points of the curve; of this process only.
        wall_seconds: Of everything.
        bytes_down: Payloads to clients over all rounds, without the audit log's own messages.
        bytes_up: Payloads from clients over all rounds, the same.
        peak_memory_bytes: Peak resident memory of this process.
    """

    cpu_seconds: float
    training_cpu_seconds: float
    wall_seconds: float
    bytes_down: int
    bytes_up: int
    peak_memory_bytes: int


class TrainingSummary(Result):
    """How the clients were trained.

    Attributes:
        engine: How those trained at once were: ``stacked`` or ``vmap``; empty where each was trained by itself.
        why_not: Why none was trained at once, in words.
        at_once: Trainings of a client in a round that the engine did.
        asked: Clients asked to train, over all rounds.
        device: The engine's.
        threads: The engine's.
    """

    engine: str
    why_not: str
    at_once: int
    asked: int
    device: str
    threads: int


class RunResult(Result):
    """One training run: one plan, one seed, and everything measured with it.

    Attributes:
        setting: What a sweep changed, such as ``epsilon = 8``; empty outside a sweep.
        metric: The headline metric: ``accuracy``, ``balanced_accuracy`` or ``rmse``.
        higher_is_better: Direction of the headline metric.
        parameters: Number of shared parameters d.
        federation: Where the data comes from, one line.
        excluded_clients: (client, reason) of clients left out of the federation.
        statement: The privacy statement: see testudo_common.privacy.statement.
        audit: Of the audit log; None where the plan has none.
    """

    name: str
    setting: str
    seed: int
    plan_digest: str
    plan: dict[str, object]
    backend: str
    training: TrainingSummary
    model_digest: str
    parameters: int
    metric: str
    higher_is_better: bool
    federation: str
    training_clients: int
    unseen_clients: int
    excluded_clients: list[tuple[str, str]]
    privacy: PrivacySummary
    statement: dict[str, object]
    secure: SecureSummary
    robust: RobustSummary
    audit: AuditSummary | None
    rounds: list[RoundRecord]
    curve: list[CurvePoint]
    arms: list[Arm]
    cost: Cost


class Report(Result):
    """One or several runs (seeds x settings) with the versions they ran on."""

    version: Literal[6] = FORMAT_VERSION
    title: str
    created: str
    versions: dict[str, str]
    runs: list[RunResult]
