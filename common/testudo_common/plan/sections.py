"""The sections of a federation plan: fields, bounds and units. No cross-checks (checks.py), no files (load.py)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\- ]*$")]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DigitsData(Section):
    """scikit-learn's digits; each client writes them in its own style. Simulated from ``seed``."""

    federation: Literal["digits"] = "digits"
    clients: int = Field(100, ge=2, le=100_000, description="clients that train")
    unseen_clients: int = Field(20, ge=1, le=10_000, description="clients kept for evaluation only")
    examples: int = Field(200, ge=10, le=1000, description="images a client")
    side: int = Field(16, ge=8, le=64, description="pixels a side")
    rotation_degrees: float = Field(60.0, ge=0, le=180, description="largest rotation of a client's style, degrees")
    slant: float = Field(0.3, ge=0, le=1, description="largest shear of a client's style")
    polarity: bool = Field(True, description="half of the clients write white on black")
    stroke: bool = Field(True, description="clients write with thinner or thicker strokes")


class SineData(Section):
    """Sine waves, one a client: amplitude and phase are the client's own. Simulated from ``seed``."""

    federation: Literal["sine"] = "sine"
    clients: int = Field(200, ge=2, le=100_000, description="clients that train")
    unseen_clients: int = Field(50, ge=1, le=10_000, description="clients kept for evaluation only")
    examples: int = Field(20, ge=2, le=10_000, description="points a client")


class OmniglotData(Section):
    """Omniglot, an alphabet a client; from ``--data``: the ``.npz``, or the official zip files."""

    federation: Literal["omniglot"] = "omniglot"
    unseen_share: Fraction = Field(0.3, description="share of alphabets kept for evaluation only")
    clients: int | None = Field(None, ge=2, le=50, description="alphabets that train; none: all that are not unseen")
    side: int = Field(14, ge=7, le=105, description="pixels a side after shrinking")
    rotations: bool = Field(
        False,
        description="who trains has each character turned by 90, 180 and 270 degrees too, as characters of their own",
    )
    episodes: Literal["mixed", "alphabet"] = Field(
        "mixed", description="evaluation: an episode draws from all unseen alphabets, or from one"
    )


class RetailData(Section):
    """Weekly retail demand, a retailer a client; from ``--data``."""

    federation: Literal["retail"] = "retail"
    unseen_share: Fraction = Field(0.3, description="share of retailers kept for evaluation only")


class ActivityData(Section):
    """Activity recognition from an accelerometer, a person a client; from ``--data``."""

    federation: Literal["activity"] = "activity"
    unseen_share: Fraction = Field(0.3, description="share of people kept for evaluation only")


class Column(Section):
    """One input column of a table.

    A number enters the model as ``(value - center) / scale``, with ``transform = "log"`` as ``(log(value) - center) /
    scale``; a category as one input for each of ``categories``. With ``missing`` an empty cell is allowed, and one more
    input says that it was empty.
    """

    name: str = Field(min_length=1)
    kind: Literal["number", "category"] = "number"
    unit: str = Field("", max_length=32, description="of a number, for people; it changes nothing")
    transform: Literal["none", "log"] = Field("none", description="of a number; log: it must be above 0")
    center: float = 0.0
    scale: PositiveFloat = 1.0
    categories: tuple[str, ...] = ()
    missing: bool = False


class TableData(Section):
    """Any CSV table with a client column and a target column; from ``--data``.

    What is left out is filled in from the table by ``testudo-simulate``, which sees all of it; a plan for
    real data owners states ``columns`` (and ``labels`` or ``target_center`` and ``target_scale``) itself.
    """

    federation: Literal["csv"] = "csv"
    client: str = Field(min_length=1, description="column that says whose row it is")
    target: str = Field(min_length=1, description="column to predict")
    order: str | None = Field(None, description="column to sort a client's rows by, such as a date")
    columns: tuple[Column, ...] | None = Field(None, description="input columns; none: all other columns")
    labels: tuple[str, ...] | None = Field(None, description="classes of the target")
    target_unit: str = Field("", max_length=32, description="regression: for people; it changes nothing")
    target_transform: Literal["none", "log"] = Field(
        "none", description="regression; log: the target must be above 0, and its logarithm is learnt"
    )
    target_center: float | None = Field(None, description="regression: subtracted from the target")
    target_scale: PositiveFloat | None = Field(None, description="regression: the target is divided by it")
    unseen_share: Fraction = Field(0.3, description="share of clients kept for evaluation only")
    min_rows: int = Field(8, ge=2, le=1_000_000_000, description="a client with fewer rows is left out, by name")


DataPlan = Annotated[
    DigitsData | SineData | OmniglotData | RetailData | ActivityData | TableData,
    Field(discriminator="federation"),
]


class TaskPlan(Section):
    """What a task is, and how many of them a client trains on in one round."""

    kind: Literal["classification", "regression", "few_shot"] = Field(description="few_shot: N-way K-shot episodes")
    ways: int | None = Field(None, ge=2, le=1000, description="few_shot: classes an episode")
    shots: int | None = Field(None, ge=1, le=1000, description="few_shot: training examples a class in an episode")
    tasks_per_client: int = Field(1, ge=1, le=100, description="tasks a client and round; their mean is the update")
    local_centring: Literal["none", "targets", "inputs_and_targets"] = Field(
        "none", description="regression: subtract the client's own support means before the inner loop"
    )


