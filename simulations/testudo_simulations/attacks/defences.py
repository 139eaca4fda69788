"""Defences by name, as changes to a plan: ``dedupe+nnm+trimmed_mean+unshared_head``, ``mean+tasks=4``, ``groups=3``.

A defence is nothing but what a plan can switch on: a robust rule, a head that is not shared, several tasks a client
and round, and the groups of secure aggregation.
"""

from __future__ import annotations

from dataclasses import dataclass

from testudo_common.errors import UsageError
from testudo_common.plan import FederationPlan
from testudo_common.robustness.names import PRE_AGGREGATORS, RULES

RECOMMENDED = "recommended"
_HEAD = "unshared_head"
_REMEDY = (
    f"join by + any of {', '.join(PRE_AGGREGATORS)} and then one of {', '.join(RULES)} or {RECOMMENDED}, "
    f"{_HEAD}, tasks=K, groups=M; such as dedupe+nnm+trimmed_mean+{_HEAD}"
)


@dataclass(frozen=True, slots=True)
class Defence:
    """What a plan switches on against poison.

    Attributes:
        name: As it was written.
        rule: None for the one that is recommended.
        unshared_head: Whether the head stays with the client; None leaves it to the plan.
        tasks: Tasks a client and round; None leaves it to the plan.
        group_size: Clients a group of secure aggregation; None: the plain exchange.
    """

    name: str
    rule: tuple[str, ...] | None
    unshared_head: bool | None = None
    tasks: int | None = None
    group_size: int | None = None


def parse_defence(text: str) -> Defence:
    """A defence from its name.

    Raises:
        UsageError: It is none.
    """
    rule: list[str] = []
    recommended, head, tasks, group_size = False, None, None, None
    for token in text.split("+"):
        key, equals, value = token.strip().partition("=")
        number = int(value) if value.isdigit() and int(value) > 0 else None
        if equals and number is None:
            raise UsageError(f"{token!r} in the defence {text!r} has no number", remedy=_REMEDY)
        if key == _HEAD and not equals:
            head = True
        elif key == "tasks" and equals:
            tasks = number
        elif key == "groups" and equals:
            group_size = number
        elif key == RECOMMENDED and not equals:
            recommended = True
        elif key in (*PRE_AGGREGATORS, *RULES) and not equals:
            rule.append(key)
        else:
            raise UsageError(f"{token!r} in the defence {text!r} is unknown", remedy=_REMEDY)
    if recommended == bool(rule):
        raise UsageError(f"the defence {text!r} needs one rule", remedy=_REMEDY)
    return Defence(text, None if recommended else tuple(rule), head, tasks, group_size)


def settings_of(defence: Defence, plan: FederationPlan, poisoned: int, clients: int) -> list[str]:
    """The changes to a plan, as ``section.key=value``, that switch a defence on against ``poisoned`` of ``clients``.

    The mean stays what it is: a mean, which assumes nobody poisoned. Groups need not spare anybody for dropouts, since
    in a matrix nobody drops out.
    """
    plain = defence.group_size is None
    undefended = defence.rule == ("mean",) or poisoned == 0
    share = 0.0 if undefended else (poisoned + 0.25) / clients  # the floor of share * clients is poisoned again
    settings = [
        f'secure_aggregation.mode="{"plain" if plain else "secure"}"',
        f"robust_aggregation.corruption={share!r}",
        f"rounds.cohort_size={clients}",
    ]
    if not plain:
        settings += [f"secure_aggregation.group_size={defence.group_size}", "secure_aggregation.dropout=0"]
        settings += [f"secure_aggregation.min_group={min(plan.secure_aggregation.min_group, defence.group_size or 3)}"]
    rule = None if undefended else defence.rule
    listed = "none" if rule is None else "[" + ", ".join(f'"{name}"' for name in rule) + "]"
    settings.append(f"robust_aggregation.rule={listed}")
    if defence.unshared_head is not None:
        settings.append(f"model.unshared_head={str(defence.unshared_head).lower()}")
    if defence.tasks is not None:
        settings.append(f"task.tasks_per_client={defence.tasks}")
    return settings


def clean_of(defence: Defence) -> str:
    """The name of what a defence is held against: the plain mean, nobody poisoned, with the same head and tasks."""
    head = [_HEAD] if defence.unshared_head else []
    tasks = [f"tasks={defence.tasks}"] if defence.tasks is not None else []
    return "+".join(["mean", *head, *tasks])
