"""The HTTP face, asked in this process: what it answers, and that nothing malformed is answered or is our fault."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from own_models import CLINIC_ROWS, SHOP, SHOP_ROWS, make_version
from testudo_client.observations import Observations
from testudo_client.personal.personalizer import Personalizer
from testudo_client.serving.access import Token
from testudo_client.serving.core import Core
from testudo_client.serving.counts import Counts
from testudo_client.serving.http_face import http_app
from testudo_client.serving.limits import MAX_BYTES
from testudo_client.serving.recorder import Recorder
from testudo_client.serving.service import Adapted, Service
from testudo_common.errors import UsageError

TOKEN = Token("t" * 43)
SHOWN = {"authorization": f"Bearer {TOKEN.secret}", "content-type": "application/json"}


class Asked:
    """A server without a socket."""

    def __init__(self, folder: Path | None = None, tables: Any = None, adapt: Any = None) -> None:
        self._folder, self._tables, self._adapt = folder, tables, adapt

    def __call__(self, *requests: tuple[str, str, Any], headers: dict[str, str] = SHOWN) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            counts = Counts()
            recorder = None if self._folder is None else Recorder(Observations(self._folder), counts.unrecorded.inc)
            core = Core(Personalizer(make_version(tables=self._tables)), counts, recorder)
            transport = httpx.ASGITransport(app=http_app(Service(core, self._adapt), TOKEN))
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                found = []
                for method, path, body in requests:
                    content = body if isinstance(body, bytes) else json.dumps(body).encode()
                    found.append(await client.request(method, path, content=content, headers=headers))
            if recorder is not None:
                await recorder.close()
            core.close()
            return found

        return asyncio.run(run())


ask = Asked()


def test_a_class_is_answered_with_probabilities_and_how_sure_it_is() -> None:
    (answer,) = ask(("POST", "/v1/predict", {"rows": CLINIC_ROWS}))
    found = answer.json()
    assert answer.status_code == 200 and (found["version"], found["level"]) == (1, 0.9)
    for one, expected in zip(found["answers"], Personalizer(make_version()).predict(CLINIC_ROWS), strict=True):
        assert one["label"] == expected.label and tuple(one["possible"]) == expected.possible
        assert one["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
        assert "key" not in one, "nothing is recorded here"


def test_a_number_is_answered_with_an_interval_or_says_that_it_has_none() -> None:
    both = Asked(tables=SHOP)(
        ("POST", "/v1/predict", {"rows": SHOP_ROWS}), ("POST", "/v1/predict", {"rows": SHOP_ROWS, "level": 0.99})
    )
    known, unknown = (one.json()["answers"][0] for one in both)
    assert 0 < known["low"] < known["value"] < known["high"] and known["sure"] == "likely"
    assert (unknown["low"], unknown["high"], unknown["sure"]) == (None, None, "not sure")


ROW = json.dumps(CLINIC_ROWS[0])
MALFORMED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no object": (b"[]", 400),
    "no JSON": (b"{", 400),
    "not UTF-8": (b'{"rows": [{"\xff": 1}]}', 400),
    "NaN": (b'{"rows": [{"age": NaN}]}', 400),
    "minus infinity": (b'{"rows": [{"age": -Infinity}]}', 400),
    "an integer without end": (b'{"rows": [{"age": ' + b"9" * 5000 + b"}]}", 400),
    "a name twice": (b'{"rows": [{"age": 1, "age": 2}]}', 400),
    "rows twice": (b'{"rows": [], "rows": []}', 400),
    "brackets without end": (b"[" * 200_000, 400),
    "objects without end": (b'{"rows":' * 50_000, 400),
    "something else": (b'{"rows": [], "row": []}', 400),
    "rows are no list": (b'{"rows": {}}', 400),
    "no rows": (b"{}", 400),
    "a row that is none": (b'{"rows": [3]}', 422),
    "a list as a value": (b'{"rows": [{"age": [1]}]}', 422),
    "keys are too few": (f'{{"rows": [{ROW}, {ROW}], "keys": ["a"]}}'.encode(), 400),
    "a key twice": (f'{{"rows": [{ROW}, {ROW}], "keys": ["a", "a"]}}'.encode(), 400),
    "a key that is none": (f'{{"rows": [{ROW}], "keys": [7]}}'.encode(), 400),
    "a key of half a character": (f'{{"rows": [{ROW}], "keys": ["\\ud800"]}}'.encode(), 400),
    "an endless key": (f'{{"rows": [{ROW}], "keys": ["{"k" * 129}"]}}'.encode(), 400),
    "a level of one": (f'{{"rows": [{ROW}], "level": 1}}'.encode(), 400),
    "a level of text": (f'{{"rows": [{ROW}], "level": "0.9"}}'.encode(), 400),
    "a level without end": (f'{{"rows": [{ROW}], "level": {"9" * 400}}}'.encode(), 400),
    "half a character in a name": (b'{"rows": [{"\\ud800": 1}]}', 422),
    "a large integer": (b'{"rows": [{"age": ' + b"9" * 400 + b"}]}", 422),
    "a number beyond all": (b'{"rows": [{"age": 1e999}]}', 422),
    "too many rows": (b'{"rows": [' + b",".join([b"{}"] * 4097) + b"]}", 413),
    "too many bytes": (b" " * (MAX_BYTES + 1), 413),
}


def test_nothing_malformed_is_answered_and_nothing_of_it_is_our_fault() -> None:
    answers = ask(*(("POST", "/v1/predict", body) for body, _ in MALFORMED.values()))
    assert {name: one.status_code for name, one in zip(MALFORMED, answers, strict=True)} == {
        name: status for name, (_, status) in MALFORMED.items()
    }
    for one in answers:
        assert one.json()["problem"] and one.json()["remedy"] is not None


def test_a_broken_contract_names_each_field_and_repeats_no_value() -> None:
    secret = {"age": "secret-31", "pressure": 4321.5, "ward": "secret-ward", "extra": "secret-x"}
    (answer,) = ask(("POST", "/v1/predict", {"rows": [CLINIC_ROWS[0], secret]}))
    assert answer.status_code == 422 and answer.json()["error"] == "contract"
    faults = answer.json()["faults"]
    assert {fault["field"] for fault in faults} == {"age", "pressure", "ward", "extra"}
    assert {fault["row"] for fault in faults} == {1}
    assert "secret" not in answer.text and "4321" not in answer.text


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN.secret}", f"Bearer {TOKEN.secret}x"]
)
def test_nobody_is_told_anything_without_the_token(shown: str | None) -> None:
    headers = {"content-type": "application/json", **({} if shown is None else {"authorization": shown})}
    paths = [("POST", "/v1/predict"), ("GET", "/v1/model-card"), ("GET", "/metrics"), ("GET", "/elsewhere")]
    answers = ask(*((method, path, {"rows": CLINIC_ROWS}) for method, path in paths), headers=headers)
    assert {one.status_code for one in answers} == {401}
    assert {one.headers["www-authenticate"] for one in answers} == {"Bearer"}


def test_health_needs_no_token_and_other_paths_and_methods_are_refused() -> None:
    (health,) = ask(("GET", "/healthz", b""), headers={})
    elsewhere, method = ask(("GET", "/v1/", b""), ("GET", "/v1/predict", b""))
    (kind,) = ask(("POST", "/v1/predict", {"rows": []}), headers={**SHOWN, "content-type": "text/plain"})
    assert [one.status_code for one in (health, elsewhere, method, kind)] == [200, 404, 405, 415]


def test_outcomes_are_told_by_key(tmp_path: Path) -> None:
    asked, told, wrong, number = Asked(tmp_path)(
        ("POST", "/v1/predict", {"rows": CLINIC_ROWS, "keys": ["p1", "p2"]}),
        ("POST", "/v1/feedback", {"outcomes": {"p1": "yes", "nobody": "no"}}),
        ("POST", "/v1/feedback", {"outcomes": {"p1": "perhaps"}}),
        ("POST", "/v1/feedback", {"outcomes": {"p1": 1}}),
    )
    assert [one["key"] for one in asked.json()["answers"]] == ["p1", "p2"]
    assert told.json() == {"told": 1, "unknown": ["nobody"]}
    for one in (wrong, number):
        assert one.status_code == 422 and one.json()["faults"][0]["field"] == "ill"
    kept = Observations(tmp_path)
    assert kept.since(labelled=True).targets.tolist() == [1.0]
    kept.close()


def test_a_demand_that_turned_out_is_kept_in_the_plans_scale(tmp_path: Path) -> None:
    _, told, negative = Asked(tmp_path, SHOP)(
        ("POST", "/v1/predict", {"rows": SHOP_ROWS[:1], "keys": ["w1"]}),
        ("POST", "/v1/feedback", {"outcomes": {"w1": 200.0}}),
        ("POST", "/v1/feedback", {"outcomes": {"w1": -3}}),
    )
    assert told.json()["told"] == 1
    assert negative.status_code == 422 and negative.json()["faults"][0]["problem"] == "not above zero"
    kept = Observations(tmp_path)
    assert kept.since(labelled=True).targets.tolist() == pytest.approx([(5.298317366548036 - 5.0) / 0.5])
    kept.close()


def test_what_this_server_was_not_given_is_said() -> None:
    answers = ask(("POST", "/v1/adapt", b""), ("POST", "/v1/feedback", {"outcomes": {}}))
    assert [(one.status_code, one.json()["error"]) for one in answers] == [(409, "not_configured")] * 2


def test_an_adaptation_is_asked_for_and_its_failure_is_told() -> None:
    def refuses() -> Adapted:
        raise UsageError("ten rows are too few", remedy="bring more")

    (made,) = Asked(adapt=lambda: Adapted(True, 4, "it is better"))(("POST", "/v1/adapt", b""))
    (failed,) = Asked(adapt=refuses)(("POST", "/v1/adapt", b""))
    assert made.json() == {"promoted": True, "version": 4, "reason": "it is better"}
    assert failed.status_code == 500 and failed.json()["problem"] == "ten rows are too few"


def test_the_contract_is_a_json_schema_that_takes_what_is_answered_and_nothing_else() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = ask(("GET", "/v1/contract", b""))[0].json()
    validator = jsonschema.Draft202012Validator(schema)
    assert all(validator.is_valid(row) for row in CLINIC_ROWS)
    changes: list[dict[str, Any]] = [{"age": None}, {"age": "3"}, {"age": 1e6}, {"ward": "north"}, {"more": 1}]
    assert not any(validator.is_valid({**CLINIC_ROWS[0], **change}) for change in changes)


def test_a_model_card_has_nothing_of_single_rows_and_metrics_no_value() -> None:
    _, card, metrics = ask(
        ("POST", "/v1/predict", {"rows": [{**CLINIC_ROWS[0], "ward": "secret"}]}),
        ("GET", "/v1/model-card", b""), ("GET", "/metrics", b""),
    )  # fmt: skip
    assert card.json()["stays"] is True and card.json()["contract_digest"] == make_version().contract.digest
    assert not {"rows_digest", "losses"} & card.json().keys()
    assert 'testudo_serve_requests_total{face="http",method="predict",outcome="contract"} 1.0' in metrics.text
    assert "secret" not in metrics.text and "ward" not in metrics.text