class ModelPlan(Section):
    """The model, by name, or any ``torch.nn.Module`` factory as ``package.module:function``."""

    name: str = Field(
        "mlp",
        pattern=r"^(mlp|conv|linear|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        description="mlp, conv (GroupNorm), linear, or package.module:function",
    )
    inputs: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] | None = Field(None, description="shape of one input")
    outputs: int | None = Field(None, ge=1, le=1_000_000, description="classes, or 1 for regression")
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((64, 64), description="mlp: widths")
    activation: Literal["relu", "tanh"] = Field("relu", description="between layers")
    channels: int = Field(16, ge=1, le=4096, description="conv: channels a layer")
    blocks: int = Field(2, ge=1, le=8, description="conv: layers")
    unshared_head: bool = Field(False, description="the last layer stays with the client, zeroed at each adaptation")


class InnerPlan(Section):
    """Reptile's inner loop: ``steps`` (K) of plain SGD from the meta-model on one task."""

    steps: int = Field(
        10,
        ge=2,
        le=10_000,
        description="K; one step would be joint training, not meta-learning: Nichol et al. 2018, section 5",
    )
    learning_rate: PositiveFloat = Field(0.1, description="of the inner loop's SGD")
    sample_rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description="share of a task's examples a step; under DP each is drawn with this probability",
    )


