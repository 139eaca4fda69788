"""The owner's commands: a folder, a preview, an approval, a withdrawal, a log. Wrong inputs end in one sentence."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from test_membership import collect, join
from typer.testing import CliRunner

from policies import make_home, private_plan, write_policy
from testudo_client import cli
from testudo_client.approve_command import approve_plan
from testudo_client.consent import OwnerConsent
from testudo_client.home import OwnerHome
from testudo_client.ledger import Occasion, Purpose
from testudo_client.ledger.planned import round_spending
from testudo_client.policy.load import load_policy
from testudo_common.app_bundle import bundle_digest
from testudo_common.errors import ApprovalError, DataError, KeyFileError, PolicyError, TestudoError, UsageError
from testudo_common.key_files import public_hex
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_server.roster import admit

OPEN = ("dates.not_after=2999-12-31",)


def run(*arguments: object, answers: str | None = None) -> Result:
    """A command as typed; an error of ours is raised, as it is on its way to its one sentence."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=answers)
    if isinstance(result.exception, TestudoError):
        raise result.exception
    return result


def answer_of(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def plan_file(folder: Path, *settings: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(dump_plan(private_plan(*settings)))
    return path


@pytest.fixture
def home(tmp_path: Path) -> OwnerHome:
    return make_home(tmp_path / "own", *OPEN)


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "at_a_terminal", lambda: True)


# --- init


def test_init_makes_a_key_and_a_strict_policy(tmp_path: Path) -> None:
    made = answer_of("init", tmp_path / "own", "--client", "ada")
    home = OwnerHome(tmp_path / "own")
    assert made["public_key"] == public_hex(home.key())
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert home.policy_file.stat().st_mode & 0o777 == 0o600
    policy = home.policy()
    assert made["policy_digest"] == policy.digest
    assert policy.client == "ada"
    assert policy.aggregation.secure
    assert policy.metrics.statistics == ()
    assert policy.pins.federation_key == (), "no federation is trusted yet"
    assert policy.pins.code == (policy.pins.code[0],)
    assert (policy.dates.not_after - policy.dates.not_before).days == 365


def test_init_takes_its_options(tmp_path: Path) -> None:
    run(
        "init", tmp_path / "own", "--yes", "--client", 'a "b" \\ ü', "--epsilon-per-run", 2, "--epsilon-for-life", 3,
        "--delta", "1e-6", "--min-cohort", 20, "--min-group", 5, "--max-participations", 7, "--model", "linear",
        "--model", "pack.age:make", "--max-bytes", 1000, "--days", 30, "--anchor", tmp_path / "other disk" / "anchor",
    )  # fmt: skip
    policy = load_policy(tmp_path / "own" / "policy.toml")
    example = policy.privacy.example
    assert example is not None
    assert policy.client == 'a "b" \\ ü'
    assert (example.epsilon_per_run, example.epsilon_for_life, example.delta) == (2.0, 3.0, 1e-6)
    assert (policy.aggregation.min_cohort, policy.aggregation.min_group) == (20, 5)
    assert policy.aggregation.max_participations == 7
    assert (policy.model.allowed, policy.model.max_bytes) == (("linear", "pack.age:make"), 1000)
    assert policy.ledger.anchors == (str(tmp_path / "other disk" / "anchor"),)
    assert (policy.dates.not_after - policy.dates.not_before).days == 30


def test_init_without_privacy_must_be_said(tmp_path: Path) -> None:
    run("init", tmp_path / "own", "--yes", "--client", "ada", "--no-privacy")
    assert load_policy(tmp_path / "own" / "policy.toml").privacy.none


def test_init_asks_what_only_the_owner_knows(tmp_path: Path) -> None:
    answers = "ada\n4.0\n6.0\n1e-6\n12\nlinear, mlp\n\n"
    result = run("init", tmp_path / "own", answers=answers)
    assert result.exit_code == 0, result.output
    policy = load_policy(tmp_path / "own" / "policy.toml")
    assert policy.privacy.example is not None
    assert (policy.client, policy.privacy.example.epsilon_per_run, policy.privacy.example.delta) == ("ada", 4.0, 1e-6)
    assert policy.aggregation.max_participations == 12
    assert policy.model.allowed == ("linear", "mlp")
    assert policy.pins.federation_key == ()
    assert "Its public half" in result.stdout


@pytest.mark.parametrize("told", [True, False])
def test_init_pins_the_federation_only_once_it_was_compared(tmp_path: Path, told: bool) -> None:
    join(tmp_path / "server", tmp_path / "own", "ada")
    result = run("init", tmp_path / "own", answers=f"ada\n\n\n\n\n\n{'y' if told else 'n'}\n")
    assert result.exit_code == 0, result.output
    key = (tmp_path / "own" / "federation.pub").read_text().strip()
    assert key in result.stdout
    assert load_policy(tmp_path / "own" / "policy.toml").pins.federation_key == ((key,) if told else ())


def test_init_never_overwrites(tmp_path: Path) -> None:
    run("init", tmp_path / "own", "--yes", "--client", "ada")
    before = {path: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    with pytest.raises(UsageError, match="not overwritten"):
        run("init", tmp_path / "own", "--yes", "--client", "eve")
    assert {path: path.read_bytes() for path in (tmp_path / "own").iterdir()} == before


def test_init_keeps_a_key_that_is_there(tmp_path: Path) -> None:
    made = answer_of("init", tmp_path / "own", "--client", "ada")
    (tmp_path / "own" / "policy.toml").unlink()
    assert answer_of("init", tmp_path / "own", "--client", "ada")["public_key"] == made["public_key"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--yes",), UsageError),
        (("--yes", "--client", ""), PolicyError),
        (("--yes", "--client", "a\nb"), PolicyError),
        (("--yes", "--client", "ada", "--epsilon-per-run", "11"), PolicyError),
        (("--yes", "--client", "ada", "--delta", "nan"), PolicyError),
        (("--yes", "--client", "ada", "--model", "resnet"), PolicyError),
        (("--yes", "--client", "ada", "--min-group", "11"), PolicyError),
        (("--yes", "--client", "ada", "--federation-key", "abc"), KeyFileError),
    ],
)
def test_init_with_wrong_options_makes_nothing(
    tmp_path: Path, options: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run("init", tmp_path / "own", *options)
    assert not (tmp_path / "own").exists()


def test_init_with_another_key_than_the_folders(tmp_path: Path) -> None:
    join(tmp_path / "server", tmp_path / "own", "ada")
    with pytest.raises(UsageError, match="is another one"):
        run("init", tmp_path / "own", "--yes", "--client", "ada", "--federation-key", "ab" * 32)


# --- preview


def test_preview_of_an_allowed_plan(tmp_path: Path, home: OwnerHome) -> None:
    found = answer_of("preview", plan_file(tmp_path), home.folder)
    assert found["allowed"]
    assert not found["approved"]
    assert all(rule["allowed"] for rule in found["rules"])
    leaves = found["leaves"]
    assert (leaves["update_values"], leaves["rounds_at_most"], leaves["attempts_a_round_at_most"]) == (8, 5, 5)
    (rounds,) = leaves["rounds"].values()
    up = [message["bytes"] for message in rounds["messages"] if message["up"]]
    only_watched = 15 * 5  # attempts at rounds that somebody else takes part in
    assert leaves["bytes_up_at_most"] == 25 * sum(up) + only_watched * up[0]
    assert rounds["messages"][1]["message"] == "Witnessed"
    down = [message["bytes"] for message in rounds["messages"] if not message["up"]]
    beginning = leaves["bytes_down_at_most"] - 25 * sum(down) - only_watched * down[0]
    assert 20 * 300 < beginning < 20 * 1000, "once: plan, and roster and approvals of twenty"
    assert found["log"] == {
        "window": 1, "witnesses": None, "quorum": None, "may_be_absent": None, "colluders_found_out": None
    }  # fmt: skip
    (example,) = found["costs"]["units"]
    assert 0 < example["a_round"]["prv"] < example["whole_plan"]["prv"] < example["whole_plan"]["rdp"]
    assert example["spent_after"] == example["whole_plan"]
    assert found["changes"] is None
    assert not home.state.exists(), "a look changes nothing"


def test_preview_counts_what_is_spent(tmp_path: Path, home: OwnerHome) -> None:
    plan = private_plan()
    ledger = home.ledger(home.policy())
    for number in (1, 2):
        occasion = Occasion(plan.digest, number, 0, Purpose.TRAINING)
        ledger.reserve(occasion, plan_name=plan.name, fingerprint="f" * 64, spending=round_spending(plan))
    costs = answer_of("preview", plan_file(tmp_path), home.folder)["costs"]
    (example,) = costs["units"]
    assert 0 < example["spent_before"]["rdp"] < example["spent_after"]["rdp"]
    assert example["spent_after"] == example["whole_plan"], "two of its five rounds are those already spent"
    life = next(room for room in costs["ceilings"] if room["ceiling"].endswith("for_life"))
    assert life["remains_after"] == pytest.approx(10 - life["after"], abs=2e-4)


def test_preview_names_the_federation(tmp_path: Path, home: OwnerHome) -> None:
    join(tmp_path / "server", tmp_path / "bob", "bob")
    admit(tmp_path / "server", "shops", {"ada": public_hex(home.key())})
    collect(tmp_path / "server", home.folder)
    found = answer_of("preview", plan_file(tmp_path), home.folder)["to"]
    assert found["federation"] == "shops"
    assert found["members"] == ["ada", "bob"]
    assert found["key"] == home.federation_key_file.read_text().strip()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "fewer than 2 have seen; 0 may be absent\n  Two different logs are found out as long as no more than 1"),
        (("audit.quorum=1",), "fewer than 1 have seen; 1 may be absent\n  That is so few that two different logs can"),
        (("audit.mode=off",), "Who checks the server: nobody"),
    ],
)
def test_preview_says_who_checks_the_server(
    tmp_path: Path, home: OwnerHome, settings: tuple[str, ...], said: str
) -> None:
    join(tmp_path / "server", tmp_path / "bob", "bob")
    admit(tmp_path / "server", "shops", {"ada": public_hex(home.key())})
    collect(tmp_path / "server", home.folder)
    result = run("preview", plan_file(tmp_path, *settings), home.folder)
    assert result.exit_code == (1 if settings else 0)
    assert said in result.stdout


