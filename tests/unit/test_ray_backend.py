"""What the Ray backend settles without Ray: addresses, what machines see, lost workers, Flower's dispatcher."""

from __future__ import annotations

import importlib.util
import inspect
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.server.superlink.fleet.vce import vce_api

from testudo_common.errors import RoundError, UsageError
from testudo_common.flower_records import IDENTIFY
from testudo_simulations import cli, ray_cluster, ray_machines
from testudo_simulations.flower_dispatcher import widen_dispatcher
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.ray_cluster import ADDRESS_VARIABLE, address_of, expect_ray_at
from testudo_simulations.ray_grid import WatchedGrid
from testudo_simulations.ray_machines import Machine, Shared, Sight, fault_of, gone_among, sight


@pytest.mark.parametrize(
    ("option", "variable", "address"),
    [
        (None, None, ""),
        (None, "local", ""),
        (None, "head:6379", "head:6379"),
        ("10.0.0.1:6379", "head:6379", "10.0.0.1:6379"),
        ("local", "head:6379", ""),
    ],
)
def test_the_address_is_the_options_or_the_variables(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variable: str | None, address: str
) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(ADDRESS_VARIABLE, variable)
    assert address_of(option) == address


@pytest.mark.parametrize("text", ["auto", "head", ":6379", "head:", "head:x", "ray://head:10001", "http://head:8265"])
def test_no_other_address_is_taken(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(UsageError, match=r"^--ray-address: .*HOST:PORT"):
        address_of(text)
    monkeypatch.setenv(ADDRESS_VARIABLE, text)
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS: .*HOST:PORT"):
        address_of(None)


def test_an_address_without_its_backend_is_told() -> None:
    with pytest.raises(UsageError, match="add --backend ray"):
        cli.run("sine", ray_address="head:6379")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def _address(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.network
def test_where_nothing_answers_it_is_told_before_anything_is_done(listener: socket.socket) -> None:
    address = _address(listener)
    listener.close()
    with pytest.raises(UsageError, match=rf"^{address}: no Ray cluster answers \(Connection refused\)"):
        cli.run("sine", backend=cli.Backend.ray, ray_address=address)


@pytest.mark.network
def test_what_answers_and_is_not_ray_is_told(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(UsageError, match="it is not Ray"):
        expect_ray_at(_address(listener))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="testudo-fl\\[ray\\]"), ray_cluster.ray_cluster(""):
        pass


SHARED = Shared("/shared/run/plan.toml", "/shared/data.csv", "own.module:make")
HERE = Sight({"Python": "3.11.7", "torch": "2.13.0"}, "code", "plan", "data", "model", "word", "held")
FAULTS = {
    "another version": (replace(HERE, software={"Python": "3.11.7", "torch": "2.4.0"}), "torch 2.4.0, .* 2.13.0"),
    "other sources": (replace(HERE, code="other"), "other sources"),
    "no folder": (replace(HERE, plan="", word="", lock=""), "does not see /shared/run,"),
    "a folder of its own": (replace(HERE, word="", lock=""), "does not see /shared/run,"),
    "another plan": (replace(HERE, plan="other"), "sees another /shared/run"),
    "another word": (replace(HERE, word="other"), "sees another /shared/run"),
    "no data": (replace(HERE, data=""), "does not see /shared/data.csv"),
    "no model": (replace(HERE, model=""), "does not have this machine's own.module"),
    "another user": (replace(HERE, lock=""), "may not write in /shared/run"),
    "no locks": (replace(HERE, lock="free"), "does not see locks"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_machine_that_is_set_up_otherwise_is_told_of(name: str) -> None:
    there, sentence = FAULTS[name]
    fault = fault_of(there, HERE, SHARED)
    assert fault is not None
    with pytest.raises(UsageError, match=sentence):
        raise UsageError(fault[0], remedy=fault[1])


def test_a_machine_that_is_set_up_alike_is_not() -> None:
    assert fault_of(HERE, HERE, SHARED) is None


def test_a_machine_sees_what_is_in_its_files(tmp_path: Path) -> None:
    plan, data, word = (tmp_path / name for name in ("plan.toml", "data", "word"))
    data.mkdir()
    for path in (plan, data / "table.csv", word):
        path.write_text("a", encoding="ascii")
    shared = Shared(str(plan), str(data), f"{__name__}:make")
    first = sight(shared, str(word))
    assert first.lock == "free" and all((first.code, first.plan, first.data, first.model, first.word))
    assert sight(replace(shared, model="mlp"), str(word)).model == ""
    (data / "table.csv").write_text("ab", encoding="ascii")
    plan.write_text("b", encoding="ascii")
    second = sight(shared, str(word))
    assert first.data != second.data and first.plan != second.plan and first.word == second.word
    nothing = sight(Shared(str(tmp_path / "a"), str(tmp_path / "b"), "no.such:thing"), str(tmp_path / "c"))
    assert (nothing.plan, nothing.data, nothing.model, nothing.word, nothing.lock) == ("",) * 5


class FaultyGrid(InProcessGrid):
    """Answers every message with an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(ClientApp(), 1)
        self._error = Error(code, reason)

    def pull_messages(self, message_ids: object) -> list[Message]:
        (node,) = self.get_node_ids()
        return [Message(self._error, reply_to=Message(RecordDict(), node, IDENTIFY))]


DIED = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly'>"


def test_a_lost_worker_ends_the_run_and_names_its_machine() -> None:
    grid = WatchedGrid(FaultyGrid(ErrorCode.UNKNOWN, DIED), lambda _error: "second", threading.Event())
    with pytest.raises(RoundError, match=r"^second: a worker of the Ray cluster was lost \(ActorDiedError\)"):
        grid.pull_messages(["m1"])


FIRST, SECOND = (Machine(name, name, f"10.0.0.{number}", 4) for number, name in enumerate(("first", "second"), 1))


@pytest.mark.parametrize(
    ("there", "error", "names"),
    [
        ((FIRST,), "", "second"),
        ((), "", "first, second"),
        ((FIRST, SECOND), "\n\tpid: 7\n\tip: 10.0.0.2\nThe actor is dead", "second"),
        ((FIRST, SECOND), "\n\tip: 10.0.0.22\n", ""),
    ],
)
def test_what_was_lost_is_what_is_gone_or_else_what_the_error_names(
    monkeypatch: pytest.MonkeyPatch, there: tuple[Machine, ...], error: str, names: str
) -> None:
    monkeypatch.setattr(ray_machines, "machines_now", lambda: there)
    assert gone_among((FIRST, SECOND), error) == names


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, DIED),
        (ErrorCode.UNKNOWN, f"<class 'ValueError'>:<'{DIED}'>"),
    ],
)
def test_a_client_that_fails_is_for_the_round_to_set_aside(code: int, reason: str) -> None:
    grid = WatchedGrid(FaultyGrid(code, reason), lambda _error: "second", threading.Event())
    assert [reply.error.reason for reply in grid.pull_messages(["m1"])] == [reason]


def test_nobody_waits_for_replies_when_flowers_runtime_has_ended() -> None:
    ended = threading.Event()
    grid = WatchedGrid(InProcessGrid(ClientApp(), 1), lambda _error: "", ended)
    assert grid.pull_messages(["m1"]) == []
    ended.set()
    with pytest.raises(RoundError, match="has ended"):
        grid.pull_messages(["m1"])


def test_flowers_dispatcher_waits_for_as_many_workers_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vce_api, "ThreadPoolExecutor", ThreadPoolExecutor)
    assert widen_dispatcher(75)
    with vce_api.ThreadPoolExecutor() as executor:
        assert executor._max_workers == 75


def test_another_dispatcher_of_flower_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vce_api, "ThreadPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(inspect, "getsource", lambda _function: "with ThreadPoolExecutor(workers) as executor:")
    assert not widen_dispatcher(75)
    assert vce_api.ThreadPoolExecutor is ThreadPoolExecutor
    assert "stay Flower's own" in caplog.text
