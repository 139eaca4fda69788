"""A policy's file: only its owner's, only a policy, and every fault at once. What is not there allows nothing."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from policies import make_policy, policy_tables, write_policy
from testudo_client.policy.load import MAX_POLICY_BYTES, load_policy, parse_policy
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.errors import PolicyError


def faults_of(path: Path) -> dict[str, str]:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert caught.value.where == str(path)
    assert all(fault.remedy for fault in caught.value.faults)
    return {fault.key: fault.problem for fault in caught.value.faults}


def test_policy_of_a_file(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "policy.toml"))
    assert policy == make_policy()
    assert policy.dates.not_after == date(2026, 12, 31)
    assert policy.metrics.statistics == ()
    assert policy.aggregation.secure
    assert not policy.aggregation.weighted
    assert policy.log.ship == "never"


def test_digest_names_the_policy_with_its_defaults() -> None:
    assert make_policy().digest == make_policy("metrics.statistics=[]", "aggregation.secure=true").digest
    assert make_policy().digest != make_policy("metrics.min_cell=11").digest


def test_no_policy_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "policy.toml")
    assert str(caught.value) == (
        f"{tmp_path / 'policy.toml'}: there is no policy\n"
        f"  - (whole file): no policy, so nothing is allowed. Make one with testudo-client init {tmp_path}"
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    path = write_policy(tmp_path / "policy.toml")
    path.chmod(mode)
    assert "others may write it" in faults_of(path)[""]
    path.chmod(0o644)
    assert load_policy(path) == make_policy()


def test_folder_in_which_others_may_replace_it(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "policy.toml")
    tmp_path.chmod(0o777)
    assert "others may replace it" in faults_of(path)[""]
    tmp_path.chmod(0o755)
    assert load_policy(path) == make_policy()


def test_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_policy(tmp_path / "policy.toml")
    os.chown(path, 12345, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if os.geteuid() != 0 and path.stat().st_uid == 0:
        pytest.skip("a file of root's is trusted")
    assert "belongs to somebody else" in faults_of(path)[""]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"version = ", "not TOML"),
        (b"version = '\xff'", "not UTF-8"),
        (b"a = " + b"[" * 5000, "not TOML|nested too deeply"),
        (b"#" * (MAX_POLICY_BYTES + 1), "larger than"),
    ],
    ids=["cut off", "not text", "nested", "large"],
)
def test_file_that_is_no_policy(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(PolicyError, match=problem):
        load_policy(path)


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").mkdir()
    assert faults_of(tmp_path / "policy.toml")[""].startswith("cannot be read")


def test_every_fault_at_once() -> None:
    tables = policy_tables("aggregation.min_chort=1", 'model.max_bytes="4"', "version=2", "pins.code=none", "extra=1")
    with pytest.raises(PolicyError) as caught:
        parse_policy(tables, source="policy.toml")
    keys = {fault.key: fault for fault in caught.value.faults}
    assert set(keys) == {"aggregation.min_chort", "model.max_bytes", "version", "pins.code", "extra"}
    assert keys["aggregation.min_chort"].remedy == "Did you mean 'min_cohort'?"
    assert "of one update" in keys["model.max_bytes"].remedy
    assert "digest of the installed" in keys["pins.code"].remedy
    assert str(caught.value).startswith("policy.toml: 5 faults in the policy\n")


@pytest.mark.parametrize(
    "section", ["version", "client", "privacy", "aggregation", "model", "pins", "dates"]
)  # what is left out of the others is closed
def test_what_opens_something_must_be_written(section: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy_tables(f"{section}=none"), source="a test")
    assert [(fault.key, fault.problem) for fault in caught.value.faults] == [(section, "missing")]


def test_an_empty_file_is_no_policy() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy({}, source="a test")
    needed = {name for name, field in OwnerPolicy.model_fields.items() if field.is_required()}
    assert {fault.key for fault in caught.value.faults} == needed


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ('privacy.example.epsilon_per_run="8"', "privacy.example.epsilon_per_run"),
        ("privacy.example.epsilon_per_run=true", "privacy.example.epsilon_per_run"),
        ("privacy.example.epsilon_per_run=nan", "privacy.example.epsilon_per_run"),
        ("privacy.example.epsilon_for_life=inf", "privacy.example.epsilon_for_life"),
        ("privacy.example.epsilon_per_run=0.0", "privacy.example.epsilon_per_run"),
        ("privacy.example.epsilon_per_run=10.5", "privacy.example"),
        ("privacy.example.delta=0.0", "privacy.example.delta"),
        ("privacy.example.delta=0.5", "privacy.example.delta"),
        ('privacy.example.accountant="gdp"', "privacy.example.accountant"),
        ("privacy.none=true", "privacy"),
        ("privacy={}", "privacy"),
        ("privacy={none = false}", "privacy"),
        ('privacy={none = "true"}', "privacy.none"),
        ("aggregation.min_group=2", "aggregation.min_group"),
        ("aggregation.min_group=11", "aggregation"),
        ("aggregation.min_cohort=10.0", "aggregation.min_cohort"),
        ("aggregation.secure=0", "aggregation.secure"),
        ('model.allowed="linear"', "model.allowed"),
        ('model.allowed=["resnet"]', "model.allowed.0"),
        ('model.allowed=["*"]', "model.allowed.0"),
        ("model.max_bytes=0", "model.max_bytes"),
        ('model.tensors=[{name = "w", shape = [-1]}]', "model.tensors.0.shape.0"),
        ('model.tensors=[{name = "w", shape = [1], dtype = "float64"}]', "model.tensors.0.dtype"),
        ('metrics.statistics=["loss"]', "metrics.statistics.0"),
        ("metrics.min_noise_multiplier=0.0", "metrics.min_noise_multiplier"),
        ('pins.code="none"', "pins.code"),
        ('pins.code=["any"]', "pins.code.0"),
        (f'pins.code=["{"A" * 64}"]', "pins.code.0"),
        ("dates.not_after=2025-12-31", "dates"),
        ("dates.not_after=12:00:00", "dates.not_after"),
        ('dates.not_after="never"', "dates.not_after"),
        ('log.ship="always"', "log.ship"),
        ('client=""', "client"),
        ("client=3", "client"),
        ("privacy.exampel={epsilon = 1.0}", "privacy.exampel"),
    ],
)
def test_wrong_value_is_a_fault_at_its_key(setting: str, key: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy_tables(setting), source="a test")
    assert [fault.key for fault in caught.value.faults] == [key]
    assert caught.value.faults[0].remedy