def test_preview_of_a_refused_plan_fails_and_reads_no_data(tmp_path: Path, home: OwnerHome) -> None:
    plan = plan_file(tmp_path, "privacy={}")
    result = run("preview", plan, home.folder, "--data", tmp_path / "no such table.csv")
    assert result.exit_code == 1
    assert "REFUSED privacy.example " in result.stdout
    (line,) = home.log.lines()
    assert (line.event, line.reason, line.sentence) == ("refused", "preview", "the policy refuses: privacy.example")


def test_preview_reads_data_only_of_an_allowed_plan(tmp_path: Path, home: OwnerHome) -> None:
    with pytest.raises(TestudoError):
        run("preview", plan_file(tmp_path), home.folder, "--data", tmp_path / "no such table.csv")


def test_preview_compares_the_bundle(tmp_path: Path, home: OwnerHome) -> None:
    bundle = tmp_path / "app.fab"
    bundle.write_bytes(b"a bundle")
    digest = hashlib.sha256(b"a bundle").hexdigest()
    write_policy(home.policy_file, 'pins.federation_key="any"', 'pins.code="any"', f'pins.bundle=["{digest}"]', *OPEN)
    plan = plan_file(tmp_path)
    assert run("preview", plan, home.folder).exit_code == 1, "this installation makes another"
    assert answer_of("preview", plan, home.folder, "--bundle", bundle)["bundle"] == digest
    bundle.write_bytes(b"another bundle")
    assert run("preview", plan, home.folder, "--bundle", bundle).exit_code == 1
    with pytest.raises(UsageError, match="cannot be read"):
        run("preview", plan, home.folder, "--bundle", tmp_path / "none.fab")


