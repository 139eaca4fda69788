"""Very many requests to a server that is killed, and given another version, in the middle. No tests in here.

    python tests/serve_soak.py --requests 100000

Every good request has to be answered as :class:`Personalizer` answers for the version that the answer names, every
malformed one refused by the field at fault, and none may be lost; whoever asked asks again when the server is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from own_models import NOON, make_version, store_with
from serve_cases import Case, cases
from serve_process import GrpcLine, HttpLine, ServeProcess
from testudo_client.personal.personalizer import Personalizer, Prediction
from testudo_client.personal.versions import VersionStore
from testudo_client.serving.grpc_face import REFUSAL_KEY
from testudo_client.serving.proto import serve_pb2

SHARPNESS = {1: 1.0, 2: 5.0, 3: 9.0}
DAMAGED = 3


@dataclass
class Seen:
    """What came of the requests.

    Attributes:
        answers: Case number -> version and answers as HTTP gives them.
        refused: How many, by status.
        again: How often something was asked again.
        wrong: What must not be; empty.
        done: How many came to an end.
        events: How many of ``EVENTS`` have had their effect.
    """

    answers: dict[int, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    again: int = 0
    wrong: list[str] = field(default_factory=list)
    done: int = 0
    events: int = 0


# At which share of the requests what is done, and what the server then says: a version that is damaged, a good one, a
# kill, and the way back.
EVENTS = (
    (0.2, DAMAGED, "this version is damaged"), (0.35, 2, "version 2 is in use, after 1"), (0.5, None, ""),
    (0.8, 1, "version 1 is in use, after 2"),
)  # fmt: skip


async def soak(server: ServeProcess, store: VersionStore, asked: list[Case], workers: int = 32) -> Seen:
    """Ask all of it; versions are exchanged and the server is killed on the way."""
    seen, waiting = Seen(), iter(asked)

    async def disturb() -> None:
        for share, version, said in EVENTS:
            while seen.done < share * len(asked):
                await asyncio.sleep(0.01)
            if version is None:
                server.end(signal.SIGKILL)
                await asyncio.to_thread(server.start)
            else:
                with store.changing():
                    store.use(version, "promoted", NOON)
            while said not in server.log():
                await asyncio.sleep(0.01)
            seen.events += 1

    disturbing = asyncio.create_task(disturb())
    lines = [HttpLine(server) for _ in range(workers)], [GrpcLine(server) for _ in range(4)]
    await asyncio.gather(*(_work(lines[0][n], lines[1][n % 4], waiting, len(asked), seen) for n in range(workers)))
    await disturbing
    for line in lines[0]:
        line.close()
    for channel in lines[1]:
        await channel.close()
    return seen


async def _work(http: HttpLine, rpc: GrpcLine, waiting: Iterator[Case], count: int, seen: Seen) -> None:
    for case in waiting:
        # One event has had its effect before the next one's turn, however quick the requests are.
        while seen.events < sum(share * count <= case.number for share, _, _ in EVENTS) - 1:
            await asyncio.sleep(0.01)
        while True:
            try:
                await (_by_http(http, case, seen) if case.body is not None else _by_grpc(rpc, case, seen))
                break
            except (OSError, asyncio.IncompleteReadError):
                seen.again += 1
                await asyncio.sleep(0.05)
        seen.done += 1


async def _by_http(line: HttpLine, case: Case, seen: Seen) -> None:
    assert case.body is not None
    status, answer = await line.post("/v1/predict", case.body, kind=case.kind, token=case.token)
    if status == 200:
        seen.answers[case.number] = answer["version"], answer["answers"]
        return
    seen.refused[str(status)] += 1
    named = {(fault["field"], fault["row"]) for fault in answer["faults"]}
    _judge(case, str(status), str(case.status), named, seen)


async def _by_grpc(line: GrpcLine, case: Case, seen: Seen) -> None:
    assert case.message is not None
    try:
        response = await line.predict(case.message)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise ConnectionError from error
        seen.refused[error.code().name] += 1
        raw = dict(error.trailing_metadata() or ()).get(REFUSAL_KEY, b"")
        named = {(fault.field, fault.row) for fault in serve_pb2.Refusal.FromString(raw).faults}
        _judge(case, error.code().name, "INVALID_ARGUMENT", named, seen)
        return
    answers = [
        {"label": one.label, "sure": one.sure, "probabilities": dict(one.probabilities), "possible": list(one.possible)}
        for one in response.answers
    ]
    seen.answers[case.number] = response.version, answers


def _judge(case: Case, status: str, expected: str, named: set[tuple[str, int]], seen: Seen) -> None:
    field_named = case.field is None or named == {(case.field, case.row)}
    if case.rows is not None or status != expected or not field_named:
        seen.wrong.append(f"{case.number}: {status} in place of {expected}, or {case.field!r} is not what is named")


def check_answers(seen: Seen, asked: list[Case]) -> None:
    """Compare every answer with what its version says; adds to ``seen.wrong``."""
    for number, sharpness in SHARPNESS.items():
        own = Personalizer(make_version(number, sharpness=sharpness))
        these = [case for case in asked if seen.answers.get(case.number, (0,))[0] == number]
        told = iter(own.predict([row for case in these for row in case.rows or ()]))
        for case in these:
            answers = seen.answers[case.number][1]
            expected = [next(told) for _ in case.rows or ()]
            if len(answers) != len(expected) or not all(map(_same, answers, expected)):
                seen.wrong.append(f"{case.number}: another answer than version {number} gives")
    for case in asked:
        if (case.rows is not None) != (case.number in seen.answers):
            seen.wrong.append(f"{case.number}: answered, or lost, against its kind")


def _same(answer: dict[str, Any], one: Prediction) -> bool:
    """Up to rounding: a matrix product of other rows beside it may round another way in the last place."""
    assert one.label is not None
    words = answer["label"] == one.label and answer["sure"] == one.sure and tuple(answer["possible"]) == one.possible
    told = [answer["probabilities"][label] for label in one.probabilities]
    return words and bool(np.allclose(told, list(one.probabilities.values()), rtol=1e-5, atol=1e-6))


def run(folder: Path, requests: int, seed: int = 0, workers: int = 32) -> tuple[ServeProcess, Seen, list[Case]]:
    """Make a clinic's folder with three versions, and ask; the server is still there afterwards."""
    store = store_with(folder, *(make_version(number, sharpness=one) for number, one in SHARPNESS.items()))
    (folder / f"models/{DAMAGED}/model.safetensors").write_bytes(b"no model")
    with store.changing():
        store.use(1, "rolled back", NOON)
    server, asked = ServeProcess(folder), cases(seed, requests)
    server.start()
    seen = asyncio.run(soak(server, store, asked, workers))
    check_answers(seen, asked)
    return server, seen, asked


def main() -> None:
    """Print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("runs/serve-soak"), help="is deleted first")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    began = time.monotonic()
    server, seen, asked = run(options.folder.resolve(), options.requests, options.seed, options.workers)
    versions = Counter(version for version, _ in seen.answers.values())
    print(json.dumps({
        "seconds": round(time.monotonic() - began, 1), "requests": len(asked), "answered": len(seen.answers),
        "by_version": versions, "refused": seen.refused, "asked_again": seen.again, "status": server.end(),
        "wrong": len(seen.wrong), "first_wrong": seen.wrong[:10],
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
