"""A real data owner's ClientApp: policy, approval, key and ledger stand between the server and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from helpers import OWNERS_TABLE, make_plan, message_in, request_for
from testudo_client.app import app_for, build_client_app, participant_from_context, signer_from_context
from testudo_client.approve_command import approve_plan, withdraw_plan
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_client.membership import read_membership
from testudo_client.policy.findings import Launch
from testudo_common.app_bundle import bundle_digest
from testudo_common.flower_records import IDENTIFY, TRAIN, identity_in, reply_in, to_records
from testudo_common.key_files import create_key, public_hex, read_key
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.signed_replies import IDENTIFICATION, Asked, verify_reply
from testudo_common.vectors import Vector
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, decode
from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit
from testudo_simulations.grid import InProcessGrid

LAUNCH = Launch(bundle_digest())


def owner_of(plan: FederationPlan, folder: Path, *, approved: bool = True, **more: Any) -> dict[str, Any]:
    """What an owner writes into its node's configuration, with the files that it names."""
    (folder / "plan.toml").write_text(dump_plan(plan))
    (folder / "mine.csv").write_text("price,size,sold\n1,2,no\n3,4,yes\n")
    request = InitRequest(
        folder / "mine",
        client="ada",
        epsilon_per_run=8.0,
        epsilon_for_life=10.0,
        delta=1e-5,
        no_privacy=True,
        min_cohort=4,
        min_group=4,
        max_participations=100,
        models=["linear"],
        max_bytes=1000,
        federation_key=more.get("federation_key"),
        days=1,
        anchors=[],
    )
    make_home(request)
    if not plan.audited:
        policy = OwnerHome(folder / "mine").policy_file
        policy.write_text(policy.read_text().replace("required = true ", "required = false"))
    if approved:
        approve_plan(plan, OwnerHome(folder / "mine"))
    return {"owner": str(folder / "mine"), "plan": str(folder / "plan.toml"), "data": str(folder / "mine.csv")}


def federation_of(folder: Path, plan: FederationPlan) -> dict[str, Any]:
    """An owner whose federation is there: its key on the roster, the federation's pinned."""
    server = folder / "server"
    others = {name: public_hex(create_key(folder / name / "identity.pem")) for name in ("bob", "cyd", "dan")}
    admit(server, "shops", others)
    config = owner_of(plan, folder, approved=False, federation_key=(server / FEDERATION_PUBLIC).read_text().strip())
    mine = Path(config["owner"])
    admit(server, "shops", {"ada": public_hex(read_key(mine / "identity.pem"))})
    for name in (ROSTER, FEDERATION_PUBLIC):
        (mine / name).write_bytes((server / name).read_bytes())
    return config


def context_of(node_config: dict[str, Any]) -> Context:
    return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})


def asked(config: dict[str, Any], plan: FederationPlan) -> Message:
    """What the server hears when it asks the owner's ClientApp to train."""
    app = build_client_app(
        lambda context: participant_from_context(context_of(config), LAUNCH),
        signer_of=lambda context: signer_from_context(context_of(config)),
    )
    grid = InProcessGrid(app, 1)
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([FlowerMessage(to_records(request_for(plan)), node, TRAIN)])
    return message_in(reply.content)


CERTIFICATE, ROOT_CERTIFICATE = "44" * 32, "55" * 32


@pytest.mark.parametrize(
    ("bundle", "certificate", "refused"),
    [
        (bundle_digest(), CERTIFICATE, ""),
        (bundle_digest(), (CERTIFICATE, ROOT_CERTIFICATE), ""),
        ("66" * 32, CERTIFICATE, "pins.bundle"),
        (None, CERTIFICATE, "pins.bundle"),
        (bundle_digest(), ROOT_CERTIFICATE, "pins.server_certificate"),
        (bundle_digest(), None, "pins.server_certificate"),
    ],
)
def test_client_app_that_knows_its_bundle_and_the_servers_certificate(
    tmp_path: Path, bundle: str | None, certificate: str | tuple[str, ...] | None, refused: str
) -> None:
    """As an executor starts it, which has made both digests itself; the owner has pinned both."""
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    home = OwnerHome(Path(config["owner"]))
    pinned = f'bundle = ["{bundle_digest()}"]'
    text = home.policy_file.read_text()
    assert pinned in text, "init pins the bundle that this installation makes"
    home.policy_file.write_text(text.replace(pinned, f'{pinned}\nserver_certificate = ["{CERTIFICATE}"]'))
    approve_plan(plan, home)
    app = app_for(bundle, certificate)
    grid = InProcessGrid(ClientApp(), 1)  # makes messages possible
    for message_id, message_type, records in (
        ("m1", IDENTIFY, RecordDict()),
        ("m2", TRAIN, to_records(request_for(plan))),
    ):
        message = FlowerMessage(records, grid.get_node_ids()[0], message_type)
        message.metadata.__dict__["_message_id"] = message_id
        reply = app(message, context_of(config))
        roster = read_membership(home.folder).roster
        if message_type == TRAIN:
            parts, signature = reply_in(reply.content)
            verify_reply(roster, "ada", Asked(1, message_id), parts, signature)  # a refusal too
            answer = decode(parts)
            assert (answer == Refusal(plan.digest, 1, 0, RefusalReason.NOT_ALLOWED)) == bool(refused)
        elif not refused:
            name, signature = identity_in(reply.content)
            verify_reply(roster, name, Asked(1, message_id), IDENTIFICATION, signature)
    sentences = [line.sentence for line in home.log.lines() if line.event == "refused"]
    assert bool(sentences) == bool(refused)
    assert all(refused in sentence for sentence in sentences)


