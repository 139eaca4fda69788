"""One run on the real set-up, and everything that can be killed, killed: a round closes, or the run goes on.

Server, SuperLink, door, four owners and their SuperNodes are processes of their own; they are forked from one that has
imported everything (zygote.py), so that their starts cost little. Whatever dies is killed with SIGKILL, an owner
together with its SuperNode, as by a power cut. One story is told while the rounds go on; the tests look at what became
of it.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.common.constant import ErrorCode

import testudo_client.cli
import testudo_server.cli
from testudo_client.home import OwnerHome
from testudo_client.ledger import Purpose, Reserved
from testudo_common.audit.entries import AnyEntry, Incident, IncidentKind, RoundClosed, RoundOpened, decode_entry
from testudo_common.audit.log import AuditLog
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_server.audit_file import AUDIT_LOG
from testudo_server.exchange import FAILED_ON_THE_WAY, NO_REPLY
from testudo_server.store import RoundRecord, RunStore
from testudo_simulations.deployment.command import free_port, shop_names
from testudo_simulations.deployment.commands import answered, said
from testudo_simulations.deployment.provisioned import provision
from testudo_simulations.deployment.tables import write_tables
from zygote import ForkedFederation, Zygote, children_of

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")]

SHOPS = shop_names(4)
ROUNDS = 30
"""More than the story takes: an attempt that was cut off is one of those that an owner takes part in."""
PLAN = {
    r"(?m)^(count|max_participations) = \d+$": rf"\1 = {ROUNDS}",
    r"epsilon = 8\.0": 'noise_multiplier = 3.0\naccountant = "rdp"',
    r"steps = 10": "steps = 2",
    r"hidden = \[16\]": "hidden = [4]",
    r"deadline_seconds = 120": "deadline_seconds = 6\nmin_replies = 3",
    r"min_cohort = 4": "min_cohort = 3\nstep_deadline_seconds = 6",
}
PHASES = {
    "before Opening": "witnessing",
    "before TrainRequest": "before training",
    "after Deliveries": "trained and charged",
    "before SurvivorSet": "its masked input has left",
    "before Confirmations": "unmasking",
}
"""Where an owner is killed, one after another, a round each."""
IN_THE_SUM = frozenset({"before SurvivorSet", "before Confirmations"})
SECONDS = 90.0


@dataclass
class Story:
    """What was done, and what is left of it.

    Attributes:
        folder: Of everything.
        federation: Its processes, which have ended.
        deaths: Point -> (owner, round in which it died).
        back: Owner or process -> seconds until it was there again, from its start, or from the kill.
        beheaded: Round in which the server was killed.
        ended: Status with which the server ended when it was asked to.
    """

    folder: Path
    federation: ForkedFederation
    deaths: dict[str, tuple[str, int]] = field(default_factory=dict)
    back: dict[str, float] = field(default_factory=dict)
    beheaded: int = 0
    ended: int = -1

    @property
    def plan(self) -> FederationPlan:
        return load_plan(self.federation.provisioned.plan)

    @property
    def records(self) -> Mapping[int, RoundRecord]:
        return {record.round: record for record in RunStore(self.federation.out).records()}

    def entries(self, file: Path) -> list[AnyEntry]:
        log = AuditLog(file)
        try:
            return [decode_entry(entry) for entry in log.entries()]
        finally:
            log.close()

    def attempts(self, number: int) -> list[int]:
        """Of a round, as the log has them."""
        entries = self.entries(self.federation.out / AUDIT_LOG)
        return [entry.attempt for entry in entries if isinstance(entry, RoundOpened) and entry.round == number]

    def reserved(self, owner: str, purpose: Purpose) -> list[tuple[int, int]]:
        """(round, attempt) of what an owner's ledger was charged with under the plan."""
        home, digest = OwnerHome(self.federation.provisioned.owners[owner]), self.plan.digest
        occasions = [
            entry.content.occasion
            for entry in home.ledger(home.policy()).entries()
            if isinstance(entry.content, Reserved)
        ]
        return [(o.round, o.attempt) for o in occasions if (o.purpose, o.plan_digest) == (purpose, digest)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("faults")
    with Zygote(folder / "zygote") as zygote:
        plan = write_tables(folder / "data", SHOPS, rows=40)
        text = plan.read_text().replace("min_cohort = 3", "min_cohort = 4")
        for pattern, value in PLAN.items():
            text, found = re.subn(pattern, value, text)
            assert found, pattern
        plan.write_text(f"{text}\n[audit]\ndeadline_seconds = 8\n")
        data = {shop: folder / "data" / f"{shop}.csv" for shop in SHOPS}
        words = ("--min-cohort", "3", "--min-group", "3")
        provisioned = provision(folder, plan, data, port=free_port(), words=words)
        with ForkedFederation(zygote, provisioned, folder / "run", folder / "logs") as federation:
            told = Story(folder, federation)
            federation.start()
            federation.wait_for_round(1)
            kill_a_child_of_the_server(told, "door")
            kill_owners(told)
            kill_a_child_of_the_server(told, "superlink_proce")
            federation.wait_for_round(federation.status()["round"] + 1, SECONDS)
            kill_a_node(told)
            kill_the_server(told)
            federation.wait_for_round(told.beheaded + 1, SECONDS)
            assert federation.server is not None
            told.ended = federation.server.stop()
            yield told


def wait(there: object, seconds: float = SECONDS) -> float:
    """Seconds until ``there`` says so."""
    began = time.monotonic()
    assert callable(there)
    while not there():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def connects(federation: ForkedFederation, owner: str, before: int) -> bool:
    """Whether its node has said so once more than ``before``."""
    return federation.owners[owner].output().count("connected") > before


def kill_owners(told: Story) -> None:
    """At each point another one, each in a round of its own; started again at once."""
    federation = told.federation
    for point, owner in zip(PHASES, (*SHOPS, SHOPS[0]), strict=True):
        before = federation.owners[owner].output().count("connected")
        federation.fault_file(owner).write_text(point)
        assert federation.owners[owner].wait(SECONDS) == -signal.SIGKILL
        told.deaths[point] = owner, federation.status()["round"] + 1
        federation.start_owner(owner)
        told.back[point] = wait(lambda owner=owner, before=before: connects(federation, owner, before))
        federation.wait_for_round(told.deaths[point][1], SECONDS)


def kill_a_node(told: Story) -> None:
    """Of an owner whose own process lives on."""
    federation, owner = told.federation, SHOPS[1]
    before = federation.owners[owner].output().count("connected")
    os.kill(children_of(federation.owners[owner].pid)["supernode"], signal.SIGKILL)
    told.back["supernode"] = wait(lambda: connects(federation, owner, before))


def kill_a_child_of_the_server(told: Story, name: str) -> None:
    """While a round is on."""
    federation = told.federation
    assert federation.server is not None
    server, killed = federation.server.pid, children_of(federation.server.pid)[name]
    os.kill(killed, signal.SIGKILL)
    told.back[name] = wait(lambda: children_of(server).get(name, killed) != killed)


def kill_the_server(told: Story) -> None:
    """In the middle of a round; what it started goes with it, and the owners stay."""
    federation = told.federation
    assert federation.server is not None
    told.beheaded = federation.status()["round"] + 1
    trained = told.federation.fault_file(SHOPS[2]).with_suffix(".left")
    wait(lambda: f"advertised {told.beheaded} " in trained.read_text())
    children = children_of(federation.server.pid)
    federation.server.kill()
    wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()))
    began = time.monotonic()
    federation.start_server("--resume")
    wait(lambda: federation.status()["state"] == "running")
    told.back["server"] = time.monotonic() - began
    federation.wait_for_round(told.beheaded, SECONDS)


