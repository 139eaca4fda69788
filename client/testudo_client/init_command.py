"""``testudo-client init``: a data owner's folder with a key and a policy. The policy is strict, and is to be edited.

Every key that opens something is written out with what it does, so that the file explains itself.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from testudo_client.code_digest import code_digest
from testudo_client.home import OwnerHome
from testudo_client.policy.load import load_policy, parse_policy
from testudo_common.app_bundle import bundle_digest
from testudo_common.errors import UsageError
from testudo_common.files import write_new
from testudo_common.key_files import create_key, parse_public, public_hex, read_key, read_public

_TEMPLATE = """\
# My rules for every plan. What is not allowed here is refused. docs/policy.md explains every key.
version = 1
client = {client}

{privacy}
[aggregation]
secure = true               # nobody may see my update by itself, only sums over groups
min_cohort = {min_cohort}             # fewer clients must never be grouped
min_group = {min_group}               # a sum over fewer clients must never be opened
min_corruption = 0.1        # share of the clients that must be able to collude with the server without harm to me
max_left_out = 0.0          # the most of a cohort that the server may leave out when it can know the groups
max_attempts = 5            # how often one round may be begun
max_participations = {max_participations}     # rounds of one plan that I may take part in
weighted = false            # my number of examples does not travel

[model]
allowed = {models}          # a factory must stand here in full: "package.module:function"
max_bytes = {max_bytes}         # of one update

[metrics]
statistics = []             # scores on my examples that may leave, in secure sums: none
min_noise_multiplier = 1.0
min_cell = 10

[audit]
required = true             # only plans whose server keeps a log that the clients mirror, check and cosign
max_window = 1              # rounds for which an earlier cosignature may count; above 1, two views of the log can last
lower_quorum = false        # more than two thirds of the members have to have seen what I train on

[pins]
federation_key = {federation_key}   # of federation.pub; compare it with the federation by another way
code = {code}
# Of the app bundle that the server sends, as this installation makes it: testudo-client bundle. It holds no code, since
# all parties run what they installed. Only testudo-client run looks at it: under Flower's own executor, write "any".
bundle = {bundle}
{approvals}
[dates]
not_before = {not_before}
not_after = {not_after}      # a policy does not go on by itself

[log]
ship = "never"

[ledger]
anchors = {anchors}                # further files, best on another disk, that notice an older copy of the ledger
"""
_EXAMPLE = """\
[privacy.example]           # every example of mine must be hidden, from whoever sees everything that I send
epsilon_per_run = {epsilon_per_run}       # of one plan, in all
epsilon_for_life = {epsilon_for_life}     # of all plans together, ever
delta = {delta}               # well under one over the number of my examples
accountant = "prv"
"""
_NONE = """\
[privacy]
none = true                 # plans without any differential privacy may train on my data
"""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What a policy is to say; the command's options explain each. No ``federation_key``: none is pinned yet."""

    folder: Path
    client: str
    epsilon_per_run: float = 8.0
    epsilon_for_life: float = 10.0
    delta: float = 1e-5
    no_privacy: bool = False
    min_cohort: int = 10
    min_group: int = 4
    max_participations: int = 100
    models: Sequence[str] = ("mlp", "conv", "linear")
    max_bytes: int = 4_000_000
    federation_key: str | None = None
    days: int = 365
    anchors: Sequence[Path] = ()
    approval_key: Path | None = None


def key_in_folder(request: InitRequest) -> str | None:
    """The federation's key as it lies in the folder, hex; None where there is none.

    Raises:
        KeyFileError: It is not a key, or what was stated is none.
        UsageError: Another one was stated.
    """
    there = OwnerHome(request.folder).federation_key_file
    found = read_public(there).public_bytes_raw().hex() if there.exists() else None
    stated = request.federation_key
    if stated is not None:
        key = parse_public(stated, source="--federation-key").public_bytes_raw().hex()
        if found not in (None, key):
            remedy = "ask the federation which is its"
            raise UsageError("the federation's key in the folder is another one", where=str(there), remedy=remedy)
    return found


