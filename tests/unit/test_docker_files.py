"""The files in docker/: they parse, harden what they promise, and each command line is one that our programs take.

No engine is needed: nothing is built and nothing is started.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

import testudo_client.cli
import testudo_server.cli
import testudo_server.deployment.healthcheck

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PROGRAMS = {
    "testudo-server": testudo_server.cli.app,
    "testudo-client": testudo_client.cli.app,
    "testudo_server.deployment.healthcheck": testudo_server.deployment.healthcheck.app,
}
README = (DOCKER / "README.md").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILE = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE))


def parses(words: list[str]) -> None:
    """Raise unless a program of ours takes these words."""
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    command, rest = typer.main.get_command(PROGRAMS[Path(words[0]).name]), words[1:]
    if rest == ["--help"]:
        return
    context = command.make_context(words[0], list(rest)) if isinstance(command, click.Group) else None
    if context is None:
        command.make_context(words[0], list(rest))
        return
    assert isinstance(command, click.Group)
    name, found, left = command.resolve_command(context, list(rest))
    assert found is not None
    found.make_context(name, left, parent=context)


def in_shell(text: str) -> Iterator[list[str]]:
    """Command lines of our programs in a shell script or in an indented block of Markdown."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        found = re.search(r"(?:^\s*|\$\()(testudo-(?:server|client) [^|#)]*)", line)
        if found and "=" not in found[1].split()[0]:
            yield shlex.split(found[1].replace("$told", "told"))


def manifests() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    for name, service in COMPOSE["services"].items():
        if service["build"]["target"] != "rehearsal":
            yield f"compose {name}", [f"testudo-{service['build']['target']}", *service["command"]]
    for found in re.findall(r"^(?:HEALTHCHECK .*|ENTRYPOINT.*)$", DOCKERFILE, re.MULTILINE):
        words = list(yaml.safe_load(found[found.index("[") :]))
        if words != ["prepare"]:
            yield f"Dockerfile {words[-1]}", [*words, "--help"] if len(words) == 1 else words
    for path in (DOCKER / "systemd").glob("*.service"):
        started = re.search(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
        assert started is not None
        yield path.name, shlex.split(started[1])
    for words in in_shell((DOCKER / "prepare.sh").read_text()):
        yield f"prepare.sh {words[1]}", words
    for words in in_shell(README):
        yield f"README {words[1]}", words
    for manifest in manifests():
        if manifest["kind"] == "StatefulSet":
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            yield f"{manifest['metadata']['name']} args", [f"testudo-{container['name']}", *container["args"]]
            for probe in ("livenessProbe", "readinessProbe"):
                if "exec" in container.get(probe, {}):
                    yield f"{manifest['metadata']['name']} {probe}", container[probe]["exec"]["command"]


LINES = list(command_lines())


@pytest.mark.parametrize("words", [words for _, words in LINES], ids=[name for name, _ in LINES])
def test_every_command_line_is_one_that_our_programs_take(words: list[str]) -> None:
    parses(words)


def test_a_command_line_that_they_do_not_take_is_noticed() -> None:
    for words in (["testudo-client", "run", "a", "--plan", "b"], ["testudo-client", "walk"], ["testudo-server", "run",
                  "a", "b", "--out", "c", "--listn", "x"]):  # fmt: skip
        with pytest.raises(click.UsageError):
            parses(words)


def test_all_kinds_of_command_lines_were_found() -> None:
    found = {name.split()[0] for name, _ in LINES}
    assert {
        "compose",
        "Dockerfile",
        "prepare.sh",
        "README",
        "testudo-client.service",
        "testudo-server.service",
    } <= found
    steps = [name.split()[1] for name, _ in LINES if name.startswith("prepare.sh")]
    assert steps == ["init", "invite", "join", "admit", "install", "approve"]
    assert len(LINES) >= 25


@pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])
def test_every_service_is_without_rights_and_without_a_way_out(service: dict[str, Any]) -> None:
    known = {
        "image", "build", "command", "read_only", "user", "cap_drop", "security_opt", "tmpfs", "init", "pids_limit",
        "mem_limit", "stop_grace_period", "networks", "network_mode", "volumes", "depends_on", "restart",
    }  # fmt: skip
    assert set(service) <= known
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")
    assert "ports" not in service and "privileged" not in service
    assert service.get("network_mode") == "none" or service["networks"] == ["federation"]
    for volume in service["volumes"]:
        name, path = volume.split(":")
        assert name in COMPOSE["volumes"] and path.startswith("/data/")
    for needed, how in service.get("depends_on", {}).items():
        assert needed in COMPOSE["services"] and how == {"condition": "service_completed_successfully"}
    assert f"FROM runtime AS {service['build']['target']}\n" in DOCKERFILE
    assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")


def test_owners_share_nothing_and_the_network_leads_nowhere() -> None:
    assert COMPOSE["networks"] == {"federation": {"internal": True}}
    owners = {name: each for name, each in COMPOSE["services"].items() if name.startswith("shop-")}
    assert len(owners) == 3
    assert [each["volumes"] for each in owners.values()] == [[f"{name}:/data/owner"] for name in owners]
    assert not any(volume.startswith("shop-") for volume in COMPOSE["services"]["server"]["volumes"])


def test_the_status_is_never_listened_to_from_elsewhere() -> None:
    for name, words in LINES:
        for option in ("--status", "--health"):
            if option in words:
                assert words[words.index(option) + 1].startswith("127.0.0.1:"), name


def test_images_run_as_a_user_without_rights_from_a_pinned_base() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    by_name = {stage.split("\n")[0].split(" AS ")[1]: stage for stage in stages}
    assert "python:${PYTHON_TAG}${PYTHON_DIGEST}" in by_name["base"]
    assert re.search(r"^ARG PYTHON_TAG=3\.12-slim", DOCKERFILE, re.MULTILINE)
    for name in ("runtime", "rehearsal"):
        assert re.findall(r"^USER (.*)$", by_name[name], re.MULTILINE)[-1] == "10001:10001"
    for name in ("server", "client"):
        assert "USER" not in by_name[name]
        assert f'ENTRYPOINT ["testudo-{name}"]' in by_name[name]
        assert "HEALTHCHECK" in by_name[name]
    assert "pip" not in by_name["runtime"]
    assert DOCKERFILE.count("-c /source/constraints.txt") == 2
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for each in source.split():
            assert (DOCKER.parent / each).exists(), each
            assert f"!{each}" in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()


def test_manifests_ask_for_no_rights() -> None:
    found = manifests()
    assert [each["kind"] for each in found] == ["StatefulSet", "NetworkPolicy"] * 2
    for sets in (each for each in found if each["kind"] == "StatefulSet"):
        pod = sets["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {claim["metadata"]["name"] for claim in sets["spec"]["volumeClaimTemplates"]}
        assert mounted == claimed | {volume["name"] for volume in pod["volumes"]}
        assert sets["spec"]["replicas"] == 1
    for policy in (each for each in found if each["kind"] == "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("unit", ["testudo-client.service", "testudo-server.service"])
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine to look at the units")
    text = (DOCKER / "systemd" / unit).read_text()
    assert "NoNewPrivileges=yes" in text and "ProtectSystem=strict" in text and "CapabilityBoundingSet=\n" in text
    (tmp_path / unit).write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in verified.stderr.splitlines() if unit in line] == []
