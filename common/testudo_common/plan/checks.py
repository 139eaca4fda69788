"""Checks across the keys of a plan. Each yields faults; none raises, so that all of them are seen at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from testudo_common.errors import Fault, PlannerError, ProtocolError
from testudo_common.plan.sections import (
    CalibrationPlan,
    ClientPrivacyPlan,
    EvaluationPlan,
    ModelPlan,
    PrivacyPlan,
    RobustAggregationPlan,
    RoundsPlan,
    Section,
    SecureAggregationPlan,
    StudentPlan,
    TableData,
    TaskPlan,
)
from testudo_common.robustness.names import PRE_AGGREGATORS, RULES

FEW_SHOT_FEDERATIONS = ("omniglot",)
REGRESSION_FEDERATIONS = ("sine", "retail")
CLASSIFICATION_FEDERATIONS = ("digits", "activity")


def check_privacy(privacy: PrivacyPlan) -> Iterator[Fault]:
    """A unit needs exactly one of a target epsilon and a noise multiplier; no unit needs neither."""
    if privacy.unit == "none":
        for key in ("epsilon", "noise_multiplier"):
            if getattr(privacy, key) is not None:
                yield Fault(
                    f"privacy.{key}",
                    f'{key} is set, but privacy.unit is "none" and nothing would be private',
                    f'Write privacy.unit = "example", or take {key} out',
                )
    elif (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        yield Fault(
            "privacy.epsilon",
            "example-level privacy needs either a target epsilon or a noise multiplier, and not both",
            "Keep one of privacy.epsilon and privacy.noise_multiplier",
        )


def check_rounds(rounds: RoundsPlan) -> Iterator[Fault]:
    """The replies that a round needs must be possible."""
    if rounds.min_replies > rounds.cohort_size:
        yield Fault(
            "rounds.min_replies",
            f"{rounds.min_replies} replies are needed, but only {rounds.cohort_size} clients are asked",
            "Lower rounds.min_replies or raise rounds.cohort_size",
        )
    if rounds.max_participations is not None and rounds.max_participations > rounds.count:
        yield Fault(
            "rounds.max_participations",
            f"a client cannot take part in {rounds.max_participations} of {rounds.count} rounds",
            "Lower it to rounds.count or less",
        )


def check_task(task: TaskPlan) -> Iterator[Fault]:
    """Episodes need ways and shots; nothing else may have them."""
    for key in ("ways", "shots"):
        if task.kind == "few_shot" and getattr(task, key) is None:
            yield Fault(f"task.{key}", f"few_shot tasks need {key}", f"Add task.{key}, for example 5")
        if task.kind != "few_shot" and getattr(task, key) is not None:
            yield Fault(f"task.{key}", f"{key} has a meaning for few_shot tasks only", f"Take task.{key} out")
    if task.local_centring != "none" and task.kind != "regression":
        yield Fault(
            "task.local_centring",
            "local centring subtracts means of numeric targets, and this task has classes",
            'Write "none", or task.kind = "regression"',
        )


def check_task_under_privacy(task: TaskPlan, privacy: PrivacyPlan) -> Iterator[Fault]:
    """What the example-level account does not cover is refused, not reported with a wrong epsilon."""
    if privacy.unit == "none":
        return
    if task.local_centring != "none":
        yield Fault(
            "task.local_centring",
            "local means make each gradient depend on all examples, which example-level accounting does not cover",
            'Write task.local_centring = "none", or privacy.unit = "none"',
        )
    if task.kind == "few_shot":
        yield Fault(
            "task.kind",
            "the support set of an episode is not a Poisson sample of the client's examples, "
            "so its epsilon cannot be accounted",
            'Write task.kind = "classification", or privacy.unit = "none"',
        )


def check_task_fits_data(task: TaskPlan, data: Section) -> Iterator[Fault]:
    """Built-in federations have one kind of task each; a table says which columns it needs."""
    name = getattr(data, "federation", "")
    kinds = {
        **dict.fromkeys(FEW_SHOT_FEDERATIONS, "few_shot"),
        **dict.fromkeys(REGRESSION_FEDERATIONS, "regression"),
        **dict.fromkeys(CLASSIFICATION_FEDERATIONS, "classification"),
    }
    if name in kinds and task.kind != kinds[name]:
        yield Fault("task.kind", f"the {name} federation has {kinds[name]} tasks", f'Write "{kinds[name]}"')
    if isinstance(data, TableData):
        yield from _check_table(task, data)


def _check_table(task: TaskPlan, data: TableData) -> Iterator[Fault]:
    if task.kind == "few_shot":
        yield Fault("task.kind", "a table has classification or regression tasks", 'Write "classification"')
    if data.client == data.target:
        yield Fault("data.target", "the client column cannot be the target", "Name another column")
    names = [column.name for column in data.columns or ()]
    for taken, key in ((data.client, "client"), (data.target, "target")):
        if taken in names:
            yield Fault("data.columns", f"{taken!r} is the {key} column and an input too", "Take it out of columns")
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault("data.columns", f"{name!r} stands there twice", "Keep one of them")
    for column in data.columns or ():
        if (column.kind == "category") != bool(column.categories):
            yield Fault(
                "data.columns",
                f"{column.name!r} is a {column.kind} with {len(column.categories)} categories",
                "A category column lists its categories, a number column has none",
            )
    if data.labels is not None and task.kind == "regression":
        yield Fault("data.labels", "a regression target has no labels", "Take data.labels out")
    if data.labels is not None and len(set(data.labels)) < max(2, len(data.labels)):
        yield Fault("data.labels", "labels must be two or more, all different", "Correct the list")
    if task.kind != "regression" and (data.target_center, data.target_scale) != (None, None):
        yield Fault("data.target_center", "classes are not scaled", "Take target_center and target_scale out")


def check_model_fits_task(model: ModelPlan, task: TaskPlan) -> Iterator[Fault]:
    """Outputs are one for regression, ways for episodes, two or more for classes."""
    expected = {"regression": 1, "few_shot": task.ways, "classification": None}[task.kind]
    if model.outputs is None:
        return
    if expected is not None and model.outputs != expected:
        yield Fault("model.outputs", f"{task.kind} needs {expected}", f"Write {expected}, or take it out")
    if task.kind == "classification" and model.outputs < 2:
        yield Fault("model.outputs", "classification needs two classes or more", "Correct it, or take it out")


def check_model(model: ModelPlan) -> Iterator[Fault]:
    """A conv net reads images: channels, height, width."""
    if model.name == "conv" and model.inputs is not None:
        if len(model.inputs) != 3:
            yield Fault(
                "model.inputs",
                "a conv net needs [channels, height, width]",
                'Correct it, or write model.name = "mlp"',
            )
        elif min(model.inputs[1:]) < 2 ** (model.blocks - 1):
            yield Fault("model.blocks", "every block halves the image, and it is too small", "Lower model.blocks")


def check_student(student: StudentPlan, model: ModelPlan) -> Iterator[Fault]:
    """A student reads what the model reads."""
    if student.name == "conv" and model.inputs is not None:
        if len(model.inputs) != 3:
            yield Fault("student.name", "a conv net needs [channels, height, width]", 'Write "mlp" or "linear"')
        elif min(model.inputs[1:]) < 2 ** (student.blocks - 1):
            yield Fault("student.blocks", "every block halves the image, and it is too small", "Lower student.blocks")


def check_secure_aggregation(secure: SecureAggregationPlan, rounds: RoundsPlan) -> Iterator[Fault]:
    """Groups must be able to hide their members, and their sums must fit; the protocol itself is asked."""
    if secure.mode == "plain":
        if secure.max_weight > 1:
            yield Fault(
                "secure_aggregation.max_weight",
                "a client's weight travels inside a secure sum only",
                'Write 1, or secure_aggregation.mode = "secure"',
            )
        return
    if rounds.cohort_size < secure.min_group:
        yield Fault(
            "rounds.cohort_size",
            f"{rounds.cohort_size} clients a round cannot hide each other: no sum over fewer than "
            f"{secure.min_group} is opened",
            f"Raise it to {secure.min_group} or more (3 is the least min_group), or write "
            'secure_aggregation.mode = "plain"',
        )
        return
    from testudo_common.plan.secure import parameters_for  # its imports are slow, and --help must not wait for them

    try:
        parameters_for(secure, rounds, max_norm=1.0, values=1, count_bounds=()).check(rounds.cohort_size)
    except ProtocolError as error:
        yield Fault("secure_aggregation", error.problem, error.remedy)


def check_rule(robust: RobustAggregationPlan) -> Iterator[Fault]:
    """A rule stands last and only there, has its numbers, and says what it is to withstand."""
    key = "robust_aggregation.rule"
    if robust.rule is None:
        return
    before, last = robust.rule[:-1], robust.rule[-1:]
    if unknown := [name for name in before if name not in PRE_AGGREGATORS] + [n for n in last if n not in RULES]:
        known = f"any of {', '.join(PRE_AGGREGATORS)}, and then one of {', '.join(RULES)}"
        yield Fault(key, f"{unknown[0]!r} cannot stand where it stands", f"Take {known}")
    elif not last:
        yield Fault(key, "no rule", 'Write, for example, ["dedupe", "nnm", "trimmed_mean"], or take it out')
    if "clip" in before and robust.clip_norm is None:
        yield Fault("robust_aggregation.clip_norm", "clip needs a norm", "Add it, or take clip out of the rule")
    if robust.corruption == 0 and robust.rule != ("mean",):
        yield Fault(
            "robust_aggregation.corruption",
            "a rule against nobody: the corruption assumed is 0",
            "Say which share of the clients may be poisoned, or take the rule out",
        )
    if robust.corruption > 0 and last == ("mean",) and not {"arc", "nnm"}.intersection(before):
        yield Fault(key, "a mean withstands nobody", "Name another rule, or take it out for the recommended one")


def check_robustness(
    robust: RobustAggregationPlan,
    secure: SecureAggregationPlan,
    rounds: RoundsPlan,
) -> Iterator[Fault]:
    """What may be poisoned must be outvoted, in the best case: a federation no larger than one cohort."""
    if robust.corruption == 0 or robust.rule == ():
        return  # another check says that there is no rule
    if secure.max_weight > 1:
        yield Fault(
            "secure_aggregation.max_weight",
            "a poisoned client would choose its own weight",
            "Write 1, or robust_aggregation.corruption = 0",
        )
    if rounds.cohort_size < secure.min_group and secure.mode == "secure":
        return  # another check says so
    from testudo_common.plan.robust import check_withstood

    try:
        check_withstood(robust, secure, rounds, clients=rounds.cohort_size)
    except PlannerError as error:
        yield Fault("robust_aggregation.corruption", error.problem, error.remedy)


def check_client_privacy(
    client: ClientPrivacyPlan,
    secure: SecureAggregationPlan,
    evaluation: EvaluationPlan,
    calibration: CalibrationPlan,
) -> Iterator[Fault]:
    """Noise shares are added inside a secure sum of equal votes, and cover all that leaves in it."""
    if (client.epsilon, client.noise_multiplier) == (None, None):
        if client.clipping == "adaptive":
            yield Fault(
                "client_privacy.clipping",
                "the clipping norm would follow exact counts of clients, which nothing hides",
                'Add client_privacy.epsilon, or write "fixed"',
            )
        return
    if None not in (client.epsilon, client.noise_multiplier):
        yield Fault("client_privacy.epsilon", "both a target epsilon and a noise multiplier", "Keep one of the two")
    if secure.mode == "plain":
        yield Fault(
            "client_privacy",
            "a client's share of the noise hides it inside a secure sum only",
            'Write secure_aggregation.mode = "secure", or take client_privacy out',
        )
    if secure.max_weight > 1:
        yield Fault("secure_aggregation.max_weight", "a weight is not covered by the noise", "Write 1")
    asked = {
        "evaluation.federated_every_rounds": evaluation.federated_every_rounds is not None,
        "calibration.held_back": calibration.held_back > 0,
    }
    for key in [key for key, there in asked.items() if there]:
        problem = "the scores of a whole client would need far more noise than those of an example"
        yield Fault(key, problem, "Take it out, or take client_privacy out")
    if client.clipping == "adaptive" and (client.noise_multiplier or 0) >= 2 * client.count_noise:
        yield Fault(
            "client_privacy.count_noise",
            "the count alone would spend more than the whole noise multiplier allows",
            f"Raise it above {(client.noise_multiplier or 0) / 2:g}",
        )


def check_noise_of_sums(
    client: ClientPrivacyPlan, evaluation: EvaluationPlan, secure: SecureAggregationPlan, rounds: RoundsPlan
) -> Iterator[Fault]:
    """Enough honest survivors must be left to carry a sum's noise, and it must fit; the protocol itself is asked."""
    private = (client.epsilon, client.noise_multiplier) != (None, None)
    noisy = private or evaluation.federated_noise_multiplier is not None
    if not noisy or secure.mode == "plain" or rounds.cohort_size < secure.min_group:
        return  # other checks say so
    from testudo_common.plan.secure import WantedNoise, parameters_for

    try:
        parameters_for(secure, rounds, max_norm=1.0, values=1, count_bounds=()).check(rounds.cohort_size)
    except ProtocolError:
        return  # another check says so
    # Where an epsilon asks for the noise, 1 stands in for its multiplier, which the accountant will find.
    multiplier = (client.noise_multiplier or 1.0) if private else 0.0
    adapts = private and client.clipping == "adaptive"
    noise = WantedNoise(multiplier, (2 * client.count_noise,) if adapts else ())
    try:
        parameters_for(secure, rounds, max_norm=1.0, values=1, count_bounds=(2,) if adapts else (), noise=noise).check(
            rounds.cohort_size
        )
    except ProtocolError as error:
        yield Fault("secure_aggregation", error.problem, error.remedy)