def test_the_run_goes_on_and_without_a_fault_everybody_counts(story: Story) -> None:
    assert (story.ended, story.federation.status()["state"]) == (0, "stopped")
    assert sorted(story.records) == list(range(1, len(story.records) + 1))
    assert len(story.records) > story.beheaded
    faulty = {number for _, number in story.deaths.values()}
    assert any(record.excluded == () for number, record in story.records.items() if number not in faulty)


@pytest.mark.parametrize("point", PHASES)
def test_a_round_closes_without_an_owner_that_is_killed_or_with_it(story: Story, point: str) -> None:
    owner, number = story.deaths[point]
    excluded = dict(story.records[number].excluded)
    if point in IN_THE_SUM:
        assert owner not in excluded, "its update was there, and the others opened the sum"
    elif story.attempts(number) == [0]:
        gone = ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE  # which, is a matter of seconds
        why = {NO_REPLY, *(f"{FAILED_ON_THE_WAY} {code}" for code in gone)}
        assert excluded[owner] in why | ({"refused: not_logged"} if point == "before Opening" else set())
    assert any(owner not in dict(later.excluded) for round_, later in story.records.items() if round_ > number)


def test_a_killed_owner_is_charged_for_what_it_trained(story: Story) -> None:
    for point, (owner, number) in story.deaths.items():
        charged = number in {round_ for round_, _ in story.reserved(owner, Purpose.TRAINING)}
        assert charged == (point not in {"before Opening", "before TrainRequest"}), point


