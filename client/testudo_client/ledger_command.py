"""``testudo-client ledger``: shows the owner's ledger, and writes down what only the owner can say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from testudo_client.ledger import (
    FINGERPRINT_KEY_FILE,
    LEDGER_FILE,
    Entry,
    Ledger,
    NewData,
    Occasion,
    Purpose,
    open_ledger,
)
from testudo_client.ledger.account import Ceiling
from testudo_client.ledger.entries import Content, Reserved
from testudo_client.ledger.fingerprint import fingerprint_key, fingerprint_of
from testudo_client.ledger.summary import ANY_DATA, AccountLine, Room, Summary, summarise
from testudo_common.errors import PrivacyError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import SampledGaussian, Spending, Unit

DEFAULT_DELTA: Final = 1e-5
_DIGESTS: Final = {"fingerprint", "digest", "plan_digest", "policy_digest", "signature", "head"}
_SHORT: Final = 12  # digits of a digest or fingerprint in a table


def fingerprint_of_table(folder: Path, plan: FederationPlan, data: Path, client: str | None) -> str:
    """The fingerprint of an owner's table as the plan encodes it.

    Args:
        folder: The owner's; its key of fingerprints is made if there is none.
        plan: The plan.
        data: The table, a CSV file.
        client: Use only this client's rows.

    Raises:
        DataError: The table does not fit the plan.
        LedgerError: The key cannot be used.
    """
    from testudo_client.data import load_owner_examples

    examples = load_owner_examples(plan, data, client)
    return fingerprint_of(examples, fingerprint_key(folder / FINGERPRINT_KEY_FILE))


def declare_new(ledger: Ledger, fingerprint: str, statement: str) -> None:
    """Write down that the data shares no record with any that stands in the ledger.

    Raises:
        UsageError: Nothing is stated.
    """
    if not statement.strip():
        raise UsageError("say why this data shares no record with earlier data", where="--new-data")
    ledger.append(NewData(fingerprint, statement.strip()))


def charge_elsewhere(ledger: Ledger, mechanism: str, unit: Unit, fingerprint: str | None) -> None:
    """Charge what was spent with another tool.

    Args:
        ledger: The owner's.
        mechanism: ``NOISE_MULTIPLIER,SAMPLE_RATE,STEPS``.
        unit: Whose account.
        fingerprint: Of the data it was spent on; None if that is not known, which counts against any.

    Raises:
        UsageError: There is no such mechanism.
    """
    try:
        noise_multiplier, sample_rate, steps = mechanism.split(",")
        event = SampledGaussian(float(noise_multiplier), float(sample_rate), int(steps))
        if not (math.isfinite(event.noise_multiplier) and event.steps):
            raise ValueError("nothing to charge")
    except (ValueError, PrivacyError) as error:
        raise UsageError(
            "not a mechanism",
            where="--charge-elsewhere",
            remedy="write noise multiplier, sample rate and steps, such as 1.1,0.01,2000",
        ) from error
    spending = Spending(example=(event,)) if unit is Unit.EXAMPLE else Spending(client=(event,))
    ledger.reserve(
        Occasion("", 0, 0, Purpose.ELSEWHERE),
        plan_name="elsewhere",
        fingerprint=ANY_DATA if fingerprint is None else fingerprint,
        spending=spending,
    )


@dataclass(frozen=True, slots=True)
class LedgerRequest:
    """What was asked on the command line; the options' own help says what each is."""

    folder: Path
    plan: Path | None = None
    data: Path | None = None
    client: str | None = None
    last: int | None = 20
    delta: float = DEFAULT_DELTA
    new_data: str | None = None
    charge_elsewhere: str | None = None
    unit: str = Unit.EXAMPLE.value
    adopt: str | None = None
    as_json: bool = False


def answer(request: LedgerRequest, ceilings: Sequence[Ceiling] = (), anchors: Sequence[Path] = ()) -> None:
    """Do what was asked: adopt, then charge, then declare, then show.

    Args:
        request: From the command line.
        ceilings: The owner's own.
        anchors: Further places for anchors, that the owner's policy names.

    Raises:
        UsageError: Options do not fit together; nothing is written then.
    """
    from testudo_common.plan.load import load_plan

    _require_sense(request)
    plan = load_plan(request.plan) if request.plan else None
    ledger = open_ledger(request.folder, anchors)
    if request.adopt is not None:
        ledger.adopt(request.adopt.strip())
    fingerprint = None
    if plan and request.data:
        fingerprint = fingerprint_of_table(request.folder, plan, request.data, request.client)
    if request.charge_elsewhere is not None:
        charge_elsewhere(ledger, request.charge_elsewhere, Unit(request.unit), fingerprint)
    if request.new_data is not None:
        assert fingerprint is not None
        declare_new(ledger, fingerprint, request.new_data)
    show(
        request.folder, ceilings, ledger=ledger, plan=plan, fingerprint=fingerprint, delta=request.delta,
        last=request.last, as_json=request.as_json,
    )  # fmt: skip


def _require_sense(request: LedgerRequest) -> None:
    if not request.folder.is_dir():  # a ledger would be begun in it
        raise UsageError(
            "there is no such folder",
            where=str(request.folder),
            remedy="check the spelling, or make it: testudo-client init",
        )
    if request.data and not request.plan:
        raise UsageError("data is read as a plan encodes it", where="--data", remedy="name the plan with --plan")
    if request.new_data is not None and not request.data:
        raise UsageError(
            "it is not said which data is new", where="--new-data", remedy="name it with --data and --plan"
        )
    if request.unit not in {unit.value for unit in Unit}:
        raise UsageError(f"there is no unit {request.unit!r}", where="--unit", remedy="write example or client")
    if request.adopt is not None and not request.adopt.strip():
        raise UsageError("a reason is what the ledger keeps of it", where="--adopt", remedy="say why")
    if not 0 < request.delta < 1:
        raise UsageError("delta must be between 0 and 1", where="--delta", remedy="write 1e-5, or what the plan says")


