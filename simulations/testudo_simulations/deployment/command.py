"""``testudo-simulate deploy-demo``: made-up shops, provisioned and run as processes, and what came of it, checked."""

from __future__ import annotations

import json
import re
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

import testudo_client.cli
import testudo_server.cli
from testudo_common.errors import UsageError
from testudo_common.roster import is_client_id
from testudo_simulations.deployment.commands import answered, said
from testudo_simulations.deployment.federation import LocalFederation
from testudo_simulations.deployment.provisioned import Provisioned, provision
from testudo_simulations.deployment.tables import write_tables
from testudo_simulations.progress import JobProgress

_FEWEST = 3
_MOST = 50
_WIDEST = 65537


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to run.

    Attributes:
        out: A new folder for everything.
        owners: How many.
        rounds: How many.
        timeout_seconds: For the whole run.
        parameters: Of a model of at least so many, without noise, to see what a large one takes; None: the small one.
    """

    out: Path
    owners: int
    rounds: int
    timeout_seconds: float
    parameters: int | None = None


def shop_names(count: int) -> tuple[str, ...]:
    """``shop-1`` and so on.

    Raises:
        UsageError: Fewer than three, which is too few for a secure sum, or more than fifty.
    """
    if not _FEWEST <= count <= _MOST:
        raise UsageError(
            f"{count} owners", where="--owners", remedy=f"from {_FEWEST}, the smallest secure sum, to {_MOST}"
        )
    names = tuple(f"shop-{number + 1}" for number in range(count))
    assert all(map(is_client_id, names))
    return names


def large(plan: str, parameters: int) -> str:
    """The shops' plan with a model of at least so many parameters in two equal layers, without noise.

    Args:
        plan: TOML.
        parameters: 1000 or more.
    """
    width = next(width for width in range(8, _WIDEST) if width * width + 13 * width + 2 >= parameters)
    for before, after in {
        "hidden = [16]": f"hidden = [{width}, {width}]",
        'unit = "example"\nepsilon = 8.0': 'unit = "none"',
        "learning_rate = 0.5": "learning_rate = 0.01",
    }.items():
        assert before in plan, before
        plan = plan.replace(before, after)
    return plan


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment, and the one after it."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise UsageError("no two ports beside each other are free on loopback", remedy="stop something that listens there")


def run_deploy_demo(request: DeployRequest, *, as_json: bool) -> None:
    """Provision, start, wait, stop, check; and print what came of it.

    Raises:
        UsageError: The folder is not new, or a process ended badly; with where its log is.
    """
    out, shops = request.out, shop_names(request.owners)
    if out.exists() and any(out.iterdir()):
        raise UsageError("the folder is not empty", where=str(out), remedy="name a new one by --out")
    data = out / "data"
    plan = write_tables(data, shops)
    text = re.sub(r"(?m)^(count|max_participations) = \d+$", rf"\1 = {request.rounds}", plan.read_text())
    plan.write_text(text if request.parameters is None else large(text, request.parameters))
    words = () if request.parameters is None else ("--no-privacy", "--max-bytes", 8 * request.parameters)
    with _progress("keys, certificates, approvals", len(shops)) as show:
        tables = {shop: data / f"{shop}.csv" for shop in shops}
        found = provision(out, plan, tables, port=free_port(), words=tuple(map(str, words)), on_owner=show)
    with LocalFederation(found, out / "run", out / "logs") as federation:
        federation.start()
        with _progress("rounds", request.rounds) as show:
            federation.finish(request.timeout_seconds, on_status=lambda status: show(int(status.get("round", 0))))
        status = federation.status()
    summary = {**_summary(found, out, status), "peak_bytes": federation.peak_bytes}
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    _print(summary, found)


def _summary(found: Provisioned, out: Path, status: dict[str, Any]) -> dict[str, Any]:
    log = out / "run.tlog"
    said(testudo_server.cli.app, "audit", "export", out / "run", "--keys", found.federation, "--to", log)
    checks = answered(
        testudo_client.cli.app, "audit", "verify", log, "--federation-key", found.federation / "federation.pub"
    )
    ledgers = {
        owner: answered(testudo_client.cli.app, "ledger", folder, "--plan", found.plan)
        for owner, folder in found.owners.items()
    }
    return {"out": str(out), "log": str(log), "status": status, "audit": checks, "ledgers": ledgers}


def _print(summary: dict[str, Any], found: Provisioned) -> None:
    status = summary["status"]
    seconds = statistics.median(status["round_seconds"])
    typer.echo(
        f"{status['rounds']} rounds in {seconds:.1f} s each. {len(found.owners)} owners and one server, processes of "
        "their own, talked over TLS with keys that stayed where they were made."
    )
    typer.echo(
        f"Audit log: {status['log_size']} entries, {status['cosigned_by']} owners cosigned the last; all checks passed."
    )
    payload = (status["bytes_down"] + status["bytes_up"]) / status["rounds"] / 1e6
    held = ", ".join(f"{name} {bytes_held / 1e9:.2f}" for name, bytes_held in sorted(summary["peak_bytes"].items()))
    typer.echo(f"Payload: {payload:.1f} MB a round. Most memory held, GB: {held or 'not told by this system'}.")
    for owner, ledger in summary["ledgers"].items():
        spent = [line for line in ledger["ceilings"] if line["ceiling"]["plan_digest"] is not None]
        if not spent:
            continue
        most = max(spent, key=lambda line: line["spent"] / line["ceiling"]["epsilon"])
        typer.echo(f"{owner}: epsilon {most['spent']:.3g} of {most['ceiling']['epsilon']:.3g} spent under this plan")
    typer.echo(f"Everything lies in {summary['out']}; its folder logs/ holds what each process said.")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    with JobProgress(["deployment"]) as progress:
        progress.update(0, what, 0, total)
        yield lambda done: progress.update(0, what, min(done, total), total)
