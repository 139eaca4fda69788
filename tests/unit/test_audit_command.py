"""``testudo-client audit``: exported logs and owners' folders, what is wrong with them, and files that are none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit_logs import EXAMPLE_PRIVATE, SCORED, SECURE, AuditLogBuilder, audited_plan, digest_of, full_log, key_called
from audited_folders import audited_folder
from testudo_client.approvals import approve
from testudo_client.audit_command import VerifyRequest, verify_logs
from testudo_client.cli import app
from testudo_client.home import OwnerHome
from testudo_client.own_record import AuditFiles, OwnRecord
from testudo_common.audit.extension import encode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import receipt_for
from testudo_common.errors import AuditError, AuditFault, TestudoError, UsageError

ROOT = Path(__file__).resolve().parents[2]
PLAN = audited_plan("rounds.cohort_size=5")


def run(*words: object) -> tuple[int, str]:
    """The command's exit status and output; a fault that it reports is raised."""
    result = CliRunner().invoke(app, ["audit", *map(str, words)])
    if isinstance(result.exception, TestudoError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def log() -> AuditLogBuilder:
    """Never changed."""
    return full_log(PLAN, 5)


@pytest.fixture
def federation(log: AuditLogBuilder, tmp_path: Path) -> Path:
    """The federation's public key."""
    path = tmp_path / "federation.pub"
    path.write_text(log.federation_public.hex() + "\n")
    return path


@pytest.fixture
def exported(log: AuditLogBuilder, tmp_path: Path) -> Path:
    """The exported log."""
    path = tmp_path / "run.tlog"
    path.write_bytes(log.exported())
    return path


def receipt_of(log: AuditLogBuilder, index: int) -> bytes:
    kept = AuditLog(None)
    kept.append(log.entries, log.note())
    return receipt_for(kept, index).encode()


# An exported log.


def test_exported_log_holds(exported: Path, federation: Path, log: AuditLogBuilder) -> None:
    status, said = run("verify", exported, "--federation-key", federation)
    lines = said.splitlines()
    assert status == 0
    assert lines[0] == (
        f"{exported}: testudo/shops/{PLAN.digest[:16]}, of the plan 'small' {PLAN.digest}: {len(log.entries)} entries, "
        "4 rounds"
    )
    assert len(lines) == 12
    assert all(line.startswith(("ok       ", "skipped  ")) for line in lines[1:-1])
    assert lines[-1] == "The log holds: 7 checks."


def test_receipts_and_a_kept_checkpoint(exported: Path, federation: Path, log: AuditLogBuilder, tmp_path: Path) -> None:
    receipt, kept = tmp_path / "round-1.tlog-proof", tmp_path / "old.note"
    receipt.write_bytes(receipt_of(log, 9))
    kept.write_bytes(log.note(12))
    words = ("verify", exported, "--federation-key", federation)
    status, said = run(*words, "--receipt", receipt, "--receipt", receipt, "--kept", kept)
    assert status == 0
    assert "ok       receipts: 2 receipts of entries of this log, each seen by 5 or more" in said
    assert "ok       earlier checkpoints: the log extends 1 earlier checkpoint, from the first 12 entries on" in said
    kept.write_bytes(full_log(audited_plan("seed=7"), 5).note())
    status, said = run(*words, "--kept", kept)
    assert status == 1
    assert f"FAILED   earlier checkpoints: {kept}: a checkpoint of another log" in said


def test_log_that_does_not_hold(exported: Path, federation: Path, log: AuditLogBuilder) -> None:
    """The log's key and all owners signed it anew; two things are wrong, and both are named."""
    other = AuditLogBuilder(PLAN, 5, enrol=False)
    other.entries = list(log.entries)
    second = next(index for index, entry in enumerate(log.entries) if b'"round":2' in entry)
    model = log.history.first_model or ""
    other.entries[second] = other.entries[second].replace(digest_of("model", 1).encode(), model.encode())
    other.entries.append(log.entries[2])
    exported.write_bytes(other.exported())
    status, said = run("verify", exported, "--federation-key", federation)
    assert status == 1
    assert f"FAILED   approvals: owner-00, entry {len(log.entries)}: decision 0 after decision 0" in said
    problem = f"chain of models: entry {second}: round 2 does not begin from the model that came before"
    assert f"FAILED   {problem}" in said
    assert "ok       signature and quorum" in said and "ok       contributions" in said
    assert said.splitlines()[-1] == f"The log does not hold: 2 of 7 checks failed. The first, {problem}"


def test_answer_as_json(exported: Path, federation: Path, log: AuditLogBuilder) -> None:
    status, said = run("verify", exported, "--federation-key", federation, "--json")
    answer = json.loads(said)
    assert status == 0
    (found,) = answer["logs"]
    assert (answer["holds"], found["holds"], found["first_failure"]) == (True, True, None)
    assert (found["entries"], found["rounds"], found["plan_digest"]) == (len(log.entries), 4, PLAN.digest)
    assert found["checks"][0]["outcome"] == "ok"
    exported.write_bytes(encode_extension([*log.entries[:9], *log.entries[10:]], log.note()))
    status, said = run("verify", exported, "--federation-key", federation, "--json")
    answer = json.loads(said)
    assert (status, answer["holds"]) == (1, False)
    assert answer["logs"][0]["first_failure"] == "signature and quorum"
    assert {check["name"]: check["entry"] for check in answer["logs"][0]["checks"]}["contributions"] is not None


def test_log_with_an_earlier_checkpoint_in_it(exported: Path, federation: Path, log: AuditLogBuilder) -> None:
    """As the server has it while its last checkpoint has not been cosigned yet."""
    log_after = AuditLogBuilder(PLAN, 5, enrol=False)
    log_after.entries = list(log.entries)
    log_after.incident()
    exported.write_bytes(encode_extension(log_after.entries, log_after.note(cosigners=()), log.note()))
    status, said = run("verify", exported, "--federation-key", federation)
    assert status == 0
    assert "the last 1 entry by the log alone" in said


# Files that are no logs.

JUNK: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an exported audit log"),
    "binary": (bytes(range(256)) * 20, "not an exported audit log"),
    "text": (b"hello\n", "not an exported audit log"),
    "a database": (b"SQLite format 3\0" + bytes(100), "this is a log as its owner keeps it, not an exported one"),
}


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("command", ["verify", "show"])
def test_file_that_is_no_log(command: str, name: str, exported: Path, federation: Path) -> None:
    data, problem = JUNK[name]
    exported.write_bytes(data)
    key = ("--federation-key", federation) if command == "verify" else ()
    with pytest.raises(TestudoError, match=problem) as found:
        run(command, exported, *key)
    assert found.value.where == str(exported) and found.value.remedy


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_file_that_was_cut_short(share: float, exported: Path, federation: Path) -> None:
    data = exported.read_bytes()
    exported.write_bytes(data[: int(len(data) * share)])
    try:
        status, said = run("verify", exported, "--federation-key", federation)
    except AuditError as error:
        assert "not an exported audit log" in str(error)
    else:
        assert (status, "FAILED" in said) == (1, True)


