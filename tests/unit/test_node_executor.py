"""The warm executor: installed code alone, one message at a time, fixed words for whatever goes wrong."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.cli.build import build_fab_from_files
from flwr.clientapp import ClientApp

from testudo_client.deployment import executor as executor_module
from testudo_client.deployment.executor import FAILED, Executor
from testudo_client.deployment.runtime_api import Task, TaskInput
from testudo_client.owner_log import OwnerLog
from testudo_common.errors import PolicyError

CONFIG = {"owner": "folder", "plan": "plan.toml", "data": "mine.csv"}
SECRET_SENTENCE = "row 7 holds 1234"


def message(message_type: str = "query.identify", content: RecordDict | None = None) -> Message:
    """As one comes from a SuperLink."""
    metadata = Metadata(1, "ab" * 32, 1, 2, "", "", time.time(), 60.0, message_type)
    return make_message(metadata=metadata, content=content or RecordDict())


class FakeApi:
    """A SuperNode with some messages."""

    def __init__(self, *given: TaskInput | Exception, for_client_app: bool = True) -> None:
        self.waiting, self.for_client_app = deque(given), for_client_app
        self.pushed: list[Message] = []
        self.finished: list[bool] = []
        self.beats = 0
        self.closed = False
        self.idle = threading.Event()

    def acquire(self) -> Task | None:
        if not self.waiting:
            self.idle.set()
            return None
        return Task("token", 5, 1, self.for_client_app)

    def pull(self, task: Task) -> TaskInput:
        given = self.waiting.popleft()
        if isinstance(given, Exception):
            raise given
        return given

    def beat(self) -> bool:
        self.beats += 1
        return True

    def push(self, task: Task, reply: Message, node_id: int) -> None:
        assert node_id == 2
        self.pushed.append(reply)

    def finish(self, *, answered: bool) -> None:
        self.finished.append(answered)

    def close(self) -> None:
        self.closed = True


def app_that(answers: Callable[[Message, Context], RecordDict]) -> ClientApp:
    app = ClientApp()

    @app.query("identify")
    def identify(given: Message, context: Context) -> Message:
        return Message(answers(given, context), reply_to=given)

    return app


def run(api: FakeApi, app_of: Callable[[str], ClientApp], folder: Path, connect: object = None) -> Executor:
    """Until nothing waits any more."""
    executor = Executor(connect or (lambda: api), app_of, CONFIG, OwnerLog(folder / "owner.log"))
    thread = threading.Thread(target=executor.run)
    thread.start()
    assert api.idle.wait(10)
    executor.stop()
    thread.join(5)
    assert not thread.is_alive() and api.closed
    return executor


def given(bundle: bytes = b"bundle", **more: object) -> TaskInput:
    return TaskInput(message(**more), node_id=2, series_id=3, bundle=bundle)


def test_messages_are_answered_in_their_order_by_the_installed_app(tmp_path: Path) -> None:
    contexts: list[Context] = []

    def answers(asked: Message, context: Context) -> RecordDict:
        contexts.append(context)
        return RecordDict({"n": ConfigRecord({"n": asked.content.config_records["n"]["n"]})})

    numbered = [given(content=RecordDict({"n": ConfigRecord({"n": number})})) for number in range(3)]
    digests: list[str] = []
    app = app_that(answers)
    executor = run(api := FakeApi(*numbered), lambda digest: digests.append(digest) or app, tmp_path)
    assert [reply.content.config_records["n"]["n"] for reply in api.pushed] == [0, 1, 2]
    assert api.finished == [True] * 3 and executor.counts.answered == 3 and executor.counts.failed == 0
    assert digests == [hashlib.sha256(b"bundle").hexdigest()] * 3, "of the bytes, not of what anybody says"
    assert all(context.node_config == CONFIG and context.run_config == {} for context in contexts)
    assert all(len(context.state) == 0 for context in contexts)


def test_an_exception_is_a_fixed_sentence_at_the_server_and_a_line_here(tmp_path: Path) -> None:
    def fails(_asked: Message, _context: Context) -> RecordDict:
        raise ValueError(SECRET_SENTENCE)

    executor = run(api := FakeApi(given()), lambda _: app_that(fails), tmp_path)
    (reply,) = api.pushed
    assert reply.error.reason == FAILED and SECRET_SENTENCE not in str(reply.error)
    assert api.finished == [False] and executor.counts.failed == 1
    (line,) = OwnerLog(tmp_path / "owner.log").lines()
    assert (line.event, line.reason, line.sentence) == ("refused", "not_answered", "ValueError")


def test_a_bundle_that_is_refused_is_named_here_alone(tmp_path: Path) -> None:
    def refuses(_digest: str) -> ClientApp:
        raise PolicyError([], source="policy.toml", problem="another bundle")

    run(api := FakeApi(given()), refuses, tmp_path)
    assert api.pushed[0].error.reason == FAILED
    assert "another bundle" in next(iter(OwnerLog(tmp_path / "owner.log").lines())).sentence


@pytest.mark.parametrize("message_type", ["train", "evaluate", "query.anything"])
def test_a_message_that_the_app_does_not_know(tmp_path: Path, message_type: str) -> None:
    run(api := FakeApi(given(message_type=message_type)), lambda _: app_that(lambda *_: RecordDict()), tmp_path)
    assert api.pushed[0].error.reason == FAILED


def test_a_task_of_another_kind_gets_an_answer(tmp_path: Path) -> None:
    """Nobody else would take it, and the SuperNode would wait for ever."""
    called: list[str] = []
    run(api := FakeApi(given(), for_client_app=False), called.append, tmp_path)
    assert api.pushed[0].error.reason == FAILED and not called


def test_a_full_disk_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnerLog, "_open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    def fails(_asked: Message, _context: Context) -> RecordDict:
        raise ValueError

    run(api := FakeApi(given(), given()), lambda _: app_that(fails), tmp_path)
    assert len(api.pushed) == 2


def test_a_supernode_that_ends_is_connected_to_again(tmp_path: Path) -> None:
    first, second = FakeApi(httpx.ConnectError("gone")), FakeApi(given())
    apis = iter([None, first, second])
    executor = run(second, lambda _: app_that(lambda *_: RecordDict()), tmp_path, lambda: next(apis))
    assert first.closed and first.finished == [] and not first.pushed, "a task that is finished gets no answer"
    assert len(second.pushed) == 1 and executor.counts.answered == 1


def test_a_long_message_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "BEAT_SECONDS", 0.01)
    api = FakeApi(given())

    def slow(_asked: Message, _context: Context) -> RecordDict:
        ends = time.monotonic() + 5
        while api.beats < 3 and time.monotonic() < ends:
            time.sleep(0.01)
        return RecordDict()

    run(api, lambda _: app_that(slow), tmp_path)
    assert api.beats >= 3


def test_a_wake_up_ends_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_PAUSE", (30.0, 30.0))
    api = FakeApi()
    executor = Executor(lambda: api, lambda _: app_that(lambda *_: RecordDict()), CONFIG, OwnerLog(tmp_path / "log"))
    thread = threading.Thread(target=executor.run)
    thread.start()
    assert api.idle.wait(5)
    api.waiting.append(given())
    api.idle.clear()
    executor.wake()
    assert api.idle.wait(5)
    executor.stop()
    thread.join(5)
    assert len(api.pushed) == 1


MARKER = "a hostile bundle was imported"
HOSTILE = {
    "pyproject.toml": b"""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "hostile"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "hostile"
