"""docs/policy.md tells the truth: every key with its description, in its section, and every section that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testudo_client.policy import sections
from testudo_client.policy.sections import OwnerPolicy, Rules

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[Rules]] = {
    "[privacy]": sections.PrivacyRules,
    "[privacy.example]": sections.ExampleLimits,
    "[privacy.client]": sections.ClientLimits,
    "[aggregation]": sections.AggregationRules,
    "[model]": sections.ModelRules,
    "[[model.tensors]]": sections.TensorRule,
    "[metrics]": sections.MetricRules,
    "[audit]": sections.AuditRules,
    "[pins]": sections.PinRules,
    "[dates]": sections.DateRules,
    "[log]": sections.LogRules,
    "[ledger]": sections.LedgerRules,
}


def text_of(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found.group(1)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_as_the_code_describes_it(heading: str) -> None:
    text = text_of(heading)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(SECTIONS[heading].model_fields)
    for key, field in SECTIONS[heading].model_fields.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{key}` |"))
        assert field.description, key
        assert row.endswith(f"| {field.description} |")
        assert ("| needed |" in row) == field.is_required(), key


def test_no_section_is_left_out() -> None:
    kinds = {kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, Rules)}
    assert kinds - {Rules, sections.UnitLimits, OwnerPolicy} == set(SECTIONS.values())
    named = {heading.strip("[]") for heading in SECTIONS}
    assert set(OwnerPolicy.model_fields) <= named | {"version", "client"}
    assert set(re.findall(r"^\| `(\w+)` \|", text_of("Top level"), re.MULTILINE)) == {"version", "client"}


def test_the_commands_on_the_page_exist() -> None:
    from testudo_client.cli import app

    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"^    testudo-client (\w+)", PAGE, re.MULTILINE)) <= names