def unasked(request: InitRequest) -> InitRequest:
    """As stated; without a key stated, the one that the owner has put into the folder is pinned."""
    return replace(request, federation_key=request.federation_key or key_in_folder(request))


def refuse_if_there(home: OwnerHome) -> None:
    """Return only if there is no policy yet.

    Raises:
        UsageError: There is one, and it is not overwritten.
    """
    if os.path.lexists(home.policy_file):
        raise UsageError(
            "there is a policy already, and it is not overwritten",
            where=str(home.policy_file),
            remedy="edit it, or move it away first",
        )


_APPROVALS = """\
approvals = "{key}"   # signs my approvals: whoever has the node, and not this key, approves nothing
"""


def _approving_key(request: InitRequest) -> str | None:
    """Public half of the key that is to sign approvals, made where it is not there; None: the node's own signs them."""
    path = request.approval_key
    if path is None:
        return None
    if path.resolve().is_relative_to(request.folder.resolve()):
        raise UsageError(
            "the node reads this folder, and the key for approvals is to be kept from it",
            where=str(path),
            remedy="name a file elsewhere, best on another machine or a stick",
        )
    return public_hex(read_key(path) if path.exists() else create_key(path))


def make_home(request: InitRequest) -> dict[str, Any]:
    """A folder with a key, unless there is one, and the policy; what was made, as JSON has it.

    Raises:
        UsageError: There is a policy already, or it cannot be written.
        PolicyError: The policy would not be one, or others could write it.
        KeyFileError: The key that is there cannot be used.
    """
    home = OwnerHome(request.folder)
    refuse_if_there(home)
    key_in_folder(request)
    text = policy_text(request, datetime.now(UTC).date(), _approving_key(request))
    parse_policy(tomllib.loads(text), source="the policy to be")
    key = home.key() if home.identity_file.exists() else create_key(home.identity_file)
    try:
        write_new(home.policy_file, text.encode())
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise UsageError(problem, where=str(home.policy_file), remedy="name a folder of your own") from error
    policy = load_policy(home.policy_file)  # says now, and not in the first round, that others may write the folder
    return {
        "folder": str(home.folder),
        "policy": str(home.policy_file),
        "policy_digest": policy.digest,
        "identity": str(home.identity_file),
        "public_key": public_hex(key),
        "federation_key": list(policy.pins.federation_key),
        "approvals": policy.pins.approvals,
    }


def policy_text(request: InitRequest, today: date, approvals: str | None = None) -> str:
    """The policy as it is written.

    Args:
        request: What it is to say.
        today: The first day on which it holds.
        approvals: Public key that signs approvals, hex; None: the node's own.
    """
    example = _EXAMPLE.format(
        epsilon_per_run=float(request.epsilon_per_run),
        epsilon_for_life=float(request.epsilon_for_life),
        delta=f"{float(request.delta)!r}",
    )
    return _TEMPLATE.format(
        client=_toml(request.client),
        privacy=_NONE if request.no_privacy else example,
        min_cohort=request.min_cohort,
        min_group=request.min_group,
        max_participations=request.max_participations,
        models=_toml(list(request.models)),
        max_bytes=request.max_bytes,
        federation_key=_toml([request.federation_key.lower()] if request.federation_key else []),
        code=_toml([code_digest()]),
        bundle=_toml([bundle_digest()]),
        approvals=_APPROVALS.format(key=approvals) if approvals else "",
        not_before=today,
        not_after=today + timedelta(days=request.days),
        anchors=_toml([str(anchor.resolve()) for anchor in request.anchors]),
    )


def _toml(value: str | list[str]) -> str:
    """A text or a list of texts; what JSON writes of them is TOML too, but for one character."""
    return json.dumps(value).replace("\x7f", "\\u007f")