def test_name_in_the_policy_that_is_not_the_rosters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under a plain plan nothing else would tell: the server would leave her out, and nobody would say why."""
    plan = make_plan("rounds.max_participations=4", "secure_aggregation.mode=plain", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    home = OwnerHome(Path(config["owner"]))
    text = home.policy_file.read_text()
    home.policy_file.write_text(
        text.replace('client = "ada"', 'client = "eve"').replace("secure = true ", "secure = false")
    )
    approve_plan(plan, home)
    message = FlowerMessage(RecordDict(), InProcessGrid(ClientApp(), 1).get_node_ids()[0], IDENTIFY)
    assert not app_for(bundle_digest(), None)(message, context_of(config)).content
    assert "the roster holds your key under the name 'ada'" in caplog.text


def test_participant_of_a_real_owner(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    approve_plan(plan, OwnerHome(Path(config["owner"])))
    participant = participant_from_context(context_of(config), LAUNCH)
    assert (participant.client_id, participant.plan) == ("ada", plan)
    assert participant_from_context(context_of(config), LAUNCH) is participant, "data is read once a process"
    reply = participant.answer(request_for(plan))
    assert isinstance(reply, SecureMessage), "no update leaves in clear"
    assert reply.masked is None
    files = [path for path in Path(config["owner"]).rglob("*") if path.is_file()]
    kept = {path.suffix or path.name for path in files if path.parent.name == "state"}
    assert kept >= {".safetensors", ".session", ".db", "lock"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.name not in {ROSTER, FEDERATION_PUBLIC})


def test_plan_that_is_not_approved_is_refused_before_data_is_read(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    (tmp_path / "mine.csv").unlink()  # reading it would be another error
    assert asked(config, plan) == Refusal(plan.digest, 1, 0, RefusalReason.NOT_APPROVED)
    (line,) = OwnerHome(Path(config["owner"])).log.lines()
    assert (line.event, line.reason) == ("refused", "cannot_start")
    assert "not approved" in line.sentence


def test_plan_that_the_policy_does_not_allow_is_refused_before_data_is_read(tmp_path: Path) -> None:
    plan = make_plan("model.name=mlp", "rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    (tmp_path / "mine.csv").unlink()
    assert asked(config, plan) == Refusal(plan.digest, 1, 0, RefusalReason.NOT_ALLOWED)


def test_without_a_policy_nothing_runs(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    (Path(config["owner"]) / "policy.toml").unlink()
    (tmp_path / "mine.csv").unlink()
    assert asked(config, plan) == Refusal(plan.digest, 1, 0, RefusalReason.NOT_ALLOWED)


def test_withdrawal_counts_from_the_next_round_on(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    home = OwnerHome(Path(config["owner"]))
    approve_plan(plan, home)
    participant = participant_from_context(context_of(config), LAUNCH)
    assert isinstance(participant.train(request_for(plan)), SecureMessage)
    withdraw_plan(plan.digest, home)
    refusal = Refusal(plan.digest, 2, 0, RefusalReason.NOT_APPROVED)
    assert participant.train(request_for(plan, round_number=2)) == refusal
    step = SecureMessage(plan.digest, 1, 0, b"")
    assert participant.step(step) == Refusal(plan.digest, 1, 0, RefusalReason.NOT_APPROVED)
    assert [line.reason for line in home.log.lines()][-2:] == ["not_approved", "not_approved"]


def test_what_goes_wrong_stands_in_the_owners_log_without_data(tmp_path: Path) -> None:
    plan = make_plan("rounds.max_participations=4", tables=OWNERS_TABLE)
    config = federation_of(tmp_path, plan)
    home = OwnerHome(Path(config["owner"]))
    approve_plan(plan, home)
    participant = participant_from_context(context_of(config), LAUNCH)
    participant._learner.start_from = failing  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="secret 123"):
        participant.answer(request_for(plan))
    last = list(home.log.lines())[-1]
    assert (last.event, last.reason, last.sentence) == ("refused", "internal", "ValueError")


def failing(_vector: Vector) -> None:
    raise ValueError("secret 123")
