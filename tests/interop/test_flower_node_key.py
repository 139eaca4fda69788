"""Flower's own loaders read the node key that joining makes, and its public half as the operator keeps it."""

from __future__ import annotations

import argparse
from pathlib import Path

from flwr.cli.supernode.register import try_load_public_key
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from provisioned import provisioned_federation
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.provisioning.certificates import node_key_text


def test_flower_reads_the_node_key(tmp_path: Path) -> None:
    federation, owners = provisioned_federation(tmp_path, ("shop-1",))
    files = ConnectionFiles(owners["shop-1"])
    named = argparse.Namespace(auth_supernode_private_key=str(files.node_key), auth_supernode_public_key=None)
    keys = _try_setup_client_authentication(named)
    assert keys is not None
    (member,) = federation.members()
    assert node_key_text(keys[1]) == member.node_key
    public = tmp_path / "node.pub"
    public.write_text(member.node_key)
    assert try_load_public_key(public)
