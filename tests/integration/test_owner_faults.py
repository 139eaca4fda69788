"""What can go wrong at one owner while a run goes on: its network, its disk, its certificate, its key, its clock.

Server, owners and SuperNodes are processes of their own, forked from one that has imported everything (zygote.py). The
server and all owners but one are in one network namespace, that one in another with a disk of its own; a line between
the two is cut. Owners whose files or clocks are wrong come to the same server meanwhile. One story is told, and the
tests look at what became of it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import testudo_client.cli
import testudo_server.cli
from elsewhere import CLOCK_AHEAD, NETNS
from fake_door import fake_door
from network_spaces import Line, line, small_disk, why_not
from provisioned import founded, joined
from seen_processes import until
from testudo_client.home import OwnerHome
from testudo_client.ledger import Purpose, Reserved
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.plan.load import load_plan
from testudo_common.provisioning.certificates import (
    Authority,
    certificate_pem,
    client_certificate,
    read_certificate,
    server_certificate,
)
from testudo_common.provisioning.tls_keys import read_tls_key
from testudo_server.exchange import FAILED_ON_THE_WAY, NO_REPLY
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.store import RoundRecord, RunStore
from testudo_simulations.deployment.command import free_port, shop_names
from testudo_simulations.deployment.commands import answered, said
from testudo_simulations.deployment.processes import CommandProcess
from testudo_simulations.deployment.provisioned import Provisioned, provision
from testudo_simulations.deployment.tables import write_tables
from zygote import ForkedFederation, Zygote

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

SHOPS = shop_names(4)
UNLUCKY = SHOPS[3]
ROUNDS = 60
"""More than the story needs: the server is stopped when it is told."""
PLAN = {
    r"(?m)^(count|max_participations) = \d+$": rf"\1 = {ROUNDS}",
    r"epsilon = 8\.0": 'noise_multiplier = 8.0\naccountant = "rdp"',
    r"steps = 10": "steps = 2",
    r"hidden = \[16\]": "hidden = [4]",
    r"deadline_seconds = 120": "deadline_seconds = 8\nmin_replies = 3",
    r"min_cohort = 4": "min_cohort = 3\nstep_deadline_seconds = 8",
}
DISK_KILOBYTES = 4096
SECONDS = 90.0
LONG_AGO = timedelta(days=3000)
SPOILT = {
    "expired certificate": "Your certificate expired on ",
    "certificate of another federation": "refuses your certificate: ask your federation whether it was revoked",
    "revoked": "your admission was revoked, or your certificate was replaced",
    "another node key": "your node's key is another than the one admitted with it",
    "clock an hour ahead": "This computer's clock is 3600 s ahead of the server's",
    "clock an hour behind": "This computer's clock is 3600 s behind the server's",
    "server's certificate expired": "is not valid today: check this computer's date, and else tell your federation",
    "server of another federation": "was not signed by your federation: something else answers there",
}
LASTING = ("expired certificate", "certificate of another federation", "revoked", "another node key")
"""What no waiting mends; of everything else it may."""


class PlacedFederation(ForkedFederation):
    """A federation whose processes are in namespaces."""

    def __init__(self, zygote: Zygote, provisioned: Provisioned, folder: Path, place: Line) -> None:
        super().__init__(zygote, provisioned, folder / "run", folder / "logs")
        self._place = place
        self.zygote = zygote

    def start_server(self, *words: str, prefix: object = ()) -> CommandProcess:
        found, port = self.provisioned, json.loads(self.files(UNLUCKY).server.read_text())["port"]
        listen = ("--listen", f"{self._place.address}:{port}", "--status", "127.0.0.1:0")
        command = ["testudo_server.cli", "run", str(found.plan), str(found.federation), "--out", str(self.out), *listen]
        self.server = self.placed("server", command, {NETNS: self._place.server})
        return self.server

    def start_owner(self, owner: str, *words: str, prefix: object = ()) -> CommandProcess:
        space = self._place.owner if owner == UNLUCKY else self._place.server
        self.owners[owner] = self.node(owner, self.provisioned.owners[owner], {NETNS: space})
        return self.owners[owner]

    def node(self, name: str, folder: Path, environment: Mapping[str, str]) -> CommandProcess:
        """``testudo-client run``."""
        plan, data = self.provisioned.plan, self.provisioned.data[UNLUCKY]
        command = ["testudo_client.cli", "run", str(folder), "--plan", str(plan), "--data", str(data)]
        return self.placed(name, command, environment)

    def placed(self, name: str, command: list[str], environment: Mapping[str, str]) -> CommandProcess:
        """A process elsewhere."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        return self._stack.enter_context(self.zygote.start(name, ["elsewhere", *command], log, environment))

    def files(self, owner: str) -> ConnectionFiles:
        """Of an owner."""
        return ConnectionFiles(self.provisioned.owners[owner])


