"""The status page: a run as anybody on this machine may see it, as one HTML page without script. Pure.

It says names, counts and times, as RunStatus does; who each owner is, what it sent and how it scored is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from testudo_common.markup import Markup, join, table, tag
from testudo_common.provisioning.expiry import WARN_DAYS
from testudo_server.deployment.door_counts import DoorCounts
from testudo_server.deployment.run_status import RunStatus
from testudo_server.deployment.status_style import CSS

REFRESH_SECONDS = 5
STALE_AFTER = timedelta(minutes=2)
ENDED = frozenset({"finished", "failed", "stopped"})
_STATES = {
    "starting": ("Starting", "mind", "The server is getting ready."),
    "waiting": ("Waiting for owners", "mind", "The run begins when enough data owners are there."),
    "running": ("Running", "good", ""),
    "finished": ("Finished", "good", "All rounds are done. The model lies in the run's folder at the server."),
    "failed": ("Failed", "bad", "The run ended before its last round."),
    "stopped": ("Stopped", "mind", "The run was stopped by its operator; it can be resumed."),
}
_REASONS = {
    "not_here": "asked for something that is not offered",
    "malformed": "no proper request",
    "unknown_certificate": "certificate of nobody who was admitted",
    "revoked": "certificate was revoked",
    "expired": "certificate has expired",
    "wrong_node_key": "node key does not go with the certificate",
    "no_length": "request without a length",
    "too_large": "request too large",
    "slow": "request came too slowly",
    "busy": "too many requests at once",
    "members_unreadable": "members' files cannot be read",
    "superlink_down": "SuperLink did not answer",
}
_HIDDEN = (
    "Names, counts and times: what any owner in the federation may know. Not shown, because this page does not have "
    "it: updates, scores of single owners, who was left out and why, keys, and data. Epsilon is the most that any one "
    "owner can have spent under this plan; what an owner really spent stands in its own ledger."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page is made from.

    Attributes:
        status: Of the run; None where none was written yet.
        counts: Of the door.
        members: How many may come in, and how many were revoked.
        now: The time.
    """

    status: RunStatus | None
    counts: DoorCounts
    members: tuple[int, int]
    now: datetime


def page(shown: Shown) -> str:
    """The whole page."""
    status = shown.status
    refresh = REFRESH_SECONDS * (1 if status is None or status.state not in ENDED else 12)
    title = "No run yet" if status is None else f"{_title_of(status)} · {status.federation}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="refresh", content=str(refresh)),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    parts = _nothing_yet() if status is None else _run(status, shown.now)
    body = tag(
        "body",
        parts[0],
        tag(
            "main", *parts[1:], _door(shown),
            tag("section", tag("h2", "What you see here, and what not"), tag("p", _HIDDEN)),
        ),
        tag(
            "footer",
            tag("p", f"Shown at {_time(shown.now)}; loads itself anew every {refresh} seconds. The same as data: "
                "/status.json and /metrics."),
        ),
    )  # fmt: skip
    return Markup("<!doctype html>\n") + tag("html", head, body, lang="en")


def size(count: int) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 99.95 or units[0] == "bytes" else f"{value:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _title_of(status: RunStatus) -> str:
    word = _STATES[status.state][0]
    return f"{word}, round {status.round} of {status.rounds}" if status.state == "running" else word


def _nothing_yet() -> list[Markup]:
    said = tag("p", "No run has written its status here yet.", class_="mind")
    return [tag("header", tag("h1", "Testudo")), tag("section", said)]


def _run(status: RunStatus, now: datetime) -> list[Markup]:
    digest = tag("code", status.plan_digest[:16], title=status.plan_digest)
    plan = tag("p", "Plan ", tag("strong", status.plan), ", digest ", digest, class_="faint")
    header = tag("header", tag("h1", status.federation), plan)
    return [header, *_warnings(status, now), _progress(status, now), _tiles(status), _round_times(status)]


def _warnings(status: RunStatus, now: datetime) -> list[Markup]:
    said = []
    if status.error:
        said.append(tag("section", tag("p", status.error), class_="alone bad", role="alert"))
    if status.state not in ENDED and now - status.updated > STALE_AFTER:
        ago = duration((now - status.updated).total_seconds())
        text = f"Nothing was written here for {ago}. A round may take long; or the server's process is gone."
        said.append(tag("section", tag("p", text), class_="alone mind", role="alert"))
    return said


def _progress(status: RunStatus, now: datetime) -> Markup:
    word, kind, sentence = _STATES[status.state]
    share = min(1.0, status.round / status.rounds)
    bar = tag(
        "div",
        tag("div", style=f"width:{100 * share:.2f}%"),
        class_="track", role="progressbar", aria_label="Rounds that are finished", aria_valuemin="0",
        aria_valuemax=str(status.rounds), aria_valuenow=str(status.round),
    )  # fmt: skip
    end = status.updated if status.state in ENDED else now
    times = f"Begun {_time(status.started)}, {duration((end - status.started).total_seconds())} "
    times += "in all." if status.state in ENDED else f"ago.{_time_left(status)}"
    return tag(
        "section",
        tag("div", tag("span", word, class_=f"state {kind}"),
            tag("strong", f"Round {status.round} of {status.rounds}"), class_="headline"),
        bar,
        *([tag("p", sentence)] if sentence else []),
        tag("p", times, class_="faint"),
    )  # fmt: skip


