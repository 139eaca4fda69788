"""What a test of a rule of the audit log is made of: a log, an entry that breaks it, and its valid neighbour."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from audit_logs import PLAIN, AuditLogBuilder, audited_plan
from testudo_common.audit import history
from testudo_common.audit.history import begin_history, extend
from testudo_common.errors import AuditError, AuditFault

Step = Callable[[AuditLogBuilder], object]
"""Appends entries to a log."""


def nothing(_log: AuditLogBuilder) -> None:
    """Appends none."""


@dataclass(frozen=True)
class Case:
    """A log to which something is appended: ``wrong`` breaks the rule with its last entry, ``right`` does not.

    Attributes:
        fault: Of the wrong one.
        problem: Words of its sentence.
        wrong: Breaks the rule.
        right: The neighbour.
        before: What the log holds before.
        settings: Of the plan.
        tables: Of the plan.
        enrol: Whether the log begins with charter, enrolment and everybody's approval.
    """

    fault: AuditFault
    problem: str
    wrong: Step
    right: Step
    before: Step = nothing
    settings: tuple[str, ...] = ()
    tables: Mapping[str, Any] | None = None
    enrol: bool = True

    def log(self) -> AuditLogBuilder:
        """As it is before."""
        log = AuditLogBuilder(audited_plan(*self.settings, tables=self.tables or PLAIN), enrol=self.enrol)
        self.before(log)
        assert log.history.size == len(log.entries), "what is there before breaks no rule"
        return log

    def check_wrong(self) -> None:
        """The fault is found at the last entry, with its word and its sentence; and no earlier one is."""
        log = self.log()
        self.wrong(log)
        last = len(log.entries) - 1
        good = extend(begin_history(log.federation_public, log.plan.digest), tuple(log.entries[:last]))
        with pytest.raises(AuditError) as found:
            extend(good, (log.entries[last],))
        assert (found.value.fault, found.value.index) == (self.fault, last)
        assert self.problem in str(found.value)
        assert f"entry {last}" in str(found.value)
        assert good.size == last, "what was there stays as it was"

    def check_right(self) -> None:
        """No rule is broken."""
        log = self.log()
        before = len(log.entries)
        self.right(log)
        assert log.history.size == len(log.entries) >= before


def do(*steps: Step) -> Step:
    """One after the other."""

    def all_of_them(log: AuditLogBuilder) -> None:
        for step in steps:
            step(log)

    return all_of_them


def call(name: str, *args: Any, **said: Any) -> Step:
    """A method of the builder."""

    def step(log: AuditLogBuilder) -> None:
        getattr(log, name)(*args, **said)

    return step


def assert_needed(module: ModuleType, rule: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule, what breaks it passes."""
    case.check_wrong()

    def passes(*_args: object) -> None:
        """Finds no fault."""

    def all_but_it(one: Callable[..., None], *args: object) -> None:
        if one.__name__ != rule:
            one(*args)

    monkeypatch.setattr(module, rule, passes)
    monkeypatch.setattr(history, "_apply", all_but_it)
    extend.cache_clear()  # it does not know that the rules are others now
    try:
        log = case.log()
        case.wrong(log)
        assert log.history.size == len(log.entries)
    finally:
        extend.cache_clear()


def rules_in(module: ModuleType) -> set[str]:
    """The names of a module's rules: its public functions."""
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
