"""A data owner with a folder, under a plan with an audit log: its ClientApp from init to a ledger that was rolled back.

The log is what a proper server would write; messages pass through Flower's records.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from typer.testing import CliRunner

from audit_logs import TIME, AuditLogBuilder
from helpers import OWNERS_TABLE, make_plan, message_in
from testudo_client import app as client_app
from testudo_client.app import (
    build_client_app,
    observer_from_context,
    participant_from_context,
    signer_from_context,
)
from testudo_client.cli import app as commands
from testudo_client.home import OwnerHome
from testudo_client.ledger import Entry
from testudo_client.policy.findings import Launch
from testudo_common.app_bundle import bundle_digest
from testudo_common.audit.entries import UpdateReceived
from testudo_common.audit.extension import decode_testimony, encode_extension
from testudo_common.audit.history import begin_history
from testudo_common.audit.statements import Approval, Contribution, Withdrawal, parse_statement
from testudo_common.flower_records import IDENTIFY, TRAIN, identity_in, to_records
from testudo_common.key_files import create_key, public_hex, read_key, read_log_key
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.vectors import vector_digest
from testudo_common.wire import (
    LogUpdate,
    Message,
    Refusal,
    RefusalReason,
    TrainReply,
    TrainRequest,
    Witnessed,
)
from testudo_server.roster import FEDERATION_KEY, FEDERATION_PUBLIC, LOG_KEY, ROSTER, admit
from testudo_simulations.grid import InProcessGrid

LAUNCH = Launch(bundle_digest())
PLAN = make_plan(
    'audit.mode="log"',
    'secure_aggregation.mode="plain"',
    "rounds.cohort_size=4",
    "rounds.min_replies=2",
    "rounds.max_participations=4",
    tables=OWNERS_TABLE,
)
MODEL = initial_vector(PLAN)
OTHERS = ("bob", "cyd", "dan")


class LogOfOwners(AuditLogBuilder):
    """A log of owners that have folders, and of a federation that has one; nobody has approved yet."""

    def __init__(self, plan: FederationPlan, server: Path, owners: dict[str, Path]) -> None:
        super().__init__(plan, 0, log_key=read_log_key(server / LOG_KEY), enrol=False)
        self.federation_key = read_key(server / FEDERATION_KEY)
        self.keys = {owner: read_key(folder / "identity.pem") for owner, folder in sorted(owners.items())}
        self._history = begin_history(self.federation_public, plan.digest)
        self.charter(bundle=bundle_digest())
        self.enrol()


class Ada:
    """An owner in a folder, her ClientApp, and the log of her federation.

    Attributes:
        home: Her folder.
        log: Of the federation; she is one of four.
    """

    def __init__(self, folder: Path) -> None:
        server, mine = folder / "server", folder / "ada"
        others = {name: public_hex(create_key(folder / name / "identity.pem")) for name in OTHERS}
        admit(server, "shops", others)
        pinned = (server / FEDERATION_PUBLIC).read_text().strip()
        said = command("init", str(mine), "--client", "ada", "--no-privacy", "--federation-key", pinned, "--json")
        admit(server, "shops", {"ada": json.loads(said)["public_key"]})
        for name in (ROSTER, FEDERATION_PUBLIC):
            (mine / name).write_bytes((server / name).read_bytes())
        self.plan_file, self.data = folder / "plan.toml", folder / "mine.csv"
        self.plan_file.write_text(dump_plan(PLAN))
        self.data.write_text("price,size,sold\n1,2,no\n3,4,yes\n")
        self.home = OwnerHome(mine)
        text = self.home.policy_file.read_text()
        self.home.policy_file.write_text(text.replace("secure = true ", "secure = false"))
        self.log = LogOfOwners(PLAN, server, {"ada": mine, **{name: folder / name for name in OTHERS}})
        self.known = 0

    def grid(self) -> InProcessGrid:
        """A federation of her ClientApp alone."""
        config = {"owner": str(self.home.folder), "plan": str(self.plan_file), "data": str(self.data)}

        def context(_: Context) -> Context:
            return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})

        app = build_client_app(
            lambda given: participant_from_context(context(given), LAUNCH),
            lambda given: observer_from_context(context(given), LAUNCH),
            lambda given: signer_from_context(context(given)),
        )
        return InProcessGrid(app, 1)

    def asked(self, message: Message) -> Message:
        """What her ClientApp answers."""
        grid = self.grid()
        (node,) = grid.get_node_ids()
        (reply,) = grid.send_and_receive([FlowerMessage(to_records(message), node, TRAIN)])
        return message_in(reply.content)

    def name(self) -> str:
        """Who her ClientApp says that she is."""
        grid = self.grid()
        (node,) = grid.get_node_ids()
        (reply,) = grid.send_and_receive([FlowerMessage(RecordDict(), node, IDENTIFY)])
        return identity_in(reply.content)[0]

    def told(self, cosigned: bytes = b"") -> Message:
        """What she answers to what is new in the log; to what she lacks, where she says that she does."""
        body = encode_extension(self.log.entries[self.known :], self.log.note(cosigners=()), cosigned)
        reply = self.asked(LogUpdate(PLAN.digest, 1, 0, self.known, body))
        if isinstance(reply, Witnessed):
            lacking, self.known = reply.size < self.known, reply.size
            return self.told(cosigned) if lacking else reply
        return reply

    def statements(self) -> tuple[Any, ...]:
        """What she says beside her cosignature, which is there."""
        reply = self.told()
        assert isinstance(reply, Witnessed) and reply.size == len(self.log.entries), reply
        testimony = decode_testimony(reply.body)
        assert testimony.cosignature
        return testimony.statements

    def request(self) -> TrainRequest:
        """To train in the open attempt, under a checkpoint that all have cosigned."""
        opened = self.log.history.opened
        assert opened is not None
        entry = opened[1]
        return TrainRequest(PLAN.digest, entry.round, entry.attempt, entry.model_digest, MODEL, None, self.log.note())

    def round(self, time: str = TIME) -> Message:
        """A round, with all that have approved; her answer, whose statement is logged at ``time``."""
        self.log.open(model_digest=vector_digest(MODEL))
        self.told()
        reply = self.asked(self.request())
        for owner in self.log.history.opened[1].cohort:  # type: ignore[index]
            if owner != "ada":
                self.log.receive(owner)
        if isinstance(reply, TrainReply):
            statement = parse_statement(reply.statement or "")
            assert isinstance(statement, Contribution)
            self.log.append(UpdateReceived(time=time, statement=statement))
        self.log.close(model_digest=vector_digest(MODEL))
        return reply

    def all_approve(self) -> None:
        """She by command, and the others."""
        command("approve", str(self.plan_file), str(self.home.folder), "--yes")
        (said,) = self.statements()
        assert isinstance(said, Approval)
        for owner in ("ada", *OTHERS):
            self.log.approve(owner)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.home.ledger(None).entries()

    @property
    def last_line(self) -> tuple[str, str]:
        line = list(self.home.log.lines())[-1]
        return line.reason, line.sentence


def command(*words: str) -> str:
    result = CliRunner().invoke(commands, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def begun_anew() -> None:
    """As a process that has just begun."""
    client_app._participant.cache_clear()
    client_app._observer.cache_clear()


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Ada]:
    yield Ada(tmp_path)
    begun_anew()


def put_back(copy: Path, folder: Path) -> None:
    """Every file as it was, in its place: the inode is the same, so no anchor sees a difference."""
    for path in folder.rglob("*"):
        if path.is_file() and not (copy / path.relative_to(folder)).exists():
            path.unlink()
    for path in copy.rglob("*"):
        if path.is_file():
            with (folder / path.relative_to(copy)).open("r+b") as file:
                file.truncate()
                file.write(path.read_bytes())


def test_owner_that_has_not_approved_watches_and_its_data_is_not_read(ada: Ada) -> None:
    ada.data.unlink()
    assert ada.name() == "ada"
    assert ada.statements() == ()
    for owner in OTHERS:
        ada.log.approve(owner)
    ada.log.open(model_digest=vector_digest(MODEL))
    assert ada.statements() == ()
    assert ada.asked(ada.request()) == Refusal(PLAN.digest, 1, 0, RefusalReason.NOT_LOGGED)
    assert "not in the cohort" in ada.last_line[1]


@pytest.mark.parametrize("what", ["none", "another client", "dates", "size"])
def test_owner_whose_policy_says_no_watches(ada: Ada, what: str) -> None:
    ada.data.unlink()
    text = ada.home.policy_file.read_text()
    match what:
        case "none":
            ada.home.policy_file.unlink()
        case "another client":
            ada.home.policy_file.write_text(text.replace('client = "ada"', 'client = "eve"'))
        case "dates":
            ada.home.policy_file.write_text(text.replace("not_after = 20", "not_after = 19"))
        case _:
            ada.home.policy_file.write_text(text.replace("max_bytes = ", "max_bytes = 4 #"))
    assert ada.name() == "ada"
    assert ada.statements() == ()


def test_approval_travels_once(ada: Ada) -> None:
    ada.all_approve()
    assert ada.statements() == ()


def test_request_before_the_log_is_there_reads_no_data(ada: Ada) -> None:
    ada.all_approve()
    ada.log.open(model_digest=vector_digest(MODEL))
    request = ada.request()
    ada.data.unlink()
    begun_anew()
    assert ada.asked(request) == Refusal(PLAN.digest, 1, 0, RefusalReason.NOT_LOGGED)
    assert ada.last_line[0] == "not_logged"


def test_round_is_trained_and_a_receipt_is_kept(ada: Ada) -> None:
    ada.all_approve()
    assert isinstance(ada.round(), TrainReply)
    begun_anew()
    ada.told()
    ada.told(cosigned=ada.log.note())
    files = ada.home.audit(PLAN.digest)
    assert files.receipt(1, 0).exists() and files.salt(1, 0).exists()
    private = [path for path in ada.home.folder.rglob("*") if path.is_file()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private if path.name not in {ROSTER, FEDERATION_PUBLIC})


def test_withdrawal_while_the_run_goes_on(ada: Ada) -> None:
    ada.all_approve()
    ada.round()
    command("withdraw", PLAN.digest, str(ada.home.folder))
    (said,) = ada.statements()
    assert isinstance(said, Withdrawal) and said.number == 1
    # A server that does not log it, and asks her again.
    ada.log.open(model_digest=vector_digest(MODEL))
    (again,) = ada.statements()
    assert again == said
    before = len(ada.entries)
    assert ada.asked(ada.request()) == Refusal(PLAN.digest, 2, 0, RefusalReason.NOT_APPROVED)
    assert len(ada.entries) == before
    # One that does, and goes on without her: she watches on.
    for owner in OTHERS:
        ada.log.receive(owner)
    ada.log.close(model_digest=vector_digest(MODEL))
    ada.log.withdraw("ada")
    ada.log.open(model_digest=vector_digest(MODEL))
    assert ada.statements() == ()
    assert ada.asked(ada.request()) == Refusal(PLAN.digest, 3, 0, RefusalReason.NOT_LOGGED)
    assert len(ada.entries) == before


def test_cohort_that_holds_an_owner_that_has_withdrawn(ada: Ada) -> None:
    """The others' rule too: History's."""
    ada.all_approve()
    ada.log.withdraw("bob")
    index = ada.log.open(model_digest=vector_digest(MODEL), cohort=("ada", "bob", "cyd"))
    refusal = ada.told()
    assert isinstance(refusal, Refusal) and refusal.reason is RefusalReason.LOG_NOT_TRUSTED
    assert ada.last_line[1].startswith(f"bob, entry {index}: it is asked, and has withdrawn")


def test_stopped_owner_goes_on_when_a_person_has_looked(ada: Ada) -> None:
    ada.all_approve()
    ada.round()
    ada.told()
    true = list(ada.log.entries)
    ada.log.entries[-1] = true[-1].replace(b'"time":"2026', b'"time":"2027')
    other = ada.log.note()
    ada.log.entries[:] = true
    refused = ada.told(cosigned=other)
    assert isinstance(refused, Refusal) and refused.reason is RefusalReason.LOG_NOT_TRUSTED
    assert "two different histories" in ada.last_line[1]
    begun_anew()
    assert ada.told() == refused
    reason, sentence = ada.last_line
    assert reason == "log_not_trusted" and "moves that file away" in sentence
    halt = ada.home.audit(PLAN.digest).halt
    assert str(halt) in sentence
    halt.unlink()
    assert ada.statements() == ()


def test_ledger_that_was_rolled_back_with_all_that_could_tell(ada: Ada, tmp_path: Path) -> None:
    ada.all_approve()
    ada.round()
    ada.told()
    copy = tmp_path / "copy"
    shutil.copytree(ada.home.folder, copy)
    assert isinstance(ada.round(), TrainReply)
    spent = len(ada.entries)
    put_back(copy, ada.home.folder)
    begun_anew()
    assert len(ada.entries) == spent - 2, "the ledger itself notices nothing"

    ada.data.unlink()
    refused = ada.told()
    assert refused == Refusal(PLAN.digest, 1, 0, RefusalReason.LEDGER_UNUSABLE)
    reason, sentence = ada.last_line
    assert reason == "ledger_unusable"
    assert "the ledger was rolled back" in sentence and "what you signed in round 2" in sentence
    ada.log.open(model_digest=vector_digest(MODEL))
    assert ada.told() == refused, "again and again"
    assert ada.asked(ada.request()) == Refusal(PLAN.digest, 3, 0, RefusalReason.NOT_LOGGED)
    assert len(ada.entries) == spent - 2


def test_ledger_that_was_restored_and_adopted(ada: Ada, tmp_path: Path) -> None:
    """Whoever knows why says so; what comes after that is compared again."""
    ada.all_approve()
    ada.round()
    ada.told()
    copy = tmp_path / "copy"
    shutil.copytree(ada.home.folder, copy)
    ada.round()
    put_back(copy, ada.home.folder)
    begun_anew()
    assert isinstance(ada.told(), Refusal)
    command("ledger", str(ada.home.folder), "--adopt", "a disk broke")
    begun_anew()
    assert ada.statements() == ()

    # A second time it is found out again, though the ledger was adopted before.
    shutil.rmtree(copy)
    shutil.copytree(ada.home.folder, copy)
    assert isinstance(ada.round(time="2999-01-01T00:00:00Z"), TrainReply)
    put_back(copy, ada.home.folder)
    begun_anew()
    assert ada.told() == Refusal(PLAN.digest, 1, 0, RefusalReason.LEDGER_UNUSABLE)
    assert "what you signed in round 3" in ada.last_line[1]


def test_adopting_does_not_excuse_what_comes_after_it(ada: Ada, tmp_path: Path) -> None:
    """Once the log holds a contribution from after it, an adoption does not explain what is missing."""
    command("ledger", str(ada.home.folder), "--adopt", "a new computer")
    ada.all_approve()
    ada.round()
    ada.told()
    copy = tmp_path / "copy"
    shutil.copytree(ada.home.folder, copy)
    ada.round()
    put_back(copy, ada.home.folder)
    begun_anew()
    assert ada.told() == Refusal(PLAN.digest, 1, 0, RefusalReason.LEDGER_UNUSABLE)


def test_plan_that_the_owner_was_not_given(ada: Ada) -> None:
    body = encode_extension(ada.log.entries, ada.log.note(cosigners=()))
    reply = ada.asked(LogUpdate("ab" * 32, 0, 0, 0, body))
    assert reply == Refusal("ab" * 32, 0, 0, RefusalReason.OTHER_PLAN)
    assert ada.last_line[0] == "other_plan"


def test_folder_without_a_roster_cannot_watch(ada: Ada) -> None:
    ada.home.roster_file.unlink()
    reply = ada.told()
    assert reply == Refusal(PLAN.digest, 1, 0, RefusalReason.INTERNAL)
    assert ada.last_line[0] == "cannot_start"
