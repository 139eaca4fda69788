"""What clients of one process find alike is found once; anything else, and whatever is wrong, is looked at anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from secure_federation import NAMES, Members, exchange_of, request_of, secure_plan
from secure_round import names_of, terms_of
from testudo_client.store import ClientStore
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import client_checks, server
from testudo_common.secagg.alike import decoded, once_for_all
from testudo_common.secagg.messages import MESSAGES, CommitmentEntry, CommitmentList, SurvivorSet
from testudo_common.secagg.terms import Terms

TERMS = terms_of(names_of(4))


def test_same_lists_under_the_same_terms_are_looked_at_once() -> None:
    looked_at: list[tuple[int, ...]] = []

    @once_for_all
    def total(terms: Terms, one: tuple[int, ...], other: tuple[int, ...]) -> int:
        """Their sum."""
        looked_at.append(one + other)
        return sum(one) + sum(other)

    one, other = (1, 2), (3,)
    assert [total(TERMS, one, other) for _ in range(3)] == [6, 6, 6]
    assert total(replace(TERMS), one, other) == 6, "terms of another client that say the same"
    assert looked_at == [(1, 2, 3)]
    assert total(TERMS, one[:1] + one[1:], other) == 6, "an equal list is not the same one"
    assert total(replace(TERMS, attempt=1), one, other) == 6
    assert total(replace(TERMS, roster=dict(TERMS.roster)), one, other) == 6
    assert total(replace(TERMS, parameters=replace(TERMS.parameters, min_cohort=4)), one, other) == 6
    assert len(looked_at) == 5
    assert (total.__name__, total.__doc__) == ("total", "Their sum.")


def test_what_is_wrong_is_found_each_time() -> None:
    entry = CommitmentEntry("nobody", bytes(32))
    listed = CommitmentList((entry,))
    for _ in range(2):
        with pytest.raises(ProtocolError) as caught:
            client_checks.all_are_on_the_roster(TERMS, listed)
        assert caught.value.breach is Breach.NOT_ON_ROSTER
    with_it = replace(TERMS, roster={**TERMS.roster, "nobody": bytes(32)})
    client_checks.all_are_on_the_roster(with_it, listed)
    with pytest.raises(ProtocolError):
        client_checks.all_are_on_the_roster(TERMS, listed)


def test_same_bytes_are_one_message_and_wrong_ones_are_none() -> None:
    body = MESSAGES.encode(SurvivorSet((0, 2)))
    assert decoded(body) is decoded(bytes(bytearray(body)))
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoded(body + b"\0")


@pytest.mark.parametrize("held", [True, False], ids=["sessions held", "sessions as bytes"])
def test_each_signature_is_checked_once_for_all_clients_that_hold_their_sessions(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Else a cohort of n in one process would check n times n. A client whose session was bytes checks all alone."""
    checked: dict[str, int] = {"clients": 0, "server": 0}
    verify = server.verify_advertisement

    def counting(who: str) -> Any:
        def verified(*arguments: Any) -> None:
            checked[who] += 1
            verify(*arguments)

        return verified

    monkeypatch.setattr(client_checks, "verify_advertisement", counting("clients"))
    monkeypatch.setattr(server, "verify_advertisement", counting("server"))
    stores = {name: ClientStore(None, holds_sessions=held) for name in NAMES}
    members = Members(secure_plan(), stores=stores)
    (group,) = exchange_of(members)[0].group_means(request_of(members), NAMES).groups
    assert group.members == NAMES
    assert checked == {"clients": 4 if held else 16, "server": 4}
    kept = [store.load_session(members.plan.digest) for store in stores.values()]
    assert all((session is None) == held for session in kept)