def test_bundle_that_this_installation_makes(tmp_path: Path, home: OwnerHome) -> None:
    made = answer_of("bundle", "--to", tmp_path / "testudo.fab")
    content = (tmp_path / "testudo.fab").read_bytes()
    assert made == {"digest": bundle_digest(), "bytes": len(content), "file": str(tmp_path / "testudo.fab")}
    assert hashlib.sha256(content).hexdigest() == bundle_digest() == run("bundle").stdout.strip()
    with pytest.raises(UsageError, match="cannot be written"):
        run("bundle", "--to", tmp_path / "testudo.fab" / "below")
    pins = ('pins.federation_key="any"', 'pins.code="any"', f'pins.bundle=["{bundle_digest()}"]')
    write_policy(home.policy_file, *pins, *OPEN)
    plan = plan_file(tmp_path)
    assert answer_of("preview", plan, home.folder)["bundle"] == bundle_digest(), "nobody has sent one yet"
    assert run("approve", plan, home.folder, "--yes").exit_code == 0


def test_certificate_is_compared_when_there_is_a_server(tmp_path: Path, home: OwnerHome) -> None:
    """A look at a plan, and an approval, connect to nobody; consent asks again in every round."""
    pins = ('pins.federation_key="any"', 'pins.code="any"', 'pins.bundle="any"')
    write_policy(home.policy_file, *pins, f'pins.server_certificate=["{"44" * 32}"]', *OPEN)
    plan = plan_file(tmp_path)
    shown = answer_of("preview", plan, home.folder)
    (rule,) = [rule for rule in shown["rules"] if rule["key"] == "pins.server_certificate"]
    assert (rule["allowed"], rule["asked"]) == (True, "compared in every round, when your node is connected")
    write_policy(home.policy_file, *pins, "pins.server_certificate=[]", *OPEN)
    assert run("preview", plan, home.folder).exit_code == 1


