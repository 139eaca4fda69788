"""What a plan will cost, before anybody trains."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers import make_plan
from testudo_common.errors import PlannerError
from testudo_common.plan import FederationPlan
from testudo_common.wire import TrainReply, TrainRequest, encode
from testudo_server.preview import preview
from watched_run import WatchedRun

PLAN = make_plan()


def test_preview_of_a_plan_without_privacy() -> None:
    found = preview(PLAN, None)
    assert found["digest"] == PLAN.digest
    nothing = np.zeros(8, dtype=np.float32)
    reply, request = (
        TrainReply(PLAN.digest, 1, 0, PLAN.digest, nothing),
        TrainRequest(PLAN.digest, 1, 0, PLAN.digest, nothing),
    )
    assert found["shared_parameters"] == 8
    assert found["bytes_up_a_client_and_round"] == encode(reply).size_bytes
    assert found["bytes_down_a_client_and_round"] == encode(request).size_bytes
    assert found["rounds_of_one_client"] is None
    assert (found["epsilon_of_one_client"], found["noise_multiplier"], found["delta"]) == (None, None, None)
    assert preview(PLAN, 5)["rounds_of_one_client"] == 2


def test_preview_of_a_private_plan() -> None:
    private = ('privacy.unit="example"', "privacy.accountant=rdp", "inner.sample_rate=1.0")
    target = make_plan(*private, "privacy.epsilon=4")
    assert preview(target, None)["noise_multiplier"] is None, "it depends on the number of clients"
    found = preview(target, 5)
    assert isinstance(found["epsilon_of_one_client"], float)
    assert 0.99 * 4 <= found["epsilon_of_one_client"] <= 4
    written = make_plan(*private, "privacy.noise_multiplier=2", "rounds.max_participations=3")
    found = preview(written, None)
    assert (found["noise_multiplier"], found["rounds_of_one_client"]) == (2.0, 3)
    assert isinstance(found["epsilon_of_one_client"], float)
    one_round = make_plan(*private, "privacy.noise_multiplier=2", "rounds.max_participations=1")
    smaller = preview(one_round, None)["epsilon_of_one_client"]
    assert isinstance(smaller, float)
    assert smaller < found["epsilon_of_one_client"]


def test_preview_of_a_plan_with_a_log() -> None:
    """For 12 owners: 9 cosign, so 3 may be absent; two views need 6 that sign both, so 5 are found out."""
    log = make_plan("audit.mode=log")
    found = preview(log, 12)
    assert found["owners_that_have_to_cosign"] == 9
    assert found["owners_that_may_be_absent"] == 3
    assert found["owners_that_may_collude_in_two_views"] == 5
    assert found["rounds_that_a_cosignature_counts"] == 1
    weak = preview(make_plan("audit.mode=log", "audit.quorum=6", "audit.window=2"), 12)
    assert (weak["owners_that_have_to_cosign"], weak["owners_that_may_be_absent"]) == (6, 6)
    assert weak["owners_that_may_collude_in_two_views"] == 0
    assert weak["rounds_that_a_cosignature_counts"] == 2
    unknown = preview(log, None)
    assert [unknown[name] for name in unknown if name.startswith("owners_that")] == [None] * 3
    assert "owners_that_have_to_cosign" not in preview(PLAN, 12)
    assert "nobody can check" in str(preview(PLAN, 12)["audit_log"])
    with pytest.raises(PlannerError, match="13 owners have to cosign the audit log, and there are 12"):
        preview(make_plan("audit.mode=log", "audit.quorum=13"), 12)


def test_previewed_bytes_of_a_plan_with_a_log_are_those_that_travel(tmp_path: Path) -> None:
    """Sizes of the log are taken to have six digits; of training, nothing else may differ."""
    plan = make_plan("audit.mode=log", "rounds.cohort_size=3", "rounds.count=2")
    names = [f"client-{number}" for number in range(7)]
    run = WatchedRun(tmp_path, plan, clients=names, federation="federation")
    run.run()
    found = preview(plan, 7)
    record = run.store.records()[0]
    down, up = found["bytes_down_a_client_and_round"], found["bytes_up_a_client_and_round"]
    assert isinstance(down, int)
    assert isinstance(up, int)
    assert record.bytes_up == 3 * up
    assert record.bytes_down <= 3 * down <= record.bytes_down + 3 * 6
    assert record.log is not None
    second = run.store.records()[1].log
    assert second is not None
    log_down, log_up = found["bytes_down_of_the_log_about"], found["bytes_up_of_the_log_about"]
    assert isinstance(log_down, int)
    assert isinstance(log_up, int)
    assert second.bytes_up <= 7 * log_up <= 1.1 * second.bytes_up
    assert second.bytes_down <= 7 * log_down <= 1.1 * second.bytes_down


def noisy(*settings: str) -> FederationPlan:
    return make_plan(
        'secure_aggregation.mode="secure"', "rounds.cohort_size=40", "secure_aggregation.group_size=20", *settings
    )


def test_preview_of_client_level_privacy() -> None:
    target = noisy("client_privacy.epsilon=8", "outer.max_update_norm=1.0")
    assert preview(target, None)["client_level_epsilon"] is None, "it depends on the number of clients"
    found = preview(target, 160)
    assert isinstance(found["client_level_epsilon"], float)
    assert 7.9 <= found["client_level_epsilon"] <= 8
    assert (found["fewest_clients_in_a_sum"], found["members_that_may_drop_out_of_a_group"]) == (16, 4)
    assert found["honest_survivors_that_carry_its_noise"] == 14
    assert found["bits_a_coordinate"] == 16
    multiplier = found["client_level_noise_multiplier"]
    assert isinstance(multiplier, float)
    ratio = found["noise_of_a_groups_mean_over_clipping_norm"]
    assert ratio == pytest.approx(multiplier * math.sqrt(8) / 20, rel=1e-3)
    assert "warning" not in found
    assert "client_level_epsilon" not in preview(noisy(), 160)


def test_preview_warns_where_the_signal_drowns() -> None:
    """A sum carries the whole noise, so groups of half the size have twice of it in their means."""
    plan = noisy("client_privacy.noise_multiplier=3", "model.inputs=[4]")
    assert "warning" not in preview(plan, 160)
    smaller = preview(
        noisy("client_privacy.noise_multiplier=3", "model.inputs=[4]", "secure_aggregation.group_size=10"), 160
    )
    assert "larger groups" in str(smaller["warning"])


def test_preview_of_a_plan_whose_model_is_left_open() -> None:
    found = preview(make_plan("model.inputs=none"), 5)
    assert (found["shared_parameters"], found["bytes_down_a_client_and_round"]) == (None, None)
