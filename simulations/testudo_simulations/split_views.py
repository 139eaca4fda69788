"""A server that shows two histories, and witnesses of whom some sign both: who finds it out. Trains nothing.

The log is forked after a common beginning. Each honest witness is shown one branch, and cosigns what extends its own
mirror; colluders cosign both. Whoever acts does so on a checkpoint with k cosignatures only, so that the split goes
unnoticed if both branches get as many. Keys, notes and cosignatures are the real ones; the formula is
checkpoints.colluders_found, and tests hold that no split of a small federation says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.audit.checkpoints import (
    Checkpoint,
    Watch,
    cosigners_of,
    open_checkpoint,
    watch_of,
    witness_name,
)
from testudo_common.audit.merkle import Frontier, leaf_hash
from testudo_common.audit.notes import Note, NoteSignature, Signer
from testudo_common.errors import AuditError, AuditFault
from testudo_simulations.keys import SimulatedKeys

_BEGINNING: Final = (b"what", b"everybody", b"has seen")
_BRANCHES: Final = ((b"one model",), (b"another model",))
_TIME: Final = 1_700_000_000  # any; the same each time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a split.

    Attributes:
        honest: How many honest witnesses were shown each branch.
        cosignatures: Under each branch's checkpoint.
        accepted: Whether whoever holds a branch's checkpoint acts on it.
    """

    honest: tuple[int, int]
    cosignatures: tuple[int, int]
    accepted: tuple[bool, bool]

    @property
    def found(self) -> bool:
        """Whether the two branches cannot both go on."""
        return not all(self.accepted)

    @property
    def refusing(self) -> int:
        """Honest clients that do not act on what they were shown."""
        return sum(count for count, accepted in zip(self.honest, self.accepted, strict=True) if not accepted)


@dataclass(frozen=True, slots=True)
class Split:
    """Two branches, cosigned.

    Attributes:
        honest: See :class:`Outcome`.
        cosignatures: See :class:`Outcome`.
    """

    honest: tuple[int, int]
    cosignatures: tuple[int, int]

    def under(self, quorum: int) -> Outcome:
        """What becomes of it where ``quorum`` cosignatures are asked for."""
        one, other = (count >= quorum for count in self.cosignatures)
        return Outcome(self.honest, self.cosignatures, (one, other))


class Mirror:
    """An honest witness: cosigns a checkpoint if it extends what it has seen, and nothing else.

    Args:
        name: Client id.
        key: Its own.
        watch: Whose signatures count.
        entries: What it has seen so far.
    """

    def __init__(self, name: str, key: Ed25519PrivateKey, watch: Watch, entries: Sequence[bytes]) -> None:
        self._signer = Signer(witness_name(name), key, cosigner=True)
        self._watch = watch
        self._seen = Frontier(map(leaf_hash, entries))

    def cosign(self, new: Sequence[bytes], note: bytes) -> NoteSignature:
        """Its line under the note.

        Raises:
            AuditError: The log did not sign it, or it does not lead from what this witness has seen to what is new.
        """
        checkpoint, opened = open_checkpoint(note, self._watch)
        extended = self._seen.copy()
        for entry in new:
            extended.append(leaf_hash(entry))
        if (checkpoint.size, checkpoint.root) != (extended.size, extended.root()):
            raise AuditError(AuditFault.SPLIT_VIEW, "a checkpoint of another history than the one seen so far")
        self._seen = extended
        return self._signer.sign(opened.text, _TIME)


class ForkedLog:
    """A log with two branches, and the witnesses it is shown to.

    Args:
        witnesses: How many there are.
    """

    def __init__(self, witnesses: int) -> None:
        self.names = tuple(f"witness-{number:04d}" for number in range(witnesses))
        keys = SimulatedKeys("split", self.names, b"\0" * 32)
        self._watch = watch_of(keys.roster, "0" * 64)
        self._keys = {name: keys.membership_of(name).key for name in self.names}
        log = Signer(self._watch.log.name, keys.log_key)
        self._notes = [_signed(log, self._watch.origin, branch) for branch in _BRANCHES]

    def witness(self, name: str) -> Mirror:
        """One that has seen the common beginning."""
        return Mirror(name, self._keys[name], self._watch, _BEGINNING)

    def show(self, branch: int, honest: Collection[str], colluders: Collection[str]) -> bytes:
        """A branch's checkpoint, with the cosignatures of those it is shown to.

        Args:
            branch: 0 or 1.
            honest: Witnesses that have seen the common beginning and nothing else.
            colluders: Sign without looking.
        """
        note = self._notes[branch]
        lines = [self.witness(name).cosign(_BRANCHES[branch], note.encode()) for name in honest]
        for name in colluders:
            lines.append(Signer(witness_name(name), self._keys[name], cosigner=True).sign(note.text, _TIME))
        return note.with_signatures(lines).encode()

    def cosigners(self, note: bytes) -> frozenset[str]:
        """Who cosigned, as any client finds out; every signature is verified."""
        _, opened = open_checkpoint(note, self._watch)
        return cosigners_of(opened, self._watch)


def _signed(log: Signer, origin: str, branch: Sequence[bytes]) -> Note:
    frontier = Frontier(map(leaf_hash, (*_BEGINNING, *branch)))
    text = Checkpoint(origin, frontier.size, frontier.root()).text()
    return Note(text, (log.sign(text, _TIME),))


def split(log: ForkedLog, one: Collection[str], other: Collection[str], colluders: Collection[str]) -> Split:
    """Show one branch to some honest witnesses and the other to others; who is in none of the three is absent."""
    found = [log.cosigners(log.show(branch, honest, colluders)) for branch, honest in enumerate((one, other))]
    return Split((len(one), len(other)), (len(found[0]), len(found[1])))


def worst_split(log: ForkedLog, colluders: int) -> Split:
    """The split that is the hardest to find: half of the honest witnesses are shown each branch."""
    guilty, honest = log.names[:colluders], log.names[colluders:]
    half = (len(honest) + 1) // 2
    return split(log, honest[:half], honest[half:], guilty)


def absent_allowed(witnesses: int, quorum: int) -> int:
    """Witnesses that may be absent at once before everybody has to wait; colluders may absent themselves too."""
    return witnesses - quorum


def chance_of_waiting(witnesses: int, quorum: int, dropout: float, window: int = 1) -> float:
    """That a round does not find its quorum, where witnesses are absent independently of one another.

    Args:
        witnesses: n.
        quorum: k.
        dropout: Chance of a witness to be absent in a round, 0 to 1.
        window: Rounds for which a cosignature counts.
    """
    gone = dropout**window
    return sum(comb(witnesses, there) * (1 - gone) ** there * gone ** (witnesses - there) for there in range(quorum))