def _time_left(status: RunStatus) -> str:
    if status.state != "running" or not status.round_seconds:
        return ""
    latest = sorted(status.round_seconds[-10:])
    return f" About {duration(latest[len(latest) // 2] * (status.rounds - status.round))} to go."


def _tiles(status: RunStatus) -> Markup:
    tiles = [
        _tile("Owners there", f"{status.connected} of {status.expected}"),
        _tile("Counted in the last round", f"{status.counted} of {status.asked}", f"{status.left_out} left out")
        if status.round else _tile("Counted in the last round", "–", "no round is finished yet"),
        *(_tile(f"Epsilon, unit {unit}", f"{value:.3g}", "the most spent by an owner under this plan")
          for unit, value in sorted(status.epsilon.items())),
        *([] if status.epsilon else [_tile("Epsilon", "none", "no differential privacy, or nothing spent")]),
        _tile("Audit log", f"{status.log_size} entries",
              f"{status.cosigned_by} owners signed its last checkpoint; {status.quorum} have to")
        if status.quorum or status.log_size else _tile("Audit log", "off", "this plan keeps none, or none was begun"),
        _tile("Sent to owners", size(status.bytes_down), "payload of all rounds"),
        _tile("Received from owners", size(status.bytes_up), "payload of all rounds"),
    ]  # fmt: skip
    if status.attempts > 1:
        tiles.insert(2, _tile("Attempts of the last round", str(status.attempts), "too few owners answered at first"))
    return tag("dl", *tiles, class_="tiles")


def _tile(name: str, value: str, more: str = "") -> Markup:
    return tag("div", tag("dt", name), tag("dd", value), *([tag("dd", more)] if more else []))


def _round_times(status: RunStatus) -> Markup:
    seconds = status.round_seconds[-60:]
    if not seconds:
        return join()
    high, width, height, left = max(*seconds, 1e-9), 640, 120, 44
    step = (width - left) / max(len(seconds), 12)
    bars = [
        tag("rect", x=f"{left + i * step + step * 0.1:.1f}", y=f"{8 + height * (1 - each / high):.1f}",
            width=f"{step * 0.8:.1f}", height=f"{max(1.0, height * each / high):.1f}", rx="1.5")
        for i, each in enumerate(seconds)
    ]  # fmt: skip
    first = status.round - len(seconds) + 1
    last_x = left + (len(seconds) - 0.5) * step
    labels = [
        tag("text", duration(high), x=str(left - 6), y="14", text_anchor="end"),
        tag("text", "0", x=str(left - 6), y=str(height + 8), text_anchor="end"),
        tag("text", str(first), x=f"{left + step / 2:.1f}", y=str(height + 24), text_anchor="middle"),
    ]
    if len(seconds) > 1:
        labels.append(tag("text", str(status.round), x=f"{last_x:.1f}", y=str(height + 24), text_anchor="middle"))
    middle = sorted(seconds)[len(seconds) // 2]
    said = f"Seconds of rounds {first} to {status.round}: median {duration(middle)}, longest {duration(high)}."
    lines = [tag("line", x1=str(left), x2=str(width), y1=str(y), y2=str(y)) for y in (8, height + 8)]
    drawing = tag("svg", *lines, *bars, *labels, viewBox=f"0 0 {width + 10} {height + 30}", role="img", aria_label=said)
    return tag("section", tag("h2", "How long a round takes"), tag("figure", drawing), tag("p", said, class_="faint"))


def _door(shown: Shown) -> Markup:
    counts = shown.counts
    admitted, revoked = shown.members
    refused = sum(counts.refused.values())
    lines = [
        tag("p", f"{admitted} {'member' if admitted == 1 else 'members'} may come in, {revoked} revoked; "
            f"{counts.connections} connections open; {sum(counts.answered.values())} requests passed."),
        *_certificate(shown),
    ]  # fmt: skip
    if not refused:
        lines.append(tag("p", "Nothing was refused."))
    else:
        rows = [[_REASONS.get(word, word), str(count)] for word, count in counts.refused.most_common()]
        lines.append(
            table(["Why", "Requests"], rows, caption=f"{refused} requests were refused since the door was opened")
        )
    return tag("section", tag("h2", "The door"), *lines)


def _certificate(shown: Shown) -> list[Markup]:
    expires = shown.counts.certificate_expires
    if expires is None:
        return []
    left = expires - shown.now
    if left <= timedelta(0):
        return [tag("p", f"The server's certificate ended on {expires:%Y-%m-%d}: nobody can connect.", class_="bad")]
    said = f"The server's certificate holds until {expires:%Y-%m-%d}, {left.days} more days."
    if left.days < WARN_DAYS:
        return [tag("p", f"{said} Renew it: testudo-server renew.", class_="mind")]
    return [tag("p", said)]


def _time(when: datetime) -> str:
    # A machine's time zone would tell little, and confuse readers elsewhere.
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
