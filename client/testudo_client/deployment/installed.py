"""The ClientApp that is installed here, for the circumstances that only an executor knows. Loads nothing else."""

from __future__ import annotations

from flwr.clientapp import ClientApp

from testudo_client import app as installed


def app_of(bundle_digest: str, server_certificates: tuple[str, ...]) -> ClientApp:
    """The installed ClientApp, whose owner's consent knows what came.

    Args:
        bundle_digest: SHA-256 of the app bundle, hex.
        server_certificates: SHA-256 of what the server presented, hex; empty: not known.
    """
    return installed.app_for(bundle_digest, server_certificates or None)