def show(
    folder: Path,
    ceilings: Sequence[Ceiling] = (),
    *,
    ledger: Ledger,
    plan: FederationPlan | None = None,
    fingerprint: str | None = None,
    delta: float = DEFAULT_DELTA,
    last: int | None = 20,
    as_json: bool = False,
) -> None:
    """Print entries, accounts, and what is left.

    Args:
        folder: The owner's.
        ceilings: The owner's own.
        ledger: The folder's.
        plan: The plan that is asked about.
        fingerprint: The data that is asked about; without, what stands in the ledger last.
        delta: At which the accounts' epsilons are.
        last: How many entries, from the end; None for all.
        as_json: Print the answer as JSON.
    """
    entries = ledger.entries()
    summary = summarise(entries, ceilings, delta=delta, fingerprint=fingerprint, plan=plan)
    shown = entries if last is None else entries[len(entries) - min(last, len(entries)) :]
    if as_json:
        print(json.dumps(_as_json(folder, entries, shown, summary), indent=2))
    else:
        _print(folder, entries, shown, summary, plan)


def _as_json(folder: Path, entries: Sequence[Entry], shown: Sequence[Entry], summary: Summary) -> dict[str, Any]:
    return {
        "ledger": str(folder / LEDGER_FILE),
        "entries": len(entries),
        "head": entries[-1].hash.hex(),
        "fingerprint": summary.fingerprint,
        "accounts": [_finite(asdict(line)) for line in summary.accounts],
        "ceilings": [_finite(asdict(room)) for room in summary.rooms],
        "rounds_left": summary.rounds,
        "shown": [
            {
                "index": entry.index,
                "time": entry.time,
                "type": type(entry.content).__name__.lower(),
                **_finite(asdict(entry.content)),
                "hash": entry.hash.hex(),
            }
            for entry in shown
        ],
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    match value:
        case float() if math.isinf(value):
            return "infinite"
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value


def _print(
    folder: Path, entries: Sequence[Entry], shown: Sequence[Entry], summary: Summary, plan: FederationPlan | None
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()

    def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for place, column in enumerate(columns):
            made.add_column(column, no_wrap=place == 0)
        for row in rows:
            made.add_row(*(Text(_printable(cell), overflow="fold") for cell in row))
        console.print(made)

    console.print(Text(f"{folder / LEDGER_FILE}: {len(entries)} entries, head {entries[-1].hash.hex()}"))
    if shown:
        rows = [(str(entry.index), entry.time, *_said(entry.content)) for entry in shown]
        table(f"The last {len(shown)} of {len(entries)} entries", ("", "time", "entry", "says"), rows)
    if summary.accounts:
        lines = [_account_row(line) for line in summary.accounts]
        table("Spent", ("account", "unit", "epsilon by PRV", "by RDP", "at delta"), lines)
    else:
        console.print("Nothing is spent.")
    if summary.rooms:
        columns = ("ceiling", "epsilon spent", "allowed", "rounds left")
        table("Left", columns, [_room_row(room) for room in summary.rooms])
    if plan is not None and summary.rounds is not None:
        console.print(Text(f"{summary.rounds} more rounds of {_printable(plan.name)} fit."))


def _account_row(line: AccountLine) -> tuple[str, ...]:
    if line.fingerprint is None:
        name = f"plan {line.plan_name} {(line.plan_digest or '')[:_SHORT]}".rstrip()
    else:
        name = f"data {line.fingerprint[:_SHORT]}" if line.fingerprint else "any data"
    prv, rdp = line.epsilons.prv, line.epsilons.rdp
    return name, line.unit.value, "unknown" if prv is None else f"{prv:.4g}", f"{rdp:.4g}", f"{line.delta:g}"


def _room_row(room: Room) -> tuple[str, ...]:
    ceiling = room.ceiling
    return (
        ceiling.where,
        f"{room.spent:.4g} by {ceiling.accountant.upper()} at {ceiling.delta:g}",
        f"{ceiling.epsilon:g}",
        "" if room.rounds is None else str(room.rounds),
    )


def _said(content: Content) -> tuple[str, str]:
    """An entry in words: its type, and what it says."""
    kind = type(content).__name__.lower()
    if isinstance(content, Reserved):
        occasion = content.occasion
        when = f"{occasion.purpose} {content.plan_name}, round {occasion.round}.{occasion.attempt}; "
        if occasion.purpose is Purpose.ELSEWHERE:
            when = f"{occasion.purpose}; "
        charged = "; ".join(
            f"{unit.value}: "
            + ", ".join(f"{e.steps} at noise {e.noise_multiplier:.4g}, rate {e.sample_rate:g}" for e in events)
            for unit in Unit
            if (events := content.spending.of(unit))
        )
        return kind, when + (charged or "nothing to charge")
    said: Mapping[str, Any] = {field.name: getattr(content, field.name) for field in fields(content)}
    return kind, ", ".join(f"{name} {_cut(name, value)}" for name, value in said.items())


def _cut(name: str, value: object) -> str:
    return str(value)[:_SHORT] if name in _DIGESTS else str(value)


def _printable(text: str) -> str:
    """Nothing in it can move the cursor or change a colour."""
    return "".join(character if character.isprintable() else "?" for character in text)