def test_preview_of_a_factory_that_is_not_allowed_runs_nothing(tmp_path: Path, home: OwnerHome) -> None:
    result = run("preview", plan_file(tmp_path, 'model.name="no.such:factory"'), home.folder)
    assert result.exit_code == 1
    assert "REFUSED model.allowed" in result.stdout
    assert "What would leave: not known" in result.stdout


def test_preview_of_a_plan_whose_cost_is_open(tmp_path: Path, home: OwnerHome) -> None:
    result = run("preview", plan_file(tmp_path, "rounds.max_participations=none"), home.folder)
    assert result.exit_code == 1
    assert "What it costs: cannot be computed" in result.stdout


def test_preview_of_a_plan_without_noise_is_still_json(tmp_path: Path, home: OwnerHome) -> None:
    result = run("preview", plan_file(tmp_path, "privacy.noise_multiplier=0.0"), home.folder, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["costs"]["units"][0]["whole_plan"]["rdp"] == "infinite"


@pytest.mark.parametrize("command", ["preview", "approve", "withdraw"])
def test_no_policy_nothing(tmp_path: Path, command: str) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    arguments = (command, plan_file(tmp_path), tmp_path / "own", *(["--yes"] if command == "approve" else []))
    with pytest.raises(KeyFileError if command == "withdraw" else PolicyError):
        run(*arguments)
    assert not (tmp_path / "own" / "approved").exists()


@pytest.mark.parametrize("command", ["preview", "approve", "withdraw", "log"])
def test_no_folder(tmp_path: Path, command: str) -> None:
    arguments = [] if command == "log" else [plan_file(tmp_path)]
    with pytest.raises(UsageError, match="no such folder") as caught:
        run(command, *arguments, tmp_path / "own", *(["--yes"] if command == "approve" else []))
    assert "testudo-client init" in caught.value.remedy
    assert not (tmp_path / "own").exists()


# --- approve, withdraw, log


def consents(home: OwnerHome, plan: FederationPlan) -> bool:
    try:
        OwnerConsent(home, plan, "ada").check()
    except ApprovalError:
        return False
    return True


def test_approve_and_withdraw(tmp_path: Path, home: OwnerHome) -> None:
    path, plan = plan_file(tmp_path), private_plan()
    assert not consents(home, plan)
    made = answer_of("approve", path, home.folder, "--yes")
    assert made["digest"] == plan.digest
    assert consents(home, plan)
    assert tomllib.loads((home.approved / f"{plan.digest}.toml").read_text())["name"] == "private"
    assert answer_of("preview", path, home.folder)["approved"]
    assert answer_of("withdraw", path, home.folder)["digest"] == plan.digest
    assert not consents(home, plan)
    run("approve", path, home.folder, "--yes")
    assert run("withdraw", plan.digest, home.folder).stdout == f"Withdrawn: digest {plan.digest}\n"
    assert [line.event for line in home.log.lines()] == ["approved", "withdrawn", "approved", "withdrawn"]


def test_approve_shows_the_preview_and_asks(tmp_path: Path, home: OwnerHome, at_a_terminal: None) -> None:
    path, plan = plan_file(tmp_path), private_plan()
    with pytest.raises(UsageError, match="not approved"):
        run("approve", path, home.folder, answers="n\n")
    assert not consents(home, plan)
    result = run("approve", path, home.folder, answers="y\n")
    assert "Your policy allows it" in result.stdout
    assert "What would leave" in result.stdout
    assert consents(home, plan)


def test_approve_shows_what_differs_from_the_plan_before(tmp_path: Path, home: OwnerHome, at_a_terminal: None) -> None:
    approve_plan(private_plan(), home)
    with pytest.raises(UsageError, match="not approved"):
        run("approve", plan_file(tmp_path, "inner.steps=3"), home.folder, answers="n\n")
    found = answer_of("preview", plan_file(tmp_path, "inner.steps=3"), home.folder)["changes"]
    assert found == {
        "since": {"plan": "private", "digest": private_plan().digest},
        "keys": [{"key": "inner.steps", "before": 2, "now": 3}],
    }


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_approve_needs_somebody_to_confirm(tmp_path: Path, home: OwnerHome, options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="nobody is there to confirm"):
        run("approve", plan_file(tmp_path), home.folder, *options, answers="y\n")
    assert not consents(home, private_plan())


def test_approve_refuses_what_the_policy_refuses(tmp_path: Path, home: OwnerHome, at_a_terminal: None) -> None:
    path = plan_file(tmp_path, "privacy={}")
    for options in (("--yes",), ()):
        with pytest.raises(PolicyError, match=r"privacy\.example"):
            run("approve", path, home.folder, *options, answers="y\n")
    assert not home.approved.exists()
    assert [(line.event, line.reason) for line in home.log.lines()] == [("refused", "PolicyError")] * 2


@pytest.mark.parametrize("name", ["no such plan.toml", "a" * 63])
def test_withdraw_what_is_no_plan(home: OwnerHome, name: str) -> None:
    with pytest.raises(TestudoError, match="cannot be read"):
        run("withdraw", name, home.folder)


def test_withdraw_what_was_never_approved(home: OwnerHome) -> None:
    with pytest.raises(ApprovalError, match="never approved"):
        run("withdraw", "a" * 64, home.folder)
    assert [line.event for line in home.log.lines()] == ["refused"]


def test_withdraw_without_a_policy(home: OwnerHome) -> None:
    """Whatever became of the policy: out is always possible."""
    plan = private_plan()
    approve_plan(plan, home)
    policy = home.policy_file.read_bytes()
    home.policy_file.write_text("broken")
    run("withdraw", plan.digest, home.folder)
    home.policy_file.write_bytes(policy)
    assert not consents(home, plan)


def test_log_in_lines_and_as_json(home: OwnerHome) -> None:
    home.log.refused(DataError("no"), plan="c" * 64, round_number=3, attempt=1, reason="data_unusable")
    for _ in range(30):
        home.log.write("approved", plan="d" * 64)
    shown = run("log", home.folder, "--last", 2).stdout
    assert shown.count("approved") == 2
    lines = answer_of("log", home.folder)
    assert len(lines) == 31
    assert (lines[0]["reason"], lines[0]["round"], lines[0]["sentence"]) == ("data_unusable", 3, "no")


def test_log_of_an_owner_to_whom_nothing_happened(home: OwnerHome) -> None:
    assert run("log", home.folder).stdout == ""
    assert answer_of("log", home.folder) == []


# --- all of them


@pytest.mark.parametrize("command", ["init", "preview", "approve", "withdraw", "log"])
def test_help_has_an_example_and_describes_everything(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: testudo-client {command} " in result.stdout
    assert "--json" in result.stdout
    for line in result.stdout.splitlines():
        assert "--" not in line or len(line.split()) > 3, line


@pytest.mark.parametrize("command", ["init", "preview", "approve", "withdraw", "log"])
def test_nothing_to_do(command: str) -> None:
    assert run(command).exit_code == 2


def test_ledger_command_knows_the_policys_ceilings(home: OwnerHome) -> None:
    assert "privacy.example.epsilon_for_life" in json.dumps(answer_of("ledger", home.folder))
