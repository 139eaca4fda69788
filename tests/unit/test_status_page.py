"""What is shown of a run: the page in every state, the metrics, and nothing unescaped."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from testudo_server.deployment.door_counts import SECONDS_BUCKETS, DoorCounts
from testudo_server.deployment.metrics import STATES, exposed
from testudo_server.deployment.run_status import RunStatus, State
from testudo_server.deployment.status_app import as_json
from testudo_server.deployment.status_page import Shown, duration, page, size

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
VOID = {"meta", "br", "hr"}


def status(**given: Any) -> RunStatus:
    values: dict[str, Any] = {
        "federation": "shops", "plan": "sales", "plan_digest": "ab" * 32, "state": "running",
        "started": NOW - timedelta(hours=3), "updated": NOW, "round": 10, "rounds": 40, "expected": 3, "connected": 2,
        "asked": 3, "counted": 2, "left_out": 1, "attempts": 1, "round_seconds": (10.0,) * 10, "bytes_down": 1_500_000,
        "bytes_up": 2_000, "epsilon": {"example": 1.25}, "log_size": 90, "cosigned_by": 3, "quorum": 3,
    }  # fmt: skip
    return RunStatus.model_validate(values | given)


def shown(made: RunStatus | None, **counts: Any) -> Shown:
    return Shown(made, DoorCounts(**counts), (3, 1), NOW)


class Balanced(HTMLParser):
    """Raises unless every element is closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + " "


def read(text: str) -> Balanced:
    found = Balanced()
    found.feed(text)
    found.close()
    assert found.open == []
    assert "script" not in found.seen and "link" not in found.seen
    return found


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_has_its_page(state: str) -> None:
    found = read(page(shown(status(state=state))))
    assert "Round 10 of 40" in found.text
    assert "2 of 3" in found.text
    assert ("to go" in found.text) == (state == "running")


def test_the_running_page_says_how_it_stands() -> None:
    text = read(page(shown(status()))).text
    for said in (
        "Running",
        "About 5 min to go",
        "3 h 0 min ago",
        "1.25",
        "90 entries",
        "1.5 MB",
        "2.0 kB",
        "median 10 s",
    ):
        assert said in text, said


def test_before_the_first_status_the_page_says_so() -> None:
    assert "No run has written its status here yet" in read(page(shown(None))).text


def test_an_error_is_shown_first_and_a_silent_server_is_noticed() -> None:
    failed = page(shown(status(state="failed", error="too few owners answered")))
    assert failed.index("too few owners answered") < failed.index("progressbar")
    late = status(updated=NOW - timedelta(minutes=10))
    assert "Nothing was written here for 10 min" in page(shown(late))
    assert "Nothing was written" not in page(shown(late.model_copy(update={"state": "finished"})))


@pytest.mark.parametrize(("days", "said"), [(90, "90 more days"), (29, "Renew it"), (-1, "nobody can connect")])
def test_the_certificates_end_is_shown(days: int, said: str) -> None:
    text = page(shown(status(), certificate_expires=NOW + timedelta(days=days, hours=1)))
    assert said in text
    assert ("Renew it" in text) == (days == 29)


def test_refusals_are_shown_by_reason() -> None:
    counts = DoorCounts()
    counts.refused.update({"revoked": 3, "not_here": 70})
    text = read(page(Shown(status(), counts, (3, 1), NOW))).text
    assert text.index("asked for something that is not offered") < text.index("certificate was revoked")
    assert "73 requests were refused" in text


HOSTILE = st.text(min_size=1, max_size=60) | st.sampled_from(
    ['"><script>x</script>', "</style><img src=x>", "\u202e&lt;"]
)


@settings(max_examples=30, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_nothing_that_is_written_becomes_markup(federation: str, plan: str, digest: str, error: str) -> None:
    made = status(federation=federation, plan=plan, plan_digest=digest, error=error, epsilon={plan: 1.0})
    plain = read(page(shown(status(error="x")))).seen
    assert read(page(shown(made))).seen == plain


def test_metrics_parse_and_carry_units_and_help() -> None:
    counts = DoorCounts(bytes_in=5, certificate_expires=NOW)
    counts.answered["pull-messages", 200] += 4
    counts.refused["revoked"] += 2
    for seconds in (0.001, 0.2, 99.0):
        counts.took(seconds)
    hostile = status(federation='a"b\\c\nd')
    families = {each.name: each for each in text_string_to_metric_families(exposed(hostile, counts, (3, 1)).decode())}
    assert all(each.documentation.endswith(".") and each.name.startswith("testudo_") for each in families.values())

    def value(name: str, **labels: str) -> float:
        [found] = [s.value for s in families[name].samples if s.labels == labels and not s.name.endswith("_created")]
        return float(found)

    assert value("testudo_round") == 10
    assert value("testudo_run_state", state="running") == 1
    assert sum(s.value for s in families["testudo_run_state"].samples) == 1
    assert value("testudo_door_requests", asked="pull-messages", status="200") == 4
    assert value("testudo_door_refused", reason="revoked") == 2
    assert value("testudo_privacy_epsilon", unit="example") == 1.25
    assert value("testudo_certificate_expiry_timestamp_seconds") == NOW.timestamp()
    assert value("testudo_run_info", federation='a"b\\c\nd', plan="sales", plan_digest="ab" * 32) == 1
    buckets = [s for s in families["testudo_door_superlink_duration_seconds"].samples if s.name.endswith("_bucket")]
    assert [bucket.value for bucket in buckets][-1] == 3
    assert len(buckets) == len(SECONDS_BUCKETS) + 1
    assert [bucket.value for bucket in buckets] == sorted(bucket.value for bucket in buckets)


def test_metrics_of_a_door_without_a_run() -> None:
    text = exposed(None, DoorCounts(), (0, 0)).decode()
    assert "testudo_members_admitted 0.0" in text
    assert "testudo_round" not in text


def test_every_state_is_a_metric() -> None:
    assert get_args(State) == STATES


def test_the_same_as_data() -> None:
    found = json.loads(as_json(shown(status(), bytes_in=7)))
    assert RunStatus.model_validate(found["run"]) == status()
    assert found["door"]["received_bytes"] == 7
    assert found["door"]["revoked"] == 1
    assert json.loads(as_json(shown(None)))["run"] is None


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (90, "2 min"), (3600, "1 h 0 min"), (2e5, "2 d 7 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