@dataclass
class Story:
    """What was done, and what is left of it.

    Attributes:
        cut: Rounds that were finished when the line was cut, when it was mended, and when the owner counted again.
        full: The same of its disk.
        ends: Fault -> exit status of the owner who had it; None: it was still trying.
        said: Fault -> what its process printed.
        ledgers: Folder of a spoilt owner -> its ledger before it was started.
    """

    folder: Path
    federation: PlacedFederation
    cut: tuple[int, int, int] = (0, 0, 0)
    full: tuple[int, int, int] = (0, 0, 0)
    ends: dict[str, int | None] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    ledgers: dict[str, bytes] = field(default_factory=dict)

    @property
    def records(self) -> list[RoundRecord]:
        return list(RunStore(self.federation.out).records())

    def until_excluded(self, after: int) -> int:
        """Rounds finished, once one after so many has closed without the owner."""
        return self._until(lambda record: UNLUCKY in dict(record.excluded), after, "a round without it")

    def until_counted(self, after: int) -> int:
        """The same with it."""
        return self._until(lambda record: UNLUCKY not in dict(record.excluded), after, "a round with it")

    def _until(self, wanted: Callable[[RoundRecord], bool], after: int, what: str) -> int:
        assert self.federation.server is not None

        def there() -> bool:
            return any(map(wanted, self.records[after:]))

        self.federation.server.wait_for(there, SECONDS, what=what)
        return len(self.records)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        place, zygote = stack.enter_context(line()), stack.enter_context(Zygote(folder / "zygote"))
        (folder / UNLUCKY).mkdir()
        stack.enter_context(small_disk(folder / UNLUCKY, DISK_KILOBYTES))
        plan = write_tables(folder / "data", SHOPS, rows=40)
        text = plan.read_text().replace("min_cohort = 3", "min_cohort = 4")
        for pattern, value in PLAN.items():
            text, found = re.subn(pattern, value, text)
            assert found, pattern
        plan.write_text(f"{text}\n[audit]\ndeadline_seconds = 6\n")
        data = {shop: folder / "data" / f"{shop}.csv" for shop in SHOPS}
        words = ("--min-cohort", "3", "--min-group", "3")
        provisioned = provision(folder, plan, data, port=free_port(), hosts=(place.address, "localhost"), words=words)
        revoked = admitted_and_revoked(folder, provisioned)
        with PlacedFederation(zygote, provisioned, folder, place) as federation:
            told = Story(folder, federation)
            spoilt_places = spoilt_owners(told, place, revoked, stack)
            federation.start()
            told.until_counted(0)
            spoilt = {fault: federation.node(fault, *where) for fault, where in spoilt_places.items()}
            cut_the_line(told, place)
            fill_the_disk(told)
            end(told, spoilt)
            assert federation.server is not None
            assert federation.server.stop(30) == 0
            yield told