class OuterPlan(Section):
    """The outer step on the mean meta-update (Reddi et al. 2021 for Adam and Yogi)."""

    optimizer: Literal["sgd", "adam", "yogi"] = Field("sgd", description="on the mean meta-update")
    step_size: PositiveFloat = Field(1.0, description="outer step size of the first round")
    anneal: bool = Field(True, description="sgd: the step size falls linearly to 0 over the rounds")
    beta1: float = Field(0.9, ge=0, lt=1, description="adam, yogi: decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="adam, yogi: decay of the second moment")
    tau: PositiveFloat = Field(1e-3, description="adam, yogi: adaptivity, added to the root")
    max_update_norm: PositiveFloat = Field(
        10.0, le=1e12, description="S: a client's meta-update is clipped to this L2 norm"
    )


class RoundsPlan(Section):
    """How many rounds, and who is asked."""

    count: int = Field(50, ge=1, le=1_000_000, description="rounds of a run")
    cohort_size: int = Field(20, ge=1, le=100_000, description="clients asked a round")
    min_replies: int = Field(1, ge=1, description="fewer usable replies than this end the run")
    max_participations: int | None = Field(
        None, ge=1, description="rounds one client may take part in; none: spread evenly"
    )
    deadline_seconds: PositiveFloat = Field(600.0, description="a reply after this is not waited for")


class PrivacyPlan(Section):
    """Example-level differential privacy at every client, or none."""

    unit: Literal["none", "example"] = Field(
        "none", description="what is hidden: nothing, or any one example of a client"
    )
    epsilon: PositiveFloat | None = Field(None, le=100, description="ceiling for one client over all its rounds")
    delta: float = Field(1e-5, gt=0, lt=0.5, description="well under one over a client's number of examples")
    noise_multiplier: float | None = Field(None, ge=0, le=1000, description="sigma / max_grad_norm, instead of epsilon")
    max_grad_norm: PositiveFloat = Field(1.0, description="C: one example's gradient is clipped to this L2 norm")
    accountant: Literal["prv", "rdp"] = Field("prv", description="prv is tight, rdp looser and faster")


class ClientPrivacyPlan(Section):
    """Client-level differential privacy: noise shares of all clients inside the secure sum; or none.

    It hides what a whole client sent from whoever sees sums only, the server among them. Either ``epsilon`` or
    ``noise_multiplier`` switches it on.
    """

    epsilon: PositiveFloat | None = Field(None, le=100, description="ceiling for one client over all its rounds")
    delta: float = Field(1e-5, gt=0, lt=0.5, description="well under one over the number of clients")
    noise_multiplier: PositiveFloat | None = Field(
        None, le=1000, description="standard deviation of a sum's noise / clipping norm, instead of epsilon"
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="S stays at outer.max_update_norm, or follows a quantile of the norms (Andrew et al. 2021)"
    )
    quantile: Fraction = Field(0.5, description="adaptive: share of the updates that is not to be clipped")
    clip_learning_rate: PositiveFloat = Field(0.2, le=2, description="adaptive: how fast S follows, a round")
    count_noise: PositiveFloat = Field(
        5.0, description="adaptive: standard deviation of the noise on the number of unclipped updates in a sum"
    )


class SecureAggregationPlan(Section):
    """Who sees a client's meta-update: nobody, only sums over groups being opened; or the server."""

    mode: Literal["secure", "plain"] = Field(
        "secure", description="secure: the server learns sums over groups only; plain: it sees each client's update"
    )
    group_size: int = Field(
        10, ge=3, le=10_000, description="clients a group; a cohort is cut into groups of at least this"
    )
    min_cohort: int | None = Field(
        None, ge=3, le=100_000, description="fewer clients are never grouped; none: half of rounds.cohort_size"
    )
    min_group: int = Field(4, ge=3, le=10_000, description="a sum over fewer survivors than this is never opened")
    corruption: float = Field(0.1, ge=0, lt=0.5, description="share of the clients that may collude with the server")
    dropout: float = Field(0.2, ge=0, lt=0.5, description="share of a group that may drop out; more costs its sum")
    max_left_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a cohort that may vanish when the groups can be known; else the round is begun again",
    )
    max_attempts: int = Field(5, ge=1, le=100, description="how often one round may be begun")
    max_weight: int = Field(
        1, ge=1, le=65536, description="1: one client, one vote; above: a client weighs its examples, at most so many"
    )
    value_bits: int | None = Field(
        None, ge=2, le=24, description="bits of one coordinate; none: as many as the largest group leaves room for"
    )
    step_deadline_seconds: PositiveFloat = Field(60.0, description="for each exchange after training")

    def fewest_grouped(self, cohort_size: int) -> int:
        """The fewest clients that may be grouped, of cohorts of ``rounds.cohort_size``."""
        return self.min_cohort or max(self.min_group, -(-cohort_size // 2))


class RobustAggregationPlan(Section):
    """How one update is made of many, so that poisoned ones are outvoted; of groups, under secure aggregation."""

    corruption: float = Field(
        0.0, ge=0, lt=0.5, description="share of the clients that may be poisoned; 0: none, and the mean is taken"
    )
    rule: tuple[str, ...] | None = Field(
        None,
        description="any of clip, arc, nnm, dedupe, bucketing, and then one of mean, krum, multi_krum, "
        "geometric_median, centred_clipping, mda, caf, median, trimmed_mean; none: what is recommended",
    )
    max_failure: float = Field(
        1e-3,
        gt=0,
        lt=0.5,
        description="largest chance, a round, of more bad updates or groups than the rule withstands",
    )
    clip_norm: PositiveFloat | None = Field(None, description="clip: L2 norm that longer updates are shortened to")
    bucket_size: int = Field(2, ge=1, le=1000, description="bucketing: updates a bucket")


class EvaluationPlan(Section):
    """Few-shot evaluation on clients that never trained."""

    shots: tuple[Annotated[int, Field(ge=0, le=100_000)], ...] = Field(
        (0, 1, 5, 10), description="support examples a class; for regression: a client"
    )
    steps: int = Field(30, ge=1, le=10_000, description="adaptation steps")
    learning_rate: PositiveFloat | None = Field(None, description="none: inner.learning_rate")
    scratch_steps: int = Field(100, ge=1, le=100_000, description="steps for a model trained from its initialisation")
    every_rounds: int = Field(10, ge=1, le=1_000_000, description="how often the curve gets a point")
    episodes: int = Field(50, ge=1, le=10_000, description="few_shot: episodes a client")
    queries: int = Field(10, ge=1, le=1000, description="few_shot: query examples a class")
    federated_every_rounds: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="how often training clients score the model on own examples, inside the secure sum; none: never",
    )
    federated_noise_multiplier: PositiveFloat | None = Field(
        None, le=1000, description="noise of these sums over what one example changes in them; needed under privacy"
    )
    min_cell: int = Field(
        10, ge=1, le=1_000_000, description="a class or bin with fewer examples in these sums is not reported"
    )


class CalibrationPlan(Section):
    """How sure models adapted by newcomers may be: found out in the last round, by owners that never trained before.

    They adapt the model as newcomers would and count their scores in bins; only sums of these counts are opened.
    """

    held_back: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the clients that are asked in the last round only; 0: nothing is found out",
    )


class StudentPlan(Section):
    """A smaller model that an owner may distil its own one into, for a small device; or none. It is never shared."""

    name: Literal["mlp", "conv", "linear"] | None = Field(None, description="mlp, conv or linear; none: no student")
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((16,), description="mlp: widths of the student")
    channels: int = Field(4, ge=1, le=4096, description="conv: channels a layer of the student")
    blocks: int = Field(2, ge=1, le=8, description="conv: layers of the student")
    temperature: PositiveFloat = Field(
        2.0, le=100, description="classes: divides the logits that the student learns from (Hinton et al. 2015)"
    )
    steps: int = Field(500, ge=1, le=100_000, description="of distillation, on batches of 128 rows")


class AuditPlan(Section):
    """Who can check afterwards what the server did: everybody, or nobody."""

    mode: Literal["log", "off"] = Field(
        "log", description="log: every step is in a log that the clients mirror and cosign; off: there is no such log"
    )
    quorum: int | None = Field(
        None, ge=1, le=100_000, description="witnesses that have to cosign; none: more than two thirds of the roster"
    )
    window: int = Field(
        1, ge=1, le=100, description="rounds for which a cosignature counts; above 1, two views can last that long"
    )
    deadline_seconds: PositiveFloat = Field(30.0, description="how long the server waits for cosignatures")