def test_nothing_is_charged_twice_and_nothing_not_at_all(story: Story) -> None:
    for owner in SHOPS:
        for purpose in (Purpose.TRAINING, Purpose.SUM):
            found = Counter(story.reserved(owner, purpose))
            assert set(found.values()) == {1}, (owner, purpose)
            counted = {number for number, record in story.records.items() if owner not in dict(record.excluded)}
            assert counted <= {round_ for round_, _ in found}


def test_no_mask_leaves_twice(story: Story) -> None:
    for owner in SHOPS:
        left = Counter(story.federation.fault_file(owner).with_suffix(".left").read_text().split("\n"))
        del left[""]
        assert len(left) >= 5 * (len(story.records) - 3) and set(left.values()) == {1}, owner
        sent = {tuple(map(int, line.split()[1:])) for line in left if line.startswith("vector")}
        assert sent <= set(story.reserved(owner, Purpose.SUM)), "each vector is charged before it leaves"


def test_a_killed_server_goes_on_and_its_log_is_one(story: Story) -> None:
    entries = story.entries(story.federation.out / AUDIT_LOG)
    incidents = [entry.kind for entry in entries if isinstance(entry, Incident)]
    assert set(incidents) == {IncidentKind.RESUMED}
    assert [entry.round for entry in entries if isinstance(entry, RoundClosed)] == sorted(story.records)
    attempts = story.attempts(story.beheaded)
    assert len(attempts) > 1 and attempts == list(range(len(attempts))), "an attempt that was cut off is not taken up"
    for owner, folder in story.federation.provisioned.owners.items():
        mirror = story.entries(OwnerHome(folder).audit(story.plan.digest).mirror)
        assert mirror == entries[: len(mirror)], owner
        closed = [entry.round for entry in mirror if isinstance(entry, RoundClosed)]
        assert closed[-1] >= story.beheaded, "it watches on"
        assert "FAILED" not in said(testudo_client.cli.app, "audit", "verify", folder)


def test_anybody_can_check_the_log(story: Story) -> None:
    keys, log = story.federation.provisioned.federation, story.folder / "run.tlog"
    said(testudo_server.cli.app, "audit", "export", story.federation.out, "--keys", keys, "--to", log)
    verified = answered(testudo_client.cli.app, "audit", "verify", log, "--federation-key", keys / "federation.pub")
    assert verified["holds"]


def test_what_is_killed_is_soon_there_again(story: Story) -> None:
    """Flower alone lets a node that was killed in again after a minute."""
    assert max(story.back.values()) < 30, story.back


def test_no_process_fell_over(story: Story) -> None:
    logs = [*story.folder.glob("logs/*.log"), *story.folder.glob("*/node/supernode.log")]
    logs += story.folder.glob("federation/superlink/*.log")
    for log in logs:
        assert "Traceback" not in log.read_text(), log
