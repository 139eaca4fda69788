"""``testudo-server audit``: what it shows, proves, exports and adds. Wrong inputs end in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from audit_logs import AuditLogBuilder, audited_plan, key_called
from testudo_client.audit_command import VerifyRequest, verify_logs
from testudo_common.audit.entries import Incident, LeakageDrill, ModelReleased, decode_entry
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import decode_receipt, verify_receipt
from testudo_common.errors import AuditError, KeyFileError, TestudoError, UsageError
from testudo_common.key_files import public_hex
from testudo_common.roster import sign_roster
from testudo_server import cli
from testudo_server.audit_file import AUDIT_LOG, held_log

ROUNDS = 2


def run(*arguments: object) -> Result:
    """A command as typed; an error of ours is raised, as it is on its way to its one sentence."""
    result = CliRunner().invoke(cli.app, ["audit", *(str(argument) for argument in arguments)])
    if isinstance(result.exception, TestudoError):
        raise result.exception
    return result


@pytest.fixture
def builder() -> AuditLogBuilder:
    builder = AuditLogBuilder(audited_plan())
    builder.rounds(ROUNDS)
    return builder


@pytest.fixture
def out(tmp_path: Path, builder: AuditLogBuilder) -> Path:
    """A run's folder with its log, all of it cosigned, and the federation's keys in ``keys``."""
    folder = tmp_path / "run"
    with held_log(folder, durable=False) as log:
        log.append(builder.entries, builder.note())
    keys = folder / "keys"
    keys.mkdir()
    (keys / "federation.pub").write_text(builder.federation_public.hex())
    (keys / "roster.json").write_bytes(builder.signed_roster())
    pem = key_called("log").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (keys / "log.pem").write_bytes(pem)
    (keys / "log.pem").chmod(0o600)
    return folder


def entries_in(out: Path) -> list[bytes]:
    log = AuditLog(out / AUDIT_LOG)
    try:
        return list(log.entries())
    finally:
        log.close()


def test_entries_are_shown_a_line_each(out: Path, builder: AuditLogBuilder) -> None:
    lines = run("show", out).output.splitlines()
    assert len(lines) == len(builder.entries)
    assert "charter" in lines[0] and "round_closed" in lines[-1]
    found = json.loads(run("show", out, "--json").output)
    assert [entry["type"] for entry in found] == [decode_entry(data).type for data in builder.entries]


@pytest.mark.parametrize("by_index", [True, False])
def test_receipt_proves_what_it_names(out: Path, builder: AuditLogBuilder, by_index: bool, tmp_path: Path) -> None:
    owner = builder.owners[0]
    index, statement = builder.history.contributions[owner][-1]
    asked = ("--entry", index) if by_index else ("--round", statement.round, "--client", owner)
    run("prove", out, *asked, "--to", tmp_path / "receipt")
    receipt = decode_receipt((tmp_path / "receipt").read_bytes())
    assert (receipt.index, receipt.entry) == (index, builder.entries[index])
    _, cosigners = verify_receipt(receipt, builder.watch, builder.history.quorum or 0)
    assert cosigners == set(builder.owners)
    assert run("prove", out, *asked).stdout_bytes == receipt.encode()


def test_receipt_is_under_the_smallest_checkpoint_that_a_quorum_cosigned(out: Path, builder: AuditLogBuilder) -> None:
    with held_log(out, durable=False) as log:
        log.keep_note(builder.note(len(builder.entries) - 1, cosigners=builder.owners[:1]))
    receipt = decode_receipt(run("prove", out, "--entry", 0).stdout_bytes)
    assert receipt.note == builder.note()


def test_export_holds_for_whoever_has_the_federations_key(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run("export", out, "--to", tmp_path / "run.tlog").output
    assert said.strip().endswith(f"{len(entries_in(out))} entries")
    assert verify_logs(VerifyRequest(tmp_path / "run.tlog", out / "keys" / "federation.pub"))
    assert "The log holds" in capsys.readouterr().out


def test_export_carries_the_quorums_checkpoint_beside_a_later_one(out: Path, builder: AuditLogBuilder) -> None:
    agreed = builder.note()
    run("record", out, "--keys", out / "keys", "--incident", "the office moved")
    run("export", out, "--to", out / "run.tlog")
    exported = decode_extension((out / "run.tlog").read_bytes())
    assert exported.cosigned == agreed and exported.note != agreed
    assert verify_logs(VerifyRequest(out / "run.tlog", out / "keys" / "federation.pub"))


def test_what_a_person_knows_is_added_and_signed(out: Path, builder: AuditLogBuilder, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("{}")
    run("record", out, "--keys", out / "keys", "--drill", report, "--failed")
    run("record", out, "--keys", out / "keys", "--release", "the clinics of Ulm")
    said = run("record", out, "--keys", out / "keys", "--incident", "the office moved").output
    drill, released, incident = map(decode_entry, entries_in(out)[-3:])
    assert isinstance(drill, LeakageDrill) and isinstance(released, ModelReleased) and isinstance(incident, Incident)
    assert (drill.report, drill.passed) == (hashlib.sha256(b"{}").hexdigest(), False)
    assert (released.round, released.model_digest) == (ROUNDS, builder.history.model_digest)
    assert incident.note == "the office moved"
    assert said.startswith(f"Entry {len(builder.entries) + 2} is in the log")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "not said what"),
        (("--release", "a", "--incident", "b"), "not said what"),
        (("--drill", "report.json"), "not said what"),
        (("--passed", "--incident", "b"), "not said what"),
        (("--drill", "missing.json", "--passed"), "cannot be read"),
        (("--release", "a" * 201), "too long"),
        (("--incident", "a" * 501), "too long"),
    ],
)
def test_what_cannot_be_written_down_is_refused(out: Path, arguments: tuple[str, ...], said: str) -> None:
    before = entries_in(out)
    with pytest.raises(UsageError, match=said):
        run("record", out, "--keys", out / "keys", *arguments)
    assert entries_in(out) == before


def test_release_before_a_round_is_closed_is_refused(tmp_path: Path, out: Path) -> None:
    young = AuditLogBuilder(audited_plan())
    with held_log(tmp_path / "young", durable=False) as log:
        log.append(young.entries, young.note())
    with pytest.raises(UsageError, match="no round is closed"):
        run("record", tmp_path / "young", "--keys", out / "keys", "--release", "anybody")


def test_another_federations_keys_add_nothing(out: Path) -> None:
    before = entries_in(out)
    other = AuditLogBuilder(audited_plan(), federation="others")
    (out / "keys" / "roster.json").write_bytes(other.signed_roster())
    with pytest.raises(UsageError, match="not the roster that the log holds"):
        run("record", out, "--keys", out / "keys", "--incident", "forged")
    (out / "keys" / "roster.json").write_bytes(sign_roster(other.roster(), key_called("another")))
    (out / "keys" / "federation.pub").write_text(public_hex(key_called("another")))
    with pytest.raises(AuditError, match="federation"):
        run("record", out, "--keys", out / "keys", "--incident", "forged")
    (out / "keys" / "log.pem").unlink()
    with pytest.raises(KeyFileError):
        run("record", out, "--keys", out / "keys", "--incident", "forged")
    assert entries_in(out) == before


def test_log_that_is_being_written_is_left_alone(out: Path) -> None:
    with held_log(out, durable=False), pytest.raises(UsageError, match="another process"):
        run("record", out, "--keys", out / "keys", "--incident", "at the same time")


@pytest.mark.parametrize(
    "arguments", [("--entry", "9999"), ("--round", "9", "--client", "owner-00"), ("--round", "1"), ()]
)
def test_receipt_of_what_is_not_there_is_refused(out: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        run("prove", out, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("prove", "--entry", "1"),
        ("export", "--to", "x.tlog"),
        ("record", "--keys", "keys", "--incident", "x"),
    ],
)
def test_folder_without_a_log_is_told_and_stays_empty(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no audit log here"):
        run(arguments[0], tmp_path / "empty", *arguments[1:])
    assert not list((tmp_path / "empty").iterdir())


def test_log_of_which_nothing_was_signed_is_not_exported(tmp_path: Path, builder: AuditLogBuilder) -> None:
    with held_log(tmp_path / "unsigned", durable=False) as log:
        log.append(builder.entries)
    with pytest.raises(UsageError, match="signed"):
        run("export", tmp_path / "unsigned", "--to", tmp_path / "x.tlog")
    assert not (tmp_path / "x.tlog").exists()
    with pytest.raises(AuditError, match="no checkpoint"):
        run("prove", tmp_path / "unsigned", "--entry", "1")