def check_federated_evaluation(
    evaluation: EvaluationPlan, calibration: CalibrationPlan, secure: SecureAggregationPlan, privacy: PrivacyPlan
) -> Iterator[Fault]:
    """Sums of metrics are a release: inside a secure sum only, and covered by the account or not made."""
    key, noise = "evaluation.federated_every_rounds", "evaluation.federated_noise_multiplier"
    if evaluation.federated_every_rounds is None:
        if calibration.held_back == 0:
            if evaluation.federated_noise_multiplier is not None:
                yield Fault(noise, "noise on scores that are never asked for", f"Take it out, or add {key}")
            return
        key = "calibration.held_back"
    if secure.mode == "plain":
        yield Fault(key, "it would show the server each client's scores", 'Write secure_aggregation.mode = "secure"')
    if privacy.unit != "none" and evaluation.federated_noise_multiplier is None:
        yield Fault(key, "these sums have no noise, and no account covers them", f"Add {noise}, for example 3.0")
    if privacy.unit == "none" and evaluation.federated_noise_multiplier is not None:
        yield Fault(
            noise,
            "noise on scores alone hides nothing while the updates have none",
            'Take it out, or write privacy.unit = "example"',
        )


def check_calibration(calibration: CalibrationPlan, task: TaskPlan, rounds: RoundsPlan) -> Iterator[Fault]:
    """Newcomers adapt to a table of their own, after others have trained."""
    if calibration.held_back == 0:
        return
    if task.kind == "few_shot":
        yield Fault("calibration.held_back", "episodes have no owner that could adapt to its own", "Take it out")
    if rounds.count < 2:
        yield Fault("calibration.held_back", "nobody would train before the last round", "Raise rounds.count")


