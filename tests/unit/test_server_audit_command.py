"""``testudo-server audit``: what it shows, proves, exports and writes down, and how it says what it refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit_logs import audited_plan
from testudo_common.audit.checkpoints import watch_of
from testudo_common.audit.entries import UpdateReceived, decode_entry
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.history import begin_history, extend
from testudo_common.audit.receipts import decode_receipt, verify_receipt
from testudo_common.errors import AuditError, KeyFileError, TestudoError, UsageError
from testudo_server.audit_command import KEYS
from testudo_server.audit_file import AUDIT_LOG, held_log, read_log
from testudo_server.cli import app
from watched_run import FIVE, WatchedRun


class Kept:
    """A run of two rounds in a folder, with its keys and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = WatchedRun(folder, audited_plan("rounds.count=2"))
        self.run.keys.write(folder / KEYS)
        with held_log(folder, durable=False) as log:
            self.run.log = log
            self.run.start()
            self.run.run()
            self.entries = list(log.entries())
        self.watch = watch_of(self.run.keys.roster, self.run.plan.digest)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Only to be read."""
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """To be written."""
    return Kept(tmp_path / "run")


def said(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["audit", *map(str, words)])
    if isinstance(done.exception, TestudoError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


# --- show


def test_show_is_one_line_an_entry(whole: Kept) -> None:
    lines = said("show", whole.folder).splitlines()
    assert len(lines) == len(whole.entries) == 15
    assert "charter" in lines[0]
    assert "round_closed" in lines[-1]
    assert [int(line.split()[0]) for line in lines] == list(range(15))
    as_json = json.loads(said("show", whole.folder, "--json"))
    assert [entry["index"] for entry in as_json] == list(range(15))
    without = [{name: value for name, value in entry.items() if name != "index"} for entry in as_json]
    assert without == [json.loads(entry) for entry in whole.entries]


# --- prove


def verified(data: bytes, kept: Kept) -> int:
    receipt = decode_receipt(data)
    _, cosigners = verify_receipt(receipt, kept.watch, 4)
    assert len(cosigners) >= 4
    assert receipt.entry == kept.entries[receipt.index]
    return receipt.index


@pytest.mark.parametrize("index", [0, 1, 7, 14])
def test_receipt_of_an_entry_verifies(whole: Kept, index: int) -> None:
    assert verified(said("prove", whole.folder, "--entry", str(index)).encode(), whole) == index


def test_receipt_of_an_update_verifies(whole: Kept, tmp_path: Path) -> None:
    found = decode_entry(whole.entries[12])
    assert isinstance(found, UpdateReceived)
    client, file = found.statement.client, tmp_path / "r.tlog-proof"
    out = said("prove", whole.folder, "--round", "2", "--client", client, "--to", file)
    assert verified(file.read_bytes(), whole) == 12
    assert str(file) in out


def test_receipt_needs_a_checkpoint_of_a_quorum(kept: Kept) -> None:
    said("record", kept.folder, "--incident", "the office moved")
    with pytest.raises(AuditError) as caught:
        said("prove", kept.folder, "--entry", "15")
    assert "no checkpoint over it has enough cosignatures yet: 0, where 4 are needed" in str(caught.value)
    assert caught.value.index == 15
    assert verified(said("prove", kept.folder, "--entry", "14").encode(), kept) == 14


UNCLEAR: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "both": ("--entry", "3", "--round", "1", "--client", "owner-0"),
    "a round without a client": ("--round", "1"),
    "a client without a round": ("--client", "owner-0"),
    "an entry and a client": ("--entry", "3", "--client", "owner-0"),
}


@pytest.mark.parametrize("words", UNCLEAR.values(), ids=UNCLEAR)
def test_prove_asks_which_entry(whole: Kept, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="not clear which entry is meant"):
        said("prove", whole.folder, *words)


def test_prove_names_what_is_not_there(whole: Kept) -> None:
    with pytest.raises(UsageError, match="15 entries, and none with index 15"):
        said("prove", whole.folder, "--entry", "15")
    with pytest.raises(UsageError, match="no update of 'eve' in round 1"):
        said("prove", whole.folder, "--round", "1", "--client", "eve")
    with pytest.raises(UsageError, match="no update of 'owner-0' in round 9"):
        said("prove", whole.folder, "--round", "9", "--client", "owner-0")


# --- export


def test_exported_log_is_all_of_it_and_verifies(whole: Kept, tmp_path: Path) -> None:
    file = tmp_path / "run.tlog"
    found = json.loads(said("export", whole.folder, "--to", file, "--json"))
    assert found == {
        "file": str(file),
        "entries": 15,
        "left_out": 0,
        "bytes": file.stat().st_size,
        "cosigners": 5,
        "quorum": 4,
        "entries_that_a_quorum_saw": 15,
    }
    extension = decode_extension(file.read_bytes())
    assert list(extension.entries) == whole.entries
    history = extend(begin_history(whole.run.keys.server_keys.federation_key, whole.run.plan.digest), extension.entries)
    assert history.closed is not None
    assert history.closed[1].round == 2


def test_exported_log_is_what_an_owner_verifies(whole: Kept, tmp_path: Path) -> None:
    from testudo_client.cli import app as client_app

    file = tmp_path / "run.tlog"
    said("export", whole.folder, "--to", file)
    key = str(whole.folder / KEYS / "federation.pub")
    done = CliRunner().invoke(client_app, ["audit", "verify", str(file), "--federation-key", key])
    assert done.exit_code == 0, done.output
    assert "FAILED" not in done.output


def test_export_keeps_the_last_checkpoint_of_a_quorum_beside_a_later_one(kept: Kept, tmp_path: Path) -> None:
    said("record", kept.folder, "--incident", "the office moved")
    out = said("export", kept.folder, "--to", tmp_path / "run.tlog")
    assert "16 entries" in out
    assert "0 owners cosigned the last checkpoint, and a quorum of 4 saw 15 entries" in out
    extension = decode_extension(tmp_path.joinpath("run.tlog").read_bytes())
    assert len(extension.entries) == 16
    assert extension.cosigned.decode().split("\n")[1] == "15"


def test_entries_that_nothing_covers_are_left_out_and_counted(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path / "run", audited_plan("rounds.count=2"))
    run.keys.write(tmp_path / "run" / KEYS)
    with held_log(tmp_path / "run", durable=False) as log:
        run.log = log
        run.start()
        run.coordinator.run_round(run.begin())
    out = said("export", tmp_path / "run", "--to", tmp_path / "run.tlog")
    assert "8 entries" in out
    assert "Left out: 3 entries" in out


# --- record


def test_drill_release_and_incident_are_written_down_and_signed(kept: Kept, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("nothing was found")
    answers = [
        json.loads(said("record", kept.folder, "--drill", report, "--passed", "--json")),
        json.loads(said("record", kept.folder, "--release", "the shops", "--json")),
        json.loads(said("record", kept.folder, "--incident", "the office moved", "--json")),
    ]
    assert [answer["index"] for answer in answers] == [15, 16, 17]
    with read_log(kept.folder) as log:
        drill, release, incident = [json.loads(entry) for entry in log.entries(15)]
        note, root = log.latest_note(), log.root()
    assert (drill["report"], drill["passed"]) == (hashlib.sha256(b"nothing was found").hexdigest(), True)
    closed = json.loads(kept.entries[-1])
    assert (release["round"], release["model_digest"]) == (2, closed["model_digest"])
    assert (incident["kind"], incident["note"]) == ("noted", "the office moved")
    assert note is not None
    assert answers[-1]["root"] == root.hex()
    assert note.decode().split("\n")[1] == "18"


def test_owners_see_what_was_written_down_when_the_run_goes_on(kept: Kept) -> None:
    said("record", kept.folder, "--incident", "the office moved")
    run = kept.run
    with held_log(kept.folder, durable=False) as log:
        run.log = log
        run.go_on()
        assert all(watcher.entries == list(log.entries()) for watcher in run.owners.watchers.values())
    said("prove", kept.folder, "--entry", "15")


MANY: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "two": ("--release", "x", "--incident", "y"),
    "a drill without its end": ("--drill", "report"),
    "an end without a drill": ("--incident", "y", "--failed"),
}


@pytest.mark.parametrize("words", MANY.values(), ids=MANY)
def test_record_asks_what_to_write_down(whole: Kept, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="not clear what to write down"):
        said("record", whole.folder, *words)


def test_record_refuses_what_is_too_long_and_a_report_that_is_not_there(whole: Kept, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        said("record", whole.folder, "--release", "x" * 201)
    with pytest.raises(UsageError, match="too long"):
        said("record", whole.folder, "--incident", "x" * 501)
    with pytest.raises(UsageError, match="the report cannot be read"):
        said("record", whole.folder, "--drill", tmp_path / "no", "--failed")
    with read_log(whole.folder) as log:
        assert log.size == 15


def test_nothing_is_released_before_a_round_is_closed(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan())
    run.keys.write(tmp_path / KEYS)
    with held_log(tmp_path, durable=False) as log:
        run.log = log
        run.start()
        run.begin()
    with pytest.raises(UsageError, match="no round is closed yet"):
        said("record", tmp_path, "--release", "the shops")


def test_nothing_is_written_while_a_run_goes_on(kept: Kept) -> None:
    with held_log(kept.folder), pytest.raises(UsageError, match="another process is writing this audit log"):
        said("record", kept.folder, "--incident", "the office moved")
    with read_log(kept.folder) as log:
        assert log.size == 15
    with held_log(kept.folder):
        said("show", kept.folder), said("prove", kept.folder, "--entry", "3"), "reading is no harm"


# --- folders that cannot be used


@pytest.fixture(params=["show", "prove", "export", "record"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    more: dict[str, tuple[str | Path, ...]] = {
        "show": (),
        "prove": ("--entry", "0"),
        "export": ("--to", tmp_path / "run.tlog"),
        "record": ("--incident", "the office moved"),
    }
    yield lambda folder, *others: said(request.param, folder, *more[request.param], *others)


def test_folder_without_a_log_is_named(command: Any, whole: Kept, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    whole.run.keys.write(tmp_path / "empty" / KEYS)
    with pytest.raises(UsageError, match="there is no audit log here") as caught:
        command(tmp_path / "empty")
    assert str(tmp_path / "empty" / AUDIT_LOG) in str(caught.value)
    assert not (tmp_path / "empty" / AUDIT_LOG).exists(), "and none is made"


def test_log_that_is_not_begun_is_named(whole: Kept, tmp_path: Path) -> None:
    whole.run.keys.write(tmp_path / KEYS)
    with held_log(tmp_path):
        pass
    for words in (("prove", tmp_path, "--entry", "0"), ("record", tmp_path, "--incident", "x")):
        with pytest.raises(UsageError, match="the audit log here is empty"):
            said(*words)


def test_keys_may_be_elsewhere(kept: Kept, tmp_path: Path) -> None:
    (kept.folder / KEYS).rename(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="cannot be read"):
        said("prove", kept.folder, "--entry", "3")
    said("prove", kept.folder, "--entry", "3", "--keys", tmp_path / "elsewhere")
    said("record", kept.folder, "--incident", "the office moved", "--keys", tmp_path / "elsewhere")


def test_keys_of_another_federation_prove_nothing(whole: Kept, tmp_path: Path) -> None:
    from testudo_simulations.keys import SimulatedKeys

    SimulatedKeys("banks", FIVE, b"b" * 32).write(tmp_path)
    with pytest.raises(AuditError, match="not signed with the federation's key"):
        said("prove", whole.folder, "--entry", "3", "--keys", tmp_path)
    with pytest.raises(AuditError):
        said("record", whole.folder, "--incident", "x", "--keys", tmp_path)
    with read_log(whole.folder) as log:
        assert log.size == 15


def test_another_roster_of_the_same_federation_writes_nothing(kept: Kept, tmp_path: Path) -> None:
    from testudo_simulations.keys import SimulatedKeys

    SimulatedKeys("shops", FIVE[:4], b"k" * 32).write(tmp_path / "fewer")
    with pytest.raises(UsageError, match="not the roster that the log holds"):
        said("record", kept.folder, "--incident", "x", "--keys", tmp_path / "fewer")
    with read_log(kept.folder) as log:
        assert list(log.entries()) == kept.entries


def test_help_has_an_example_for_each() -> None:
    for name in ("show", "prove", "export", "record"):
        done = CliRunner().invoke(app, ["audit", name, "--help"])
        assert done.exit_code == 0
        assert f"Example: testudo-server audit {name} " in done.output
