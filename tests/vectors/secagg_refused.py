"""What must be refused, each named by its fault: messages of one genuine round, changed. Runs none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from secure_round import identity_of, other_terms
from testudo_common.errors import Breach
from testudo_common.secagg import bindings, primitives
from testudo_common.secagg.messages import (
    MESSAGES,
    Advertisement,
    CommitmentEntry,
    CommitmentList,
    Confirmation,
    Confirmations,
    Deliveries,
    Directory,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.terms import Terms, group_context
from vectors.secagg_rounds import Trace, opened_shares

LOW_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
LIED_TO = "bo"
SURVIVORS = bytes.fromhex("0107 00000003 0000 0002 0003")
ONE_COMMITMENT = bytes.fromhex("0102 00000001")
# name -> kind of message that it nearly is, bytes
NOT_DECODED: dict[str, tuple[str, bytes]] = {
    "no bytes": ("", b""),
    "a version alone": ("", SURVIVORS[:1]),
    "version 0": ("SurvivorSet", b"\x00" + SURVIVORS[1:]),
    "version 2": ("SurvivorSet", b"\x02" + SURVIVORS[1:]),
    "kind 0": ("", b"\x01\x00" + SURVIVORS[2:]),
    "kind 12": ("", b"\x01\x0c" + SURVIVORS[2:]),
    "kind before version": ("SurvivorSet", b"\x07\x01" + SURVIVORS[2:]),
    "trailing byte": ("SurvivorSet", SURVIVORS + b"\x00"),
    "trailing byte after no fields": ("MaskedInput", b"\x01\x08\x00"),
    "last byte missing": ("SurvivorSet", SURVIVORS[:-1]),
    "count one too high": ("SurvivorSet", bytes.fromhex("0107 00000004") + SURVIVORS[6:]),
    "count one too low": ("SurvivorSet", bytes.fromhex("0107 00000002") + SURVIVORS[6:]),
    "count of 65537": ("SurvivorSet", bytes.fromhex("0107 00010001") + SURVIVORS[6:]),
    "count of all bits": ("SurvivorSet", bytes.fromhex("0107 ffffffff") + SURVIVORS[6:]),
    "count little-endian": ("SurvivorSet", bytes.fromhex("0107 03000000") + SURVIVORS[6:]),
    "id of 513 bytes": ("CommitmentList", ONE_COMMITMENT + bytes.fromhex("00000201") + b"a" * 513 + bytes(32)),
    "id not UTF-8": ("CommitmentList", ONE_COMMITMENT + bytes.fromhex("00000001 ff") + bytes(32)),
    "id with a surrogate": ("CommitmentList", ONE_COMMITMENT + bytes.fromhex("00000003 eda080") + bytes(32)),
    "id in an overlong form": ("CommitmentList", ONE_COMMITMENT + bytes.fromhex("00000002 c1a1") + bytes(32)),
    "commitment of 31 bytes": ("Commitment", bytes.fromhex("0101") + bytes(31)),
    "commitment of 33 bytes": ("Commitment", bytes.fromhex("0101") + bytes(33)),
    "signature of 63 bytes": ("Advertisement", bytes.fromhex("0103") + bytes(4 * 32 + 63)),
    "tag of 15 bytes": ("Confirmation", bytes.fromhex("0109 00000001 0000") + bytes(15)),
    "ciphertext without its tag": ("SharedKeys", bytes.fromhex("0105 00000001 0000") + bytes(128)),
}
NOT_SHARES = {
    "a limb of 65537": bytes.fromhex("00010001") + bytes(60),
    "last limb of 65537": bytes(60) + bytes.fromhex("00010001"),
    "a limb of all bits": bytes.fromhex("ffffffff") + bytes(60),
    "a share of 60 bytes": bytes(60),
    "a share of 63 bytes": bytes(63),
    "a share of 65 bytes": bytes(65),
    "two shares": bytes(128),
    "no share": b"",
}
Faults = Mapping[Breach, Mapping[str, Any]]


def by(who: str, messages: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """``messages`` that must be refused as the fault of ``who``, by name."""
    return {name: (message, who) for name, message in messages.items()}


def flipped(data: bytes, place: int = 0) -> bytes:
    """``data`` with the lowest bit of one of its bytes flipped."""
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def flip(value: Any, name: str) -> Any:
    """``value`` with the lowest bit of the first byte of one of its fields flipped."""
    return replace(value, **{name: flipped(getattr(value, name))})


class Refusals:
    """Changes one round's messages: those to bo, and some from bo."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._terms = trace.run.terms
        self._group = trace.groups[0]
        self._place = [member.client_id for member in self._group.members].index(LIED_TO)
        self._listed = trace.given["commit"][LIED_TO].entries
        self._directory = trace.given["advertise"][LIED_TO].entries
        self._genuine: dict[str, bytes] = {}
        for step in trace.sent:
            for message in (trace.said(step, LIED_TO), trace.given[step].get(LIED_TO)):
                if message is not None:
                    self._genuine[type(message).__name__] = MESSAGES.encode(message)

    def all(self) -> list[dict[str, Any]]:
        """All of them, in the order of the protocol."""
        to_client = {
            "commit": self._commitment_lists(),
            "advertise": self._directories(),
            "share_keys": self._deliveries(),
            "mask": self._survivor_sets(),
            "confirm": self._confirmations(),
            "unmask": {Breach.OUT_OF_TURN: {"the confirmations again": self._trace.given["confirm"][LIED_TO]}},
        }
        found: list[dict[str, Any]] = [
            {"name": name, "to": "decoder", "kind": kind, "bytes": data, "breach": Breach.MALFORMED.value}
            for name, (kind, data) in NOT_DECODED.items()
        ]
        for after, faults in to_client.items():
            found += self._changed({"to": "client", "client": LIED_TO, "after": after}, faults)
        found += self._changed({"to": "server", "client": LIED_TO}, self._to_the_server())
        return found + [
            {"name": name, "to": "share", "kind": "share", "bytes": data, "breach": Breach.SHARE.value}
            for name, data in NOT_SHARES.items()
        ]

    def _changed(self, where: Mapping[str, str], faults: Faults) -> list[dict[str, Any]]:
        """Messages as what differs from the genuine one."""
        found = []
        for breach, messages in faults.items():
            for name, told in messages.items():
                message, named = told if isinstance(told, tuple) else (told, "")
                kind, data = type(message).__name__, MESSAGES.encode(message)
                front, changed, back = _difference(self._genuine[kind], data)
                shown = {"kind": kind, "front": front, "bytes": changed, "back": back, "breach": breach.value}
                found.append({"name": name} | dict(where) | shown | ({"named": named} if named else {}))
        return found

    def _commitment_lists(self) -> Faults:
        ada, bo, cleo, dan = self._listed
        stranger = CommitmentEntry("eve", cleo.commitment)
        return {
            Breach.COMMITMENT: {
                "own commitment missing": CommitmentList((ada, cleo, dan)),
                "own commitment with a flipped bit": CommitmentList((ada, flip(bo, "commitment"), cleo, dan)),
                "nobody's commitment": CommitmentList(()),
            },
            Breach.MALFORMED: {
                "ids in the wrong order": CommitmentList((bo, ada, cleo, dan)),
                "an id twice": CommitmentList((ada, bo, bo, cleo, dan)),
            },
            Breach.NOT_ON_ROSTER: {
                "a client that is not on the roster": CommitmentList((ada, bo, cleo, dan, stranger)),
            },
            Breach.TOO_FEW: {"a cohort of three": CommitmentList((ada, bo, cleo))},
            Breach.OUT_OF_TURN: {"a directory too early": Directory(self._directory)},
        }

    def _signed(
        self, who: str, *, terms: Terms | None = None, listed: Any = None, signer: str = "", **changed: bytes
    ) -> Advertisement:
        """What ``who`` advertised with fields changed, and signed again."""
        shown = self._advertised(who)
        kept = {item.name: getattr(shown, item.name) for item in fields(shown) if item.name != "signature"}
        commitments = bindings.commitments_digest(self._listed if listed is None else listed)
        key, context = identity_of(signer or who).signing_key, (terms or self._terms).round_context
        return bindings.sign_advertisement(key, context, commitments, **(kept | changed))

    def _advertised(self, who: str) -> Advertisement:
        return next(entry.advertisement for entry in self._directory if entry.client_id == who)

    def _with(self, advertisement: Advertisement, who: str = "dan") -> Directory:
        """The directory in which ``who`` advertises something else."""
        entries = (
            replace(entry, advertisement=advertisement) if entry.client_id == who else entry
            for entry in self._directory
        )
        return Directory(tuple(entries))

    def _directories(self) -> Faults:
        ada, bo, cleo, dan = self._directory
        own, theirs, copied = bo.advertisement, dan.advertisement, ada.advertisement
        assert self._signed("dan") == theirs, "only what a name says may differ"
        of_other_terms = {
            "federation": {"federation": "another"},
            "roster": {"roster_digest": b"q" * 32},
            "plan": {"plan_digest": b"q" * 32},
            "round": {"round_number": self._terms.round_number + 1},
            "attempt": {"attempt": self._terms.attempt + 1},
            "model": {"model_digest": b"n" * 32},
        }
        signed_for_others = {
            f"signed for another {name}": self._with(self._signed("dan", terms=other_terms(self._terms, **changed)))
            for name, changed in of_other_terms.items()
        }
        unsigned, uncommitted = cleo.advertisement.mask_key, replace(dan, client_id="eve")
        return {
            Breach.SIGNATURE: by("dan", signed_for_others)
            | by(
                "dan",
                {
                    "signed for another list of commitments": self._with(self._signed("dan", listed=self._listed[:3])),
                    "signed with another client's key": self._with(self._signed("dan", signer="ada")),
                    "signature with a flipped bit": self._with(flip(theirs, "signature")),
                    "signature of zeros": self._with(replace(theirs, signature=bytes(64))),
                    "channel key not the signed one": self._with(replace(theirs, channel_key=unsigned)),
                    "mask key with a flipped bit": self._with(flip(theirs, "mask_key")),
                    "seed digest with a flipped bit": self._with(flip(theirs, "seed_digest")),
                },
            ),
            Breach.COMMITMENT: by(
                "dan",
                {
                    "nonce not committed to": self._with(self._signed("dan", nonce=flipped(theirs.nonce))),
                    "another client's nonce": self._with(self._signed("dan", nonce=copied.nonce)),
                },
            )
            | by("eve", {"a client that had not committed": Directory((ada, bo, cleo, dan, uncommitted))}),
            Breach.KEY: {
                "own signature with a flipped bit": self._with(flip(own, "signature"), LIED_TO),
                "own mask key changed, and signed": self._with(self._signed("bo", mask_key=LOW_ORDER), LIED_TO),
                "own advertisement missing": Directory((ada, cleo, dan)),
                "channel key of zeros": self._with(self._signed("dan", channel_key=bytes(32))),
                "channel key of order 8": self._with(self._signed("dan", channel_key=LOW_ORDER)),
            }
            | by("dan", {name: self._with(signed) for name, signed in self._copies("dan", theirs, copied).items()}),
            Breach.MALFORMED: {
                "ids in the wrong order": Directory((ada, cleo, bo, dan)),
                "an id twice": Directory((ada, bo, cleo, dan, dan)),
            },
            Breach.LEFT_OUT: {
                "two of four left out": Directory((ada, bo)),
                "three of four left out": Directory((bo,)),
            },
            Breach.TOO_FEW: {"a cohort of three": Directory((ada, bo, cleo))},
            Breach.OUT_OF_TURN: {"the list of commitments again": CommitmentList(self._listed)},
        }

    def _copies(self, who: str, own: Advertisement, other: Advertisement) -> dict[str, Advertisement]:
        """What ``who`` signs with something in it that stands in the directory already."""
        return {
            "another client's channel key": self._signed(who, channel_key=other.channel_key),
            "another client's mask key": self._signed(who, mask_key=other.mask_key),
            "another client's seed digest": self._signed(who, seed_digest=other.seed_digest),
            "another client's mask key as channel key": self._signed(who, channel_key=other.mask_key),
            "another client's channel key as mask key": self._signed(who, mask_key=other.channel_key),
            "another client's channel key as seed digest": self._signed(who, seed_digest=other.channel_key),
            "one key for both": self._signed(who, mask_key=own.channel_key),
            "mask key as seed digest": self._signed(who, seed_digest=own.mask_key),
        }

    def _sealed(self, sender: int, receiver: int, *, context: bytes = b"", turned: bool = False) -> bytes:
        """The shares that ``sender`` has for ``receiver``, sealed for any context and direction."""
        both = b"".join(opened_shares(self._trace, self._group, sender, receiver))
        secret = self._trace.states["advertise"][self._group.members[sender].client_id].channel_secret
        shared = primitives.Agreement(secret).with_peer(self._group.members[receiver].channel_key)
        context, ends = context or self._group.context, (receiver, sender) if turned else (sender, receiver)
        key = primitives.channel_keys(shared, context, *ends).sending
        return primitives.seal(key, both, bindings.sealing_context(context, *ends))

    def _deliveries(self) -> Faults:
        genuine, me = self._trace.given["share_keys"][LIED_TO], self._place
        one, other, last = genuine.ciphertexts
        sent = self._trace.said("share_keys", LIED_TO).ciphertexts
        context, members = self._terms.round_context, self._group.members
        next_attempt = other_terms(self._terms, attempt=self._terms.attempt + 1).round_context
        assert self._sealed(one.position, me) == one.ciphertext, "only what a name says may differ"
        of_first_sender = {
            "ciphertext with a flipped bit": flipped(one.ciphertext),
            "ciphertext's tag with a flipped bit": flipped(one.ciphertext, 143),
            "another sender's ciphertext": other.ciphertext,
            "own ciphertext sent back": next(item.ciphertext for item in sent if item.position == one.position),
            "another receiver's ciphertext": self._sealed(one.position, other.position),
            "sealed the other way round": self._sealed(one.position, me, turned=True),
            **{
                f"sealed for another {name}": self._sealed(one.position, me, context=group_context(*named))
                for name, named in {
                    "attempt": (next_attempt, 0, members),
                    "group": (context, 1, members),
                    "list of members": (context, 0, members[:3]),
                    "order of members": (context, 0, members[::-1]),
                }.items()
            },
        }
        two = Deliveries(tuple(sorted((one.position, me))), (one,))
        without_me = tuple(place for place in genuine.sharers if place != me)
        without_one = tuple(place for place in genuine.sharers if place != one.position)
        return {
            Breach.SHARE: by(
                members[one.position].client_id,
                {
                    name: replace(genuine, ciphertexts=(replace(one, ciphertext=ciphertext), other, last))
                    for name, ciphertext in of_first_sender.items()
                },
            ),
            Breach.MALFORMED: {
                "sharers in the wrong order": replace(genuine, sharers=genuine.sharers[::-1]),
                "a sharer twice": replace(genuine, sharers=(0, *genuine.sharers)),
            },
            Breach.MEMBERS: {
                "no sharers": Deliveries((), ()),
                "oneself not among the sharers": replace(genuine, sharers=without_me),
                "a sharer that is no member": replace(genuine, sharers=(*genuine.sharers, 4)),
                "a ciphertext missing": replace(genuine, ciphertexts=(one, other)),
                "a ciphertext of no sharer": replace(genuine, sharers=without_one),
                "a ciphertext twice": replace(genuine, ciphertexts=(one, one, other, last)),
                "ciphertexts in the wrong order": replace(genuine, ciphertexts=(other, one, last)),
            },
            Breach.TOO_FEW: {"two sharers": two},
            Breach.OUT_OF_TURN: {"the survivors too early": self._trace.given["mask"][LIED_TO]},
        }

    def _survivor_sets(self) -> Faults:
        me, everybody = self._place, self._trace.given["mask"][LIED_TO].survivors
        others = tuple(place for place in everybody if place != me)
        return {
            Breach.MALFORMED: {
                "survivors in the wrong order": SurvivorSet(everybody[::-1]),
                "a survivor twice": SurvivorSet((*everybody, everybody[-1])),
            },
            Breach.SURVIVORS: {
                "no survivor": SurvivorSet(()),
                "oneself not among the survivors": SurvivorSet(others),
                "a survivor that shared no keys": SurvivorSet((*everybody, 4)),
            },
            Breach.TOO_FEW: {
                "one survivor": SurvivorSet((me,)),
                "two survivors": SurvivorSet(tuple(sorted((me, others[0])))),
            },
            Breach.OUT_OF_TURN: {"the deliveries again": self._trace.given["share_keys"][LIED_TO]},
        }

    def _confirmations(self) -> Faults:
        """Two tags of three are needed."""
        genuine, me = self._trace.given["confirm"][LIED_TO].tags, self._place
        one, other, last = genuine
        confirming = {item.position: item.confirming for item in self._trace.states["mask"][LIED_TO].held}
        fewer = tuple(sorted((me, one.position, other.position)))
        shown = bindings.survivors_digest(self._group.context, fewer)
        for_fewer = [
            replace(item, tag=bindings.confirmation_tag(confirming[item.position], shown, item.position, me))
            for item in (one, other)
        ]
        swapped = (replace(one, tag=other.tag), replace(other, tag=one.tag))
        return {
            Breach.CONFIRMATION: {
                "no tags": Confirmations(()),
                "one tag": Confirmations((one,)),
                "two tags with a flipped bit": Confirmations((flip(one, "tag"), flip(other, "tag"), last)),
                "two tags for other survivors": Confirmations((*for_fewer, last)),
                "two tags under each other's name": Confirmations((*swapped, last)),
                "own tags sent back": Confirmations(self._trace.said("confirm", LIED_TO).tags),
            },
            Breach.MALFORMED: {
                "tags in the wrong order": Confirmations((other, one, last)),
                "a tag twice": Confirmations((one, one, other, last)),
            },
            Breach.OUT_OF_TURN: {
                "a confirmation, as clients send it": Confirmation(genuine),
                "other survivors": SurvivorSet(fewer),
            },
        }

    def _to_the_server(self) -> Faults:
        """All are bo's fault, by name."""
        own, ada = self._advertised(LIED_TO), self._advertised("ada")
        one, other, last = self._trace.said("share_keys", LIED_TO).ciphertexts
        shares = self._trace.said("unmask", LIED_TO).shares
        bad_keys = {
            f"{field} key of {what}": self._signed(LIED_TO, **{f"{field}_key": key})
            for field in ("channel", "mask")
            for what, key in {"zeros": bytes(32), "order 8": LOW_ORDER}.items()
        }
        next_attempt = other_terms(self._terms, attempt=self._terms.attempt + 1)
        return {
            Breach.SIGNATURE: {
                "signed for another attempt": self._signed(LIED_TO, terms=next_attempt),
                "signature with a flipped bit": flip(own, "signature"),
            },
            Breach.COMMITMENT: {
                "another client's advertisement": ada,
                "nonce not committed to": self._signed(LIED_TO, nonce=bytes(32)),
            },
            Breach.KEY: bad_keys | self._copies(LIED_TO, own, ada),
            Breach.SHARE: {
                "no ciphertexts": SharedKeys(()),
                "a ciphertext missing": SharedKeys((other, last)),
                "a ciphertext twice": SharedKeys((one, one, other, last)),
                "ciphertexts in the wrong order": SharedKeys((other, one, last)),
                "a ciphertext for oneself": SharedKeys((one, other, replace(last, position=self._place))),
                "no shares": UnmaskingShares(()),
                "a share missing": UnmaskingShares(shares[1:]),
                "the share of oneself missing": UnmaskingShares(
                    tuple(share for share in shares if share.position != self._place)
                ),
                "a share twice": UnmaskingShares((shares[0], *shares)),
                "shares in the wrong order": UnmaskingShares(shares[::-1]),
                "a share of a stranger": UnmaskingShares((*shares[:-1], replace(shares[-1], position=4))),
            },
        }


def _difference(genuine: bytes, data: bytes) -> tuple[int, bytes, int]:
    """How many bytes are the same in front, what stands in between, and how many are the same at the end."""
    most = min(len(genuine), len(data))
    front = next((n for n in range(most) if genuine[n] != data[n]), most)
    most -= front
    back = next((n for n in range(most) if genuine[-1 - n] != data[-1 - n]), most)
    return front, data[front : len(data) - back], back