def check_evaluation(evaluation: EvaluationPlan) -> Iterator[Fault]:
    """Shots in rising order make the tables and plots readable."""
    if not evaluation.shots:
        yield Fault("evaluation.shots", "no support size to evaluate", "Write, for example, [0, 1, 5, 10]")
    elif list(evaluation.shots) != sorted(set(evaluation.shots)):
        yield Fault("evaluation.shots", "support sizes must rise, each once", "Sort them")


# (sections a check reads, the check); a check runs when all its sections are valid by themselves
CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Fault]]], ...] = (
    (("privacy",), check_privacy),
    (("rounds",), check_rounds),
    (("task",), check_task),
    (("task", "privacy"), check_task_under_privacy),
    (("task", "data"), check_task_fits_data),
    (("model", "task"), check_model_fits_task),
    (("model",), check_model),
    (("student", "model"), check_student),
    (("evaluation",), check_evaluation),
    (("secure_aggregation", "rounds"), check_secure_aggregation),
    (("robust_aggregation",), check_rule),
    (("robust_aggregation", "secure_aggregation", "rounds"), check_robustness),
    (("evaluation", "calibration", "secure_aggregation", "privacy"), check_federated_evaluation),
    (("calibration", "task", "rounds"), check_calibration),
    (("client_privacy", "secure_aggregation", "evaluation", "calibration"), check_client_privacy),
    (("client_privacy", "evaluation", "secure_aggregation", "rounds"), check_noise_of_sums),
)


def cross_faults(sections: Mapping[str, object]) -> list[Fault]:
    """Every fault across the sections given; a check whose sections are not all there is passed over."""
    return [
        fault
        for names, check in CHECKS
        if all(name in sections for name in names)
        for fault in check(*(sections[name] for name in names))
    ]
