"""The house's rules: ``--help`` imports nothing slow, files name no machine, packaging tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {
    "common": "common/testudo_common",
    "client": "client/testudo_client",
    "server": "server/testudo_server",
    "simulations": "simulations/testudo_simulations",
}
SLOW = ("torch", "flwr", "opacus", "matplotlib", "sklearn", "ray")

HELP_PROBE = """
import importlib, sys
sys.path[:0] = {paths}
cli = importlib.import_module({module!r})
assert callable(cli.main)
from typer.testing import CliRunner
shown = CliRunner().invoke(cli.app, ["--help"])
assert shown.exit_code == 0, shown.output
assert "--help" in shown.output, shown.output
print("loaded:", *sorted(set({slow}) & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["testudo_server.cli", "testudo_client.cli", "testudo_simulations.cli"])
def test_help_imports_nothing_slow(module: str, tmp_path: Path) -> None:
    """A new interpreter, since this one may have loaded torch for other tests."""
    probe = HELP_PROBE.format(paths=[str(ROOT / top) for top in PACKAGES], module=module, slow=SLOW)
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].split() == ["loaded:"], f"{module} --help imports what is slow: {ran.stdout}"


IMPORT_PROBE = """
import importlib, sys
sys.path[:0] = {paths}
for name in {modules}:
    importlib.import_module(name)
print("loaded:", *sorted(set({slow}) & set(sys.modules)))
"""
SECAGG = [
    f"testudo_common.secagg.{path.stem}"
    for path in sorted((ROOT / "common/testudo_common/secagg").glob("*.py"))
    if path.stem != "__init__"
]
# What is imported together -> what of the slow it must not load.
LIGHT: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "the protocol": (SECAGG, (*SLOW, "pydantic", "rfc8785", "safetensors")),
    "keys and roster": (["testudo_common.key_files", "testudo_common.roster", "testudo_server.roster"], SLOW),
    "the planner": (["testudo_common.robustness", "testudo_common.robustness.remedy"], (*SLOW, "pydantic", "scipy")),
    "the wire": (["testudo_common.wire", "testudo_common.signed_replies"], SLOW),
    "terms": (["testudo_common.secure_terms"], SLOW),
    "the server's exchange": (["testudo_server.secure_exchange", "testudo_server.strikes"], SLOW),
    "the server's log": (["testudo_server.log_journal", "testudo_server.audit_command"], (*SLOW, "scipy")),
    "the member": (["testudo_client.membership"], SLOW),
    "the member's sessions": (["testudo_client.secure_side"], SLOW),
    "the owner's ledger": (["testudo_client.ledger", "testudo_client.ledger_command"], SLOW),
    "joining": (
        [
            "testudo_server.provisioning.admission",
            "testudo_server.provisioning.members",
            "testudo_client.provisioning.installing",
        ],
        SLOW,
    ),
    "the owner's policy": (["testudo_client.policy.check", "testudo_client.policy.load"], SLOW),
    "the owner's consent": (["testudo_client.consent", "testudo_client.preview", "testudo_client.init_command"], SLOW),
    "the owner's table": (["testudo_client.quality.inspection", "testudo_client.watching.drift"], (*SLOW, "scipy")),
    "the audit log": (["testudo_common.audit.verify", "testudo_common.audit.receipts"], (*SLOW, "scipy")),
    "the audit of a log": (["testudo_client.audit_command"], (*SLOW, "scipy")),
    "the owner's witness": (["testudo_client.witness", "testudo_client.observer"], SLOW),
    "the member's scores": (
        ["testudo_client.evaluate"],
        ("opacus", "torch._dynamo", "flwr", "matplotlib", "sklearn", "ray"),
    ),
}


@pytest.mark.parametrize("name", LIGHT)
def test_secure_aggregation_imports_nothing_slow(name: str, tmp_path: Path) -> None:
    """It is to be read, checked and run without the rest: by an auditor, or on a machine that trains nothing."""
    modules, slow = LIGHT[name]
    assert modules
    probe = IMPORT_PROBE.format(paths=[str(ROOT / top) for top in PACKAGES], modules=modules, slow=slow)
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["loaded:"]


# Spelled in parts, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["wor" + "k", "roo" + "t", "hom" + "e"]) + r")/")
REGISTRY_HOST = re.compile(
    "|".join(
        [
            "pypi" + r"\.org",
            "pythonhosted" + r"\.org",
            "download" + r"\.pytorch\.org",
            "registry" + r"\.npmjs\.org",
        ]
    )
)


def names_a_machine(text: str) -> list[str]:
    """Return what in ``text`` is an absolute path of somebody's machine, or a package registry's host."""
    return [found.group() for pattern in (MACHINE_PATH, REGISTRY_HOST) for found in pattern.finditer(text)]


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "home/ada/plan.toml",
        "'/" + "root/.cache'",
        "(/" + "work/x)",
        "--index-url https://pypi" + ".org/simple",
    ],
)
def test_a_machines_name_is_found(text: str) -> None:
    assert names_a_machine(text)


@pytest.mark.parametrize("text", ["docs/" + "home/page.md", "make" + "work/", "the pypi name", "~/" + "work/"])
def test_other_text_is_left_alone(text: str) -> None:
    assert not names_a_machine(text)


def test_no_file_names_a_machine() -> None:
    """Of what git tracks or is about to; an exported tree without git has no such list."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [
            "git",
            "-c",
            f"safe.directory={ROOT}",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name.endswith((".md", ".py", ".toml", "Makefile", ".ci/run"))]
    assert ROOT / "pyproject.toml" in files
    read = {file: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    assert not {str(file.relative_to(ROOT)): found for file, text in read.items() if (found := names_a_machine(text))}


def test_the_wheel_holds_the_four_packages() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["packages"]) == sorted(PACKAGES.values())
    assert sorted(wheel["dev-mode-dirs"]) == sorted(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES.values())
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


ENTRY_POINTS = [
    EntryPoint(name=name, value=value, group=group)
    for group, entries in {
        "console_scripts": PYPROJECT["project"]["scripts"],
        **PYPROJECT["project"]["entry-points"],
    }.items()
    for name, value in entries.items()
]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS, ids=lambda entry_point: entry_point.name)
def test_every_entry_point_resolves(entry_point: EntryPoint) -> None:
    assert callable(entry_point.load())


def pins() -> dict[str, str]:
    """Return canonical name -> version; a line of constraints.txt is ``name==version`` and nothing else."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    names = [canonicalize_name(name) for name, _ in pairs]
    assert names == sorted(set(names)), "sorted, each name once"
    return dict(zip(names, (version for _, version in pairs), strict=True))


REQUIREMENTS = [
    *PYPROJECT["build-system"]["requires"],
    *PYPROJECT["project"]["dependencies"],
    *(
        text
        for extra in ("dev", "ray", "export", "monitor", "bench")
        for text in PYPROJECT["project"]["optional-dependencies"][extra]
    ),
]


@pytest.mark.parametrize("text", ["torch==2.13.0", *REQUIREMENTS])
def test_every_dependency_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    version = pins()[canonicalize_name(requirement.name)]
    assert re.fullmatch(r"[0-9][0-9a-z.]*", version), "no local version: it exists on one machine only"
    assert requirement.specifier.contains(version)


def test_the_oracle_is_pinned_and_brings_nothing() -> None:
    """ByzFL's torchvision crashes beside a CPU build of torch."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(INSTALL) --no-deps byzfl" in makefile
    assert pins()["byzfl"] == "0.0.11"
    assert not any(Requirement(text).name == "byzfl" for text in REQUIREMENTS)