def test_log_of_a_foreign_federation(exported: Path, federation: Path) -> None:
    federation.write_text(key_called("another").public_key().public_bytes_raw().hex())
    status, said = run("verify", exported, "--federation-key", federation)
    assert status == 1
    assert "FAILED   enrolled keys: entry 1: the roster is not signed with the federation's key" in said


def test_a_million_lines(exported: Path, federation: Path, log: AuditLogBuilder) -> None:
    """Are read no further than the first that is none."""
    exported.write_bytes(b"{}\n" * 1_000_000 + b"\n" + log.note())
    status, said = run("verify", exported, "--federation-key", federation)
    assert status == 1
    assert "FAILED   order of entries: entry 0: not an entry of a known type" in said


@pytest.mark.parametrize("command", ["verify", "show"])
def test_file_that_is_not_there(command: str, federation: Path, tmp_path: Path) -> None:
    key = ("--federation-key", federation) if command == "verify" else ()
    with pytest.raises(UsageError, match="it cannot be read"):
        run(command, tmp_path / "none.tlog", *key)


def test_key_that_is_not_named(exported: Path) -> None:
    with pytest.raises(UsageError, match="the federation's key is needed"):
        run("verify", exported)


# An owner's folder.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an owner that took part in three rounds, the last of which no quorum has seen."""
    return audited_folder(PLAN, tmp_path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same; never changed."""
    return audited_folder(PLAN, tmp_path_factory.mktemp("sound"))


def mirror_in(folder: Path) -> Path:
    return folder / "state" / f"audit-{PLAN.digest[:16]}.db"


def test_owners_folder_holds(sound: Path) -> None:
    status, said = run("verify", sound)
    assert status == 0, said
    assert said.splitlines()[0].startswith(f"{mirror_in(sound)}: testudo/shops/{PLAN.digest[:16]}")
    for line in (
        "ok       receipts: 2 receipts of entries of this log, each seen by 5 or more",
        "ok       models sent to me: 3 models that you trained from, each the log's",
        "ok       my part: 3 updates of owner-00, each signed by you; 3 in closed rounds",
        "ok       my witness: your witness has found nothing wrong",
    ):
        assert line in said
    assert "by the log alone" in said and "ok       earlier checkpoints: the log extends" in said


def test_folder_is_left_as_it_was(sound: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sound.rglob("*") if path.is_file() and "audit-" not in path.name}

    before = files()
    run("verify", sound)
    run("show", sound)
    assert files() == before


def test_policy_is_not_needed_to_be_in_force(folder: Path) -> None:
    """A run is over, and so is what its owner allowed; the log is there to be checked."""
    policy = folder / "policy.toml"
    text, dates = re.subn(r"(?m)^(not_before|not_after) = 20\d\d", r"\1 = 2001", policy.read_text())
    assert dates == 2
    policy.write_text(text)
    assert run("verify", folder)[0] == 0


def test_ledger_that_was_put_back(folder: Path) -> None:
    """Its entries are gone, and the log has the owner's signature under them."""
    for path in [*(folder / "state").glob("ledger.db*"), folder / "ledger.anchor"]:
        path.unlink()
    home = OwnerHome(folder)
    approve(home.ledger(home.policy()), home.key(), PLAN, home.policy())
    status, said = run("verify", folder)
    assert status == 1
    assert "FAILED   my part:" in said and "an old copy was put back" in said


def test_ledger_that_is_damaged(folder: Path) -> None:
    (folder / "state" / "ledger.db").write_bytes(b"junk" * 1000)
    status, said = run("verify", folder)
    assert status == 1
    assert "FAILED   my part:" in said
    assert "ok       signature and quorum" in said and "ok       chain of models" in said


def test_what_was_signed_is_damaged(folder: Path) -> None:
    (file,) = (folder / "state").glob("contributions/*/round-2-attempt-0.json")
    file.write_text("junk")
    status, said = run("verify", folder)
    assert status == 1
    assert f"FAILED   my part: {file}: what you signed in this attempt is damaged" in said


def test_another_model_than_the_logs(folder: Path) -> None:
    (file,) = (folder / "state").glob("contributions/*/round-2-attempt-0.json")
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "model_digest": digest_of("another")}))
    status, shown = run("verify", folder)
    assert status == 1
    assert "you were sent another model in round 2.0 than the log's" in shown