def admitted_and_revoked(folder: Path, provisioned: Provisioned) -> Path:
    """Somebody who was admitted before the run, and is let in no more."""
    client, server, home = testudo_client.cli.app, testudo_server.cli.app, folder / "revoked"
    invite, request, answer = (folder / f"revoked.{kind}" for kind in ("invite", "request", "answer"))
    said(server, "invite", provisioned.federation, "revoked", "--to", invite)
    one = answered(client, "join", invite, home, "--to", request)["fingerprint"]
    said(server, "admit", provisioned.federation, request, "--fingerprint", one, "--to", answer)
    said(client, "install", answer, home, "--fingerprint", one)
    said(server, "revoke", provisioned.federation, "revoked")
    roster = (provisioned.federation / "roster.json").read_bytes()
    for owner in provisioned.owners.values():
        (owner / "roster.json").write_bytes(roster)
    return home


def spoilt_owners(
    told: Story, place: Line, revoked: Path, stack: ExitStack
) -> dict[str, tuple[Path, Mapping[str, str]]]:
    """For each fault a folder, as it was before the first round, and where its process is to be."""
    federation, folder = told.federation, told.folder
    authority = FederationFolder(federation.provisioned.federation)
    signing = Authority(
        read_certificate(authority.ca_certificate.read_text(), source="ca"), read_tls_key(authority.ca_key)
    )
    other = founded(folder / "other-federation")
    now, server_side = datetime.now(UTC), {NETNS: place.server}

    def copy(name: str, source: Path = federation.provisioned.owners[SHOPS[0]]) -> ConnectionFiles:
        home = shutil.copytree(source, folder / name.replace(" ", "-"), symlinks=True)
        told.ledgers[home.name] = (home / "state" / "ledger.db").read_bytes()
        return ConnectionFiles(home)

    expired = copy("expired certificate")
    key = read_tls_key(expired.client_key)
    old = client_certificate(signing, key.public_key(), SHOPS[0], now - LONG_AGO)
    expired.client_certificate.write_text(certificate_pem(old))
    foreign = copy("certificate of another federation")
    stranger = ConnectionFiles(joined(other, SHOPS[0], folder / "stranger", now).folder)
    for name in ("client_key", "client_certificate"):
        getattr(foreign, name).write_bytes(getattr(stranger, name).read_bytes())
    another = copy("another node key")
    made = ec.generate_private_key(ec.SECP384R1())
    another.node_key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    places = {
        "expired certificate": (expired, server_side),
        "certificate of another federation": (foreign, server_side),
        "revoked": (ConnectionFiles(revoked), server_side),
        "another node key": (another, server_side),
        "clock an hour ahead": (copy("ahead"), {**server_side, CLOCK_AHEAD: "3600"}),
        "clock an hour behind": (copy("behind"), {**server_side, CLOCK_AHEAD: "-3600"}),
        "server's certificate expired": (copy("expired server"), {}),
        "server of another federation": (copy("other server"), {}),
    }
    past = server_certificate(signing, read_tls_key(authority.server_key).public_key(), ("localhost",), now - LONG_AGO)
    (folder / "past.crt").write_text(certificate_pem(past))
    doors = {
        "server's certificate expired": (folder / "past.crt", authority.server_key),
        "server of another federation": (other.server_certificate, other.server_key),
    }
    for fault, (certificate, server_key) in doors.items():
        door = stack.enter_context(fake_door(certificate, server_key, authority.ca_certificate))
        file = places[fault][0].server
        file.write_text(json.dumps({**json.loads(file.read_text()), "host": "localhost", "port": door.port}))
    return {fault: (files.owner, where) for fault, (files, where) in places.items()}


def cut_the_line(told: Story, place: Line) -> None:
    """In the middle of a round, for as long as it takes to close one without the owner."""
    before = len(told.records)
    time.sleep(0.3)
    place.cut()
    mended = told.until_excluded(before)
    place.mend()
    told.cut = before, mended, told.until_counted(mended)