fab-include = ["testudo_client/**/*.py", "testudo_common/**/*.py"]
[tool.flwr.app.components]
serverapp = "testudo_client.app:app"
clientapp = "testudo_client.app:app"
""",
    **{
        name: f"import sys\nsys.{MARKER.replace(' ', '_')} = True\nraise SystemExit\n".encode()
        for name in ("testudo_client/__init__.py", "testudo_client/app.py", "testudo_common/__init__.py")
    },
}


def hostile_bundle() -> bytes:
    """With packages of its own under our names, which leave a marker when they are imported."""
    bundle, _ = build_fab_from_files(HOSTILE)
    assert b"testudo_client/app.py" in bundle
    return bundle


def test_a_hostile_bundle_is_hashed_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack works on Flower's own executor, which installs a bundle and imports what it names."""
    bundle = hostile_bundle()
    asked: list[str] = []
    before, path = dict(sys.modules), list(sys.path)

    def installed(digest: str) -> ClientApp:
        asked.append(digest)
        return app_that(lambda *_: RecordDict())

    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    run(api := FakeApi(given(bundle)), installed, tmp_path)
    assert asked == [hashlib.sha256(bundle).hexdigest()] and not api.pushed[0].has_error()
    assert not hasattr(sys, MARKER.replace(" ", "_")) and sys.path == path
    assert {name: module for name, module in sys.modules.items() if name.startswith("testudo_client")} == {
        name: module for name, module in before.items() if name.startswith("testudo_client")
    }
    assert not (tmp_path / "flwr").exists(), "nothing was unpacked"


def test_the_hostile_bundle_works_on_flowers_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.install import install_from_fab

    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    install_from_fab(hostile_bundle(), skip_prompt=True)
    (app,) = (tmp_path / "flwr").rglob("testudo_client/app.py")
    with pytest.raises(SystemExit):
        exec(compile(app.read_text(), "app.py", "exec"), {})
    assert sys.__dict__.pop(MARKER.replace(" ", "_"))
