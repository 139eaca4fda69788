"""Watching an own model: what is served and what files hold, the three steps, versions, proposals, and the command."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from typer.testing import CliRunner

from own_models import CLINIC, NOON, clinic_table, make_version, plan_of, store_with, write_csv
from testudo_client.cli import app
from testudo_client.home import OwnerHome
from testudo_client.personal.adapt_command import AdaptRequest, adapt, row_digests
from testudo_client.personal.versions import VersionStore
from testudo_client.reference import keep_reference, read_reference
from testudo_client.table import Table
from testudo_client.watching.command import keep_watching
from testudo_client.watching.metrics import WatchMetrics, loopback
from testudo_client.watching.outcomes import outcomes_of
from testudo_client.watching.policy import Due, Proposed, Steady, Step, Warned
from testudo_client.watching.proposals import read_proposals
from testudo_client.watching.state import read_state
from testudo_client.watching.text import as_dict, line_of
from testudo_client.watching.watch import WatchRequest, answer_proposal, watch_once
from testudo_common.errors import DataError, UsageError
from testudo_common.learning.learner import initial_vector
from testudo_common.publication import PublishedModel, write_published
from watched_models import DRIFT, checked, encoded, serve, watched_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return watched_home(tmp_path / "home")


def drifted_csv(path: Path, *, older: float = 40.0, target: bool = True) -> Path:
    table = clinic_table(60, seed=3)
    rows = tuple((c, f"{float(age) + older:.1f}", *rest) for c, age, *rest in table.rows)
    keep = len(table.columns) if target else -1
    return write_csv(path, Table("t", table.columns[:keep], table.lines, tuple(row[:keep] for row in rows)))


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["watch", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_answers_like_before_are_fine_and_are_looked_at_once(home: Path) -> None:
    serve(home, 60, seed=2)
    first = checked(home)
    assert first.found is not None
    assert (first.step, first.found.rows, first.found.labelled) == (Step.NOTHING, 60, 60)
    assert first.remembered.state == Steady()
    assert checked(home).found is None
    serve(home, 49, seed=3)
    assert "49 rows, and a check takes 50: not checked" in line_of(checked(home))


def test_drift_alone_warns_and_worse_outcomes_ask_for_adapting(home: Path) -> None:
    serve(home, 60, seed=2, shift=DRIFT)
    warned = checked(home)
    assert warned.remembered.state == Warned(flags=1)
    assert "inputs 'age'" in line_of(warned)
    serve(home, 200, seed=3, shift=DRIFT, wrong=True)
    worse = checked(home)
    assert (worse.step, worse.remembered.state) == (Step.READAPT, Due(flags=2))
    assert "outcomes 'loss'" in line_of(worse)


def test_outcomes_told_later_are_seen_at_the_next_check(home: Path) -> None:
    from testudo_client.observations import Observations

    inputs, outputs = np.zeros((60, 5), np.float32), np.full((60, 2), 0.5, np.float32)
    inputs[:, 3] = 1
    observations = Observations(home / "state")
    observations.add(1, [f"k{place}" for place in range(60)], inputs, outputs)
    assert checked(home).found.labelled == 0  # type: ignore[union-attr]
    for place in range(30):
        observations.tell(f"k{place}", 1.0)
    observations.add(1, [None] * 60, inputs, outputs)
    observations.close()
    assert checked(home).found.labelled == 30  # type: ignore[union-attr]


def promote(home: Path, number: int, *, in_use: bool = True) -> None:
    version = make_version(number)
    store = VersionStore(home)
    with store.changing():
        store.add(version)
        if in_use:
            store.use(number, "promoted", NOON)
    reference = read_reference(home, 1)
    keep_reference(home, number, reference.inputs, reference.outputs, reference.targets)


def test_a_gate_that_refuses_proposes_a_round_and_a_person_answers(home: Path) -> None:
    serve(home, 200, seed=3, shift=DRIFT, wrong=True)
    assert checked(home).step is Step.READAPT
    promote(home, 2, in_use=False)
    assert checked(home).remembered.state == Proposed(flags=1, number=1)
    (proposal,) = read_proposals(home / "state")
    assert (proposal.reason, proposal.answer, proposal.version) == ("gate", "open", 1)
    assert [line.event for line in OwnerHome(home).log.lines()] == ["proposal"]
    with pytest.raises(UsageError, match="no open proposal 2"):
        answer_proposal(home, 2, "accepted", NOON)
    assert answer_proposal(home, 1, "accepted", NOON).answer == "accepted"
    assert read_state(home / "state").state == Steady()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="no open proposal 1"):
        answer_proposal(home, 1, "dismissed", NOON)


def test_adapting_by_itself_is_told_what_became_of_it(home: Path) -> None:
    serve(home, 200, seed=3, shift=DRIFT, wrong=True)
    report = watch_once(WatchRequest(home, readapt=lambda: False), NOON)
    assert report.remembered.state == Proposed(flags=1, number=1)
    (proposal,) = read_proposals(home / "state")
    assert ("outcomes", "loss") in {(one.family, one.name) for one in proposal.flagged}

    def adapted() -> bool:
        promote(home, 2)
        return True

    answer_proposal(home, 1, "dismissed", NOON)
    serve(home, 200, seed=4, shift=DRIFT, wrong=True)
    report = watch_once(WatchRequest(home, readapt=adapted), NOON)
    assert (report.version, report.remembered.state) == (2, Steady())


def test_adapt_keeps_a_reference_and_watching_adapts_again_without_spending(tmp_path: Path) -> None:
    home, meta_model = tmp_path / "home", tmp_path / "meta.safetensors"
    plan = plan_of(CLINIC)
    write_published(meta_model, PublishedModel(plan, 4, initial_vector(plan)))
    mine = write_csv(tmp_path / "mine.csv", clinic_table(60, seed=1))
    made = adapt(AdaptRequest(meta_model, home, mine), NOON).record
    kept = read_reference(home, made.id)
    assert kept.outputs is not None
    assert kept.targets is not None
    assert np.allclose(outcomes_of(kept.outputs, kept.targets, regression=False).losses, made.losses, atol=1e-5)
    serve(home, 200, seed=3, shift=DRIFT, wrong=True, version=made.id)
    with pytest.raises(UsageError, match="give both, or neither"):
        run(home, "--once", "--readapt", meta_model)
    with pytest.raises(UsageError, match="there is no such file"):
        run(home, "--once", "--readapt", meta_model, "--rows", tmp_path / "none.csv")
    code, _ = run(home, "--once", "--readapt", meta_model, "--rows", mine)
    assert code == 12, "the same rows make no better model, so the gate refuses it"
    assert VersionStore(home).ids() == [1, 2]
    assert [one.reason for one in read_proposals(home / "state")] == ["gate"]
    assert not (home / "state/ledger.db").exists()


def test_many_flags_propose_once_and_a_new_version_overtakes(home: Path) -> None:
    for seed in range(4):
        serve(home, 60, seed=seed, shift=DRIFT)
        report = checked(home, many=3)
    assert report.remembered.state == Proposed(flags=4, number=1)
    assert [one.reason for one in read_proposals(home / "state")] == ["many"]
    promote(home, 2)
    assert checked(home).remembered.state == Steady()
    assert [one.answer for one in read_proposals(home / "state")] == ["overtaken"]
    serve(home, 60, seed=9, version=1)
    assert checked(home).found is None, "what version 1 answered says nothing of version 2"


def test_settings_are_remembered(home: Path) -> None:
    serve(home, 30, seed=2)
    assert checked(home, least=20, level=0.01).found.level == 0.01  # type: ignore[union-attr]
    serve(home, 30, seed=3)
    assert checked(home).found.level == 0.01  # type: ignore[union-attr]


def test_a_file_of_new_rows_counts_once_and_needs_no_target(home: Path, tmp_path: Path) -> None:
    path = drifted_csv(tmp_path / "new.csv")
    code, text = run(home, "--data", path)
    assert (code, "inputs 'age'" in text) == (10, True)
    code, text = run(home, "--data", path)
    assert (code, "not counted again" in text) == (10, True)
    assert read_state(home / "state").state == Warned(flags=1)  # type: ignore[union-attr]
    code, text = run(home, "--data", drifted_csv(path, older=0.0, target=False), "--json")
    answer = json.loads(text)
    assert (code, answer["next"], answer["check"]["worse"]) == (0, "nothing", None)


def test_a_file_that_cannot_be_used_changes_nothing(home: Path, tmp_path: Path) -> None:
    serve(home, 60, seed=2, shift=DRIFT)
    checked(home)
    before = (home / "state/watch.json").read_bytes()
    path = tmp_path / "new.csv"
    path.write_text("age;pressure;ward\n1;2;east\n")
    with pytest.raises(DataError, match="separated by semicolons"):
        run(home, "--data", path)
    path.write_text("age,pressure\n1,2\n")
    with pytest.raises(DataError, match="no column 'ward'"):
        run(home, "--data", path)
    assert (home / "state/watch.json").read_bytes() == before


def test_without_a_reference_or_a_model_it_says_what_to_do(tmp_path: Path) -> None:
    store_with(tmp_path / "home", make_version())
    serve(tmp_path / "home", 60, seed=2)
    with pytest.raises(UsageError, match=r"nothing to compare with.*--reference mine.csv"):
        checked(tmp_path / "home")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no own model is in use"):
        checked(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such folder"):
        run(tmp_path / "none")


def test_rows_that_it_was_made_from_are_not_compared_with(tmp_path: Path) -> None:
    """A model is surer of them: its answers to them would make all others look like drift."""
    home = tmp_path / "home"
    version = make_version()
    made_from = row_digests(home, encoded(100, seed=1))
    record = version.record.model_copy(update={"rows_digest": made_from})
    store_with(home, replace(version, record=record))
    path = write_csv(tmp_path / "mine.csv", clinic_table(100, seed=1))
    assert run(home, "--reference", path)[0] == 0
    kept = read_reference(home, 1)
    assert (len(kept.inputs), len(kept.outputs)) == (100, 0)  # type: ignore[arg-type]
    serve(home, 60, seed=2)
    report = checked(home)
    assert {test.family for test in report.found.tests} == {"inputs"}  # type: ignore[union-attr]
    assert "Not tested: answers: there are none to rows that it was not trained on" in line_of(report)
    code, text = run(home, "--data", path)
    assert (code, "0 rows (100 more were adapted on" in text) == (0, True)
    write_csv(path, clinic_table(130, seed=6))
    assert "130 rows, of which 130 have an outcome and were not adapted on" in run(home, "--reference", path)[1]


def test_losses_out_of_fold_stand_in_for_a_reference_without_outcomes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    version = make_version()
    losses = tuple(np.random.default_rng(0).exponential(0.1, 60).tolist())
    store_with(home, replace(version, record=version.record.model_copy(update={"losses": losses})))
    serve(home, 60, seed=2, wrong=True)
    keep_reference(home, 1, encoded(100, seed=1).inputs)
    report = checked(home)
    assert report.found is not None
    assert [test.name for test in report.found.tests if test.family == "outcomes"] == ["loss"]
    assert report.step is Step.READAPT


def test_what_is_kept_is_for_the_owner_alone_and_at_most_a_thousand_rows(home: Path) -> None:
    path = keep_reference(home, 7, np.zeros((3000, 5), np.float32), np.zeros((1500, 2), np.float32))
    kept = read_reference(home, 7)
    assert (len(kept.inputs), len(kept.outputs), kept.targets) == (1000, 1000, None)  # type: ignore[arg-type]
    serve(home, 60, seed=2, shift=DRIFT)
    checked(home, many=1)
    for each in (path, home / "state/watch.json", home / "state/proposals/1.json"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="the reference is damaged"):
        read_reference(home, 7)
    (home / "state/watch.json").write_text("{}")
    with pytest.raises(UsageError, match="what watching remembers is damaged"):
        checked(home)


def test_the_command_lists_and_answers_proposals(home: Path) -> None:
    serve(home, 60, seed=2, shift=DRIFT)
    assert run(home, "--proposals") == (0, "There are no proposals.\n")
    code, text = run(home, "--once", "--many", 1)
    assert (code, f"testudo-client watch {home} --proposals" in text) == (12, True)
    assert (
        "open: a round of 'clinics' for version 1, since flagged checks stood in a row: 1"
        in run(home, "--proposals")[1]
    )
    with pytest.raises(UsageError, match="one proposal"):
        run(home, "--accept", 1, "--dismiss", 1)
    assert "Nothing was sent" in run(home, "--accept", 1)[1]
    assert json.loads(run(home, "--proposals", "--json")[1])[0]["answer"] == "accepted"


def test_metrics_tell_of_the_last_check_and_of_no_column(home: Path) -> None:
    serve(home, 60, seed=2, shift=DRIFT)
    metrics = WatchMetrics()
    report = checked(home)
    metrics.show(report)
    shown = generate_latest(metrics.registry).decode()
    assert 'testudo_watch_state{state="warned"} 1.0' in shown
    assert 'testudo_watch_flagged_tests{family="inputs"} 2.0' in shown
    assert "testudo_watch_rows 60.0" in shown
    assert "age" not in shown
    assert as_dict(report)["exit_code"] == 10


@pytest.mark.parametrize("address", ["0.0.0.0:1", "192.0.2.1:80", "127.0.0.1", "127.0.0.1:x", "::1:99999", ":9109"])
def test_metrics_are_shown_to_this_machine_alone(address: str) -> None:
    with pytest.raises(UsageError, match="not an address of this machine alone"):
        loopback(address)
    assert loopback("[::1]:0") == ("::1", 0)
    assert loopback("localhost:9109") == ("localhost", 9109)


@pytest.mark.network
def test_it_watches_until_it_is_asked_to_stop(home: Path) -> None:
    serve(home, 60, seed=2, shift=DRIFT)
    reading, writing = os.pipe()
    if (
        child := os.fork()
    ) == 0:  # another process, since it is told by a signal; not a new one, which would load torch
        sys.stderr = os.fdopen(writing, "w", buffering=1)
        try:
            keep_watching(
                WatchRequest(home),
                lambda line: print(line, file=sys.stderr),
                every_seconds=0.1,
                metrics="127.0.0.1:0",
                as_json=True,
            )
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as said:
        port = re.search(r"port (\d+)", said.readline())
        assert port is not None
        assert json.loads(said.readline())["next"] == "warn"
        serve(home, 60, seed=3)
        assert json.loads(said.readline())["next"] == "nothing"
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=30) as answer:
            assert b"testudo_watch_state" in answer.read()
        os.kill(child, signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == 0
        assert said.read() == "", "it ends in order"