def fill_the_disk(told: Story) -> None:
    """Until nothing more can be written; then there is room again."""
    before = len(told.records)
    filler = told.federation.provisioned.owners[UNLUCKY] / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    mended = told.until_excluded(before)
    filler.unlink()
    told.full = before, mended, told.until_counted(mended)


def end(told: Story, spoilt: dict[str, CommandProcess]) -> None:
    """Wait for what they say, and how those end whose fault lasts."""
    for fault, process in spoilt.items():
        until(lambda process=process, fault=fault: SPOILT[fault] in process.output() or process.status is not None,
              fault, SECONDS)  # fmt: skip
    for fault, process in spoilt.items():
        if fault in LASTING:
            until(lambda process=process: process.status is not None, fault, SECONDS)
        told.ends[fault], told.said[fault] = process.status, process.output()


def test_without_a_fault_everybody_counts(story: Story) -> None:
    assert story.records[0].excluded == ()


def test_a_cut_line_closes_a_round_and_a_mended_one_brings_the_owner_back(story: Story) -> None:
    before, mended, back = story.cut
    words = {dict(record.excluded).get(UNLUCKY) for record in story.records[before:mended]} - {None}
    assert words and all(word.startswith((NO_REPLY, FAILED_ON_THE_WAY)) for word in words), words
    assert back > mended and "connected" in story.federation.owners[UNLUCKY].output()
    assert story.federation.owners[UNLUCKY].output().count("plan ") == 1, "by itself: the same process"


def test_a_full_disk_refuses_training_and_one_with_room_goes_on(story: Story) -> None:
    before, mended, back = story.full
    words = {dict(record.excluded).get(UNLUCKY) for record in story.records[before:mended]} - {None}
    assert words and all(word == NO_REPLY or word.startswith("refused: ") for word in words), words
    assert back > mended


def test_nothing_leaves_uncharged_or_is_charged_twice(story: Story) -> None:
    plan = load_plan(story.federation.provisioned.plan)
    for owner, folder in story.federation.provisioned.owners.items():
        home = OwnerHome(folder)
        occasions = [
            entry.content.occasion
            for entry in home.ledger(home.policy()).entries()
            if isinstance(entry.content, Reserved) and entry.content.occasion.plan_digest == plan.digest
        ]
        charges = Counter((each.purpose, each.round, each.attempt) for each in occasions)
        assert set(charges.values()) == {1}, owner
        charged = {each.round for each in occasions if each.purpose is Purpose.TRAINING}
        counted = {record.round for record in story.records if owner not in dict(record.excluded)}
        assert counted <= charged, owner


def test_the_log_and_its_mirrors_hold(story: Story) -> None:
    keys, log = story.federation.provisioned.federation, story.folder / "run.tlog"
    said(testudo_server.cli.app, "audit", "export", story.federation.out, "--keys", keys, "--to", log)
    verified = answered(testudo_client.cli.app, "audit", "verify", log, "--federation-key", keys / "federation.pub")
    assert verified["holds"]
    for folder in story.federation.provisioned.owners.values():
        said(testudo_client.cli.app, "audit", "verify", folder)


@pytest.mark.parametrize("fault", SPOILT)
def test_an_owner_reads_what_is_wrong_and_the_node_ends_where_waiting_is_of_no_use(story: Story, fault: str) -> None:
    text = story.said[fault]
    assert SPOILT[fault] in text, text
    assert story.ends[fault] == (1 if fault in LASTING else None), text
    assert "Traceback" not in text and "INFO connected" not in text


def test_owners_that_are_not_let_in_are_charged_nothing(story: Story) -> None:
    assert len(story.ledgers) == len(SPOILT) - 1, "the one that was revoked has none yet"
    assert not (story.folder / "revoked" / "state" / "ledger.db").exists()
    for name, before in story.ledgers.items():
        assert (story.folder / name / "state" / "ledger.db").read_bytes() == before, name


def test_no_process_fell_over(story: Story) -> None:
    for log in story.folder.glob("logs/*.log"):
        assert "Traceback" not in log.read_text(), log