def test_witness_that_stopped(folder: Path) -> None:
    found = AuditError(AuditFault.REWRITTEN, "the log holds another entry", index=7)
    OwnRecord(AuditFiles(folder, PLAN.digest)).halt(found, b"", datetime(2026, 3, 1, tzinfo=UTC))
    status, said = run("verify", folder)
    assert status == 1
    assert "FAILED   my witness:" in said and "the log holds another entry" in said


def test_receipt_that_is_not_of_the_mirror(folder: Path) -> None:
    receipt = folder / "receipts" / PLAN.digest[:16] / "round-1.tlog-proof"
    receipt.write_bytes(receipt.read_bytes().replace(b"index ", b"index 1"))
    status, said = run("verify", folder)
    assert status == 1
    assert f"FAILED   receipts: receipts/{PLAN.digest[:16]}/round-1.tlog-proof, entry" in said


def test_further_receipts_go_with_the_log_that_they_are_of(sound: Path, log: AuditLogBuilder, tmp_path: Path) -> None:
    mine = sound / "receipts" / PLAN.digest[:16] / "round-1.tlog-proof"
    copy = tmp_path / "copy.tlog-proof"
    shutil.copy(mine, copy)
    status, said = run("verify", sound, "--receipt", copy)
    assert (status, "3 receipts of entries of this log" in said) == (0, True)
    other = full_log(audited_plan("seed=7"), 5)
    copy.write_bytes(receipt_of(other, 9))
    with pytest.raises(UsageError, match="of which there is no mirror"):
        run("verify", sound, "--receipt", copy)
    copy.write_bytes(b"junk")
    with pytest.raises(AuditError, match="not a receipt"):
        run("verify", sound, "--receipt", copy)


