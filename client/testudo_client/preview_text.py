"""A preview as lines for a person. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines_of(preview: dict[str, Any]) -> Iterator[str]:
    """The lines of what :func:`testudo_client.preview.preview` returns."""
    yield f"Plan {preview['plan']!r}, digest {preview['digest']}"
    yield from _rules(preview)
    yield from _to(preview["to"])
    yield from _log(preview["log"])
    yield from _leaves(preview["leaves"])
    yield from _costs(preview["costs"])
    yield from _changes(preview["changes"])


def _rules(preview: dict[str, Any]) -> Iterator[str]:
    rules = preview["rules"]
    refused = [rule for rule in rules if not rule["allowed"]]
    yield ""
    verdict = "refuses it" if refused else "allows it"
    yield f"Your policy {verdict} ({len(rules) - len(refused)} of {len(rules)} rules hold)"
    width = max(len(rule["key"]) for rule in rules)
    for rule in rules:
        verdict = "ok     " if rule["allowed"] else "REFUSED"
        yield f"  {verdict} {rule['key']:<{width}}  {rule['asked']} (allowed: {rule['limit']})"
        if not rule["allowed"]:
            yield f"  {'':<7} {'':<{width}}  {rule['remedy']}"
    yield f"  The app bundle is {preview['bundle']}"
    yield f"  {'You have approved it.' if preview['approved'] else 'You have not approved it.'}"


def _to(to: dict[str, Any] | None) -> Iterator[str]:
    yield ""
    if to is None:
        yield "To whom: not known, there is no roster.json in your folder"
        return
    members = to["members"]
    shown = ", ".join(members[:20]) + (f" and {len(members) - 20} more" if len(members) > 20 else "")
    yield f"To whom: {to['federation']!r}, key {to['key']}"
    yield f"  {len(members)} members: {shown}"


def _log(log: dict[str, Any] | None) -> Iterator[str]:
    yield ""
    if log is None:
        yield "Who checks the server: nobody, the plan has no audit log"
        return
    if log["witnesses"] is None:
        yield "Who checks the server: every member, by a log of what it does; how many is not known without roster.json"
        return
    yield f"Who checks the server: {log['witnesses']} members mirror a log of what it does, and cosign it"
    yield f"  You train on nothing that fewer than {log['quorum']} have seen; {log['may_be_absent']} may be absent"
    found = log["colluders_found_out"]
    if found < 0:
        yield "  That is so few that two different logs can both reach it"
    else:
        yield f"  Two different logs are found out as long as no more than {found} of them help the server"


def _leaves(leaves: dict[str, Any] | None) -> Iterator[str]:
    yield ""
    if leaves is None:
        yield "What would leave: not known, since the model is not allowed"
        return
    yield f"What would leave: the server sees {leaves['seen_by_the_server']}"
    for kind, rounds in leaves["rounds"].items():
        yield f"  In each of {rounds['rounds_at_most']} rounds {kind.replace('_', ' ')}, bytes, if nobody drops out:"
        for message in rounds["messages"]:
            arrow = "up  " if message["up"] else "down"
            yield f"    {arrow} {message['bytes']:>12}  {message['message']:<15}  {message['holds']}"
        yield f"    up {rounds['bytes_up']}, down {rounds['bytes_down']}"
    if leaves["statistics"]:
        yield f"  Scores on your examples: {', '.join(leaves['statistics'])}"
    yield f"  Besides: your name ({leaves['name_bytes']} bytes), or a refusal (up to {leaves['refusal_bytes_at_most']})"
    yield f"  With each of them: your signature ({leaves['signature_bytes']} bytes)"
    attempts = leaves["attempts_a_round_at_most"]
    yield f"  At most {leaves['rounds_at_most']} rounds, each begun up to {attempts} times:"
    yield f"    up {leaves['bytes_up_at_most']} bytes, down {leaves['bytes_down_at_most']} bytes in all"


def _costs(costs: dict[str, Any]) -> Iterator[str]:
    yield ""
    if costs["unknown"]:
        yield f"What it costs: cannot be computed: {costs['unknown']}"
        return
    yield "What it costs" + ("" if costs["units"] else ": no account is kept")
    for unit in costs["units"]:
        title = f"{unit['unit']}-level epsilon at delta {unit['delta']:g}"
        yield f"  {title:<36} {'PRV':>10} {'RDP':>10}"
        for key in ("a_round", "scores_once", "whole_plan", "spent_before", "spent_after"):
            if unit[key] is not None:
                yield f"    {key.replace('_', ' '):<34} {_shown(unit[key]['prv'])} {_shown(unit[key]['rdp'])}"
    for room in costs["ceilings"]:
        fit = "" if room["rounds_fit"] is None else f", {room['rounds_fit']} more rounds fit"
        spent = f"{_bare(room['spent'])} spent, {_bare(room['after'])} after this plan"
        spent += "" if room["after"] is None else f", {_bare(room['remains_after'])} would remain"
        yield f"  {room['ceiling']} {room['epsilon']:g}: {spent}{fit}"


def _bare(figure: float | str | None) -> str:
    return "unknown" if figure is None else str(figure)


def _shown(figure: float | str | None) -> str:
    return f"{_bare(figure):>10}"


def _changes(changes: dict[str, Any] | None) -> Iterator[str]:
    yield ""
    if changes is None:
        yield "You have approved no plan before"
        return
    since, keys = changes["since"], changes["keys"]
    yield f"Compared with {since['plan']!r} that you approved before ({since['digest'][:16]}): {len(keys)} keys differ"
    for change in keys:
        yield f"  {change['key']}: {change['before']!r} -> {change['now']!r}"
