"""Steps of joining, each killed at points where something reaches the disk. No test.

``TEMPLATE FOLDER STEP EVERY``: for K = 1, 1 + EVERY, ... a copy of TEMPLATE is FOLDER/K, and a child does the step
there and is killed at point K. Says every K, and ends after the first child that survives.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from forged import NOON
from killed_at import Killer, say
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest
from testudo_client.provisioning import installing
from testudo_client.provisioning.joining import join
from testudo_client.provisioning.renewal import renew as renew_client
from testudo_server.provisioning import admission
from testudo_server.provisioning.folder import FederationFolder, FederationSettings
from testudo_server.provisioning.foundation import found
from testudo_server.provisioning.foundation import renew as renew_server
from testudo_server.provisioning.members import revoke

CALLS = ("open", "fsync", "close", "mkdir", "replace", "link", "symlink", "unlink")


def founding(scene: Path) -> None:
    found(
        FederationFolder(scene / "new"), FederationSettings(federation="shops", hosts=("localhost",), port=1), now=NOON
    )


def joining(scene: Path) -> None:
    join((scene / "invitation.json").read_bytes(), InitRequest(scene / "owner", ""), NOON, source="it")


def admitting(scene: Path) -> None:
    """The request that lies there, to join or to renew."""
    federation, data = FederationFolder(scene / "federation"), (scene / "request.json").read_bytes()
    admission.answer(federation, admission.examine(federation, data, NOON, source="it"), NOON)


def installing_it(scene: Path) -> None:
    home, data = OwnerHome(scene / "owner"), (scene / "answer.json").read_bytes()
    installing.install(home, installing.examine(home, data, NOON, source="it"))


def asking(scene: Path) -> None:
    renew_client(OwnerHome(scene / "owner"))


def revoking(scene: Path) -> None:
    revoke(FederationFolder(scene / "federation"), "shop-1")


def serving(scene: Path) -> None:
    renew_server(FederationFolder(scene / "federation"), NOON)


def untold(descriptor: int) -> None:
    """In place of fsync: a process that is killed needs no disk to have what it wrote."""


STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step for step in (founding, joining, admitting, installing_it, asking, revoking, serving)
}


def killed_at_every_point(template: Path, folder: Path, step: Callable[[Path], None], every: int) -> None:
    for point in itertools.count(1, every):
        scene = folder / str(point)
        shutil.copytree(template, scene, symlinks=True)
        child = os.fork()
        if child == 0:
            killer = Killer(point)
            for name in CALLS:
                setattr(os, name, killer.around(getattr(os, name)))
            os.fsync = killer.around(untold)
            step(scene)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say(point)
        if status == 0:
            return


if __name__ == "__main__":
    killed_at_every_point(Path(sys.argv[1]), Path(sys.argv[2]), STEPS[sys.argv[3]], int(sys.argv[4]))