def test_folder_without_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "federation.pub").write_text(key_called("federation").public_key().public_bytes_raw().hex())
    with pytest.raises(UsageError, match="no mirror of an audit log is in this folder"):
        run("verify", tmp_path)
    with pytest.raises(UsageError, match="no mirror of an audit log is in this folder"):
        run("show", tmp_path)


def test_mirror_that_is_damaged(folder: Path) -> None:
    mirror_in(folder).write_bytes(b"junk" * 5000)
    with pytest.raises(AuditError) as found:
        run("verify", folder)
    assert found.value.where == str(mirror_in(folder)) and found.value.remedy


# What stands in a log.


def test_entries_are_shown(exported: Path, log: AuditLogBuilder) -> None:
    status, said = run("show", exported)
    lines = said.splitlines()
    assert status == 0 and len(lines) == len(log.entries)
    assert lines[0].split()[:3] == ["0", "2026-03-01T12:00:00Z", "charter"]
    assert lines[2].endswith("plan_approved    owner-00 approves the plan (decision 0)")
    assert "round 1.0: from model" in lines[7]


def test_entries_are_shown_as_json(exported: Path, sound: Path, log: AuditLogBuilder) -> None:
    (found,) = json.loads(run("show", exported, "--json")[1])
    assert found["entries"] == [json.loads(entry) for entry in log.entries]
    (found,) = json.loads(run("show", sound, "--json")[1])
    assert found["file"] == str(mirror_in(sound))


def test_entry_that_cannot_be_shown(exported: Path, log: AuditLogBuilder) -> None:
    exported.write_bytes(encode_extension([*log.entries[:3], b"{}"], log.note()))
    status, said = run("show", exported)
    assert status == 1
    assert said.splitlines()[-1] == "     3 not an entry of a known type"
    assert json.loads(run("show", exported, "--json")[1])[0]["entries"][3] is None


def test_words_of_others_cannot_move_the_cursor(exported: Path) -> None:
    found = AuditLogBuilder(PLAN, 5)
    found.incident(note="all is well\x1b[2J\r\nok       signature and quorum")
    exported.write_bytes(found.exported())
    _, said = run("show", exported)
    assert said.splitlines()[-1].endswith("noted: all is well?[2J??ok       signature and quorum")


# Imports and speed.

PROBE = """
import sys
sys.path[:0] = {paths}
from testudo_client.cli import app
from typer.testing import CliRunner
result = CliRunner().invoke(app, {words})
print(result.stdout.splitlines()[-1], result.exit_code)
print("loaded:", *sorted({{"torch", "flwr", "opacus", "sklearn", "matplotlib", "ray"}} & set(sys.modules)))
"""


def test_verification_imports_neither_torch_nor_flower(tmp_path: Path, sound: Path, federation: Path) -> None:
    """Of a private plan's log, and of an owner's sound."""
    private = full_log(audited_plan(*EXAMPLE_PRIVATE, *SCORED, tables=SECURE), 10)
    exported = tmp_path / "private.tlog"
    exported.write_bytes(private.exported())
    for words in (
        ["audit", "verify", str(exported), "--federation-key", str(federation)],
        ["audit", "verify", str(sound)],
    ):
        probe = PROBE.format(paths=[str(ROOT / top) for top in ("common", "client")], words=words)
        ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ran.returncode == 0, ran.stderr
        said, loaded = ran.stdout.splitlines()
        assert said.startswith("The log holds:") and said.endswith(" 0")
        assert loaded == "loaded:"


def test_bar_of_a_long_log(exported: Path, federation: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """At a terminal; it goes to the error stream, and answers in JSON have none."""
    monkeypatch.setattr("testudo_client.audit_command._LONG", 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert verify_logs(VerifyRequest(exported, federation))
    shown = capfd.readouterr()
    assert "verifying" in shown.err and "verifying" not in shown.out
    assert verify_logs(VerifyRequest(exported, federation, as_json=True))
    assert "verifying" not in capfd.readouterr().err
