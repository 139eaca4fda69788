"""``testudo-client renew``: the next TLS key, and the request for its certificate. Installs nothing.

The request is signed with the owner's roster key, which the operator knows: there is no fingerprint to compare. Where
somebody else may have seen the roster key or the node key, that is no cure: the operator revokes the member, and the
owner joins anew from a new folder.
"""

from __future__ import annotations

import secrets

from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import ConnectionFiles, read_connection
from testudo_client.provisioning.joining import accepted
from testudo_client.provisioning.tls_pairs import next_key
from testudo_common.files import write_atomically
from testudo_common.provisioning.certificates import key_in_csr, new_csr, public_bytes
from testudo_common.provisioning.documents import RenewalRequest, prove_renewal


def renew(home: OwnerHome) -> RenewalRequest:
    """Ask for the next certificate; twice before it is installed gives the same request.

    Raises:
        UsageError, KeyFileError: There is no connection yet, or it cannot be used.
        ProvisionError: A document in the folder is not whole.
    """
    read_connection(home.folder)
    files = ConnectionFiles(home.folder)
    invitation, _ = accepted(files)
    key = next_key(files)
    if files.renewal.exists():
        there = RenewalRequest.from_bytes(files.renewal.read_bytes(), source=str(files.renewal))
        if public_bytes(key_in_csr(there.csr, source=str(files.renewal))) == public_bytes(key.public_key()):
            return there
    made = prove_renewal(
        home.key(),
        federation=invitation.federation,
        client=invitation.client,
        nonce=secrets.token_hex(16),
        csr=new_csr(key),
    )
    write_atomically(files.renewal, made.to_bytes())
    return made
