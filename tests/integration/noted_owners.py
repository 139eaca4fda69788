"""Simulated owners that leave a note of the Ray node that answers for them. Ray workers import it. No tests in here."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from testudo_client.participant import Participant
from testudo_simulations.owners import OwnersByFile


class NotedOwners(OwnersByFile):
    """The same owners."""

    def __call__(self, context: Context) -> Participant:
        """The participant of the context's partition, and a file of the node's name."""
        import ray

        notes = _notes_of(Path(self.state).parent)
        notes.mkdir(exist_ok=True)
        (notes / ray.get_runtime_context().get_node_id()).touch()
        return super().__call__(context)


def nodes_in(out: Path) -> set[str]:
    """Ids of the Ray nodes that clients of the run in ``out`` answered on."""
    return {path.name for path in _notes_of(out).iterdir()}


def _notes_of(out: Path) -> Path:
    return out / "answered-on"
