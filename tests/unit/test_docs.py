"""The documentation tells the truth about the code: every key of a plan with its description, every link a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, DataPlan, Section

ROOT = Path(__file__).resolve().parents[2]
SECTIONS: dict[str, type[Section]] = {
    **{
        name: field.annotation
        for name, field in FederationPlan.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    },
    **{member.model_fields["federation"].default: member for member in get_args(get_args(DataPlan)[0])},
    "[data.columns]": Column,
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_plan_is_documented_as_the_code_describes_it(name: str) -> None:
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    found = re.search(rf"^###? \[?{re.escape(name)}\]?\]?\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, name
    for key, field in SECTIONS[name].model_fields.items():
        assert f"| `{key}` |" in found.group(1), key
        assert (field.description or "") in found.group(1), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_names_every_scenario_and_command() -> None:
    from testudo_simulations.scenarios import scenario_names

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in [*scenario_names(), "testudo-simulate", "testudo-server", "testudo-client"]:
        assert name in readme, name


@pytest.mark.parametrize(("package", "arguments"), [("simulations", "run"), ("client", "check"), ("server", "check")])
def test_help_describes_every_argument_and_shows_an_example(package: str, arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"testudo_{package}.cli", arguments, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = " ".join(done.stdout.split())
    assert "Example: testudo-" in shown
    assert re.search(r"\* plan (TEXT|FILE|PATH) (A scenario|The )", shown), done.stdout
