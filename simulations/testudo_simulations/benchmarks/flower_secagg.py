"""What one round of Flower's SecAgg+ costs a client and the server: the reference for our own secure aggregation.

The graph is complete (every client shares with every other) and Flower's own functions do all the work; messages and
their delivery are left out. Flower expands a mask with a Mersenne Twister from 32 bits, so its masks are cheaper than
a cryptographic generator's and hide nothing from who tries all seeds: equal work here is not equal security.

Sources: Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"; flwr 1.41,
``client/mod/secure_aggregation/secaggplus_mod.py`` and ``server/workflow/secure_aggregation/secaggplus_workflow.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from testudo_common.errors import UsageError

if TYPE_CHECKING:
    from flwr.common import Parameters

Arrays = list[NDArray[Any]]
_T = TypeVar("_T")

# The defaults of Flower's SecAggPlusWorkflow.
CLIPPING_RANGE = 8.0
QUANTIZATION_RANGE = 2**22
MODULUS_RANGE = 2**32
MAX_WEIGHT = 1000.0

# Combining shares is Python arithmetic in GF(2^128): ten seconds for fifty clients, and the same for each secret.
_SURVIVORS_MEASURED = 3
_DROPPED_MEASURED = 1


@dataclass(frozen=True, slots=True)
class FlowerCost:
    """CPU seconds of one round of Flower's SecAgg+.

    Attributes:
        client_seconds: Of one client that stays to the end; measured whole.
        server_seconds: Of the server.
        extrapolated: Which part of ``server_seconds`` was measured on a few items and multiplied; empty if none was.
    """

    client_seconds: float
    server_seconds: float
    extrapolated: str


def flower_available() -> bool:
    """Whether the installed flwr has SecAgg+, with the client mod's stage functions that are driven here."""
    try:
        import flwr.common.secure_aggregation.crypto.shamir
        import flwr.supercore.primitives.asymmetric  # noqa: F401
        from flwr.client.mod.secure_aggregation.secaggplus_mod import (  # noqa: F401
            _collect_masked_vectors,
            _setup,
            _share_keys,
            _unmask,
        )
    except ImportError:
        return False
    return True


def measure_flower(members: int, size: int, threshold: int, dropped: int) -> FlowerCost | None:
    """What one round costs a client and the server; None if the installed flwr has no SecAgg+.

    Args:
        members: Clients that share their keys, at least 3.
        size: Coordinates of each client's float32 vector, at least 1.
        threshold: Shares that recover a secret, from 2 to ``members - dropped``.
        dropped: Clients that share their keys and then send no masked vector.

    Raises:
        UsageError: There is no such round.
    """
    _check(members, size, threshold, dropped)
    if not flower_available():
        return None
    parts = [
        f"{measured} of {count} {kind} clients' masks"
        for kind, count, measured in (
            ("surviving", members - dropped, _SURVIVORS_MEASURED),
            ("dropped", dropped, _DROPPED_MEASURED),
        )
        if count > measured
    ]
    return FlowerCost(
        flower_client_seconds(members, size, threshold=threshold),
        flower_server_seconds(members, size, threshold=threshold, dropped=dropped),
        f"server: removed {' and '.join(parts)}, and multiplied" if parts else "",
    )


def flower_client_seconds(members: int, size: int, *, threshold: int) -> float:
    """CPU seconds of one client in one round, from its keys to its answer to the unmask request.

    The stage functions of Flower's client mod are driven themselves, in the mod's order; measured whole. The other
    clients' keys are made by the same functions untimed. As their shares it is sent its own: only their length counts.

    Raises:
        UsageError: There is no such round.
        ImportError: The installed flwr has no SecAgg+.
    """
    _check(members, size, threshold, 0)
    from flwr.common import ndarrays_to_parameters

    update = ndarrays_to_parameters([np.random.default_rng(0).normal(size=size).astype(np.float32)])
    public_keys = {nid: FlowerClient(nid, members, threshold).set_up() for nid in range(2, members + 1)}
    client = FlowerClient(1, members, threshold)
    setting_up, public_keys[1] = _timed(client.set_up)
    sharing, sent = _timed(lambda: client.share_keys(public_keys))
    received = {nid: client.sent_back(nid, ciphertext) for nid, ciphertext in sent.items()}
    masking, _ = _timed(lambda: client.mask(received, update))
    answering, _ = _timed(lambda: client.unmask(list(public_keys), []))
    return setting_up + sharing + masking + answering


def flower_server_seconds(members: int, size: int, *, threshold: int, dropped: int) -> float:
    """CPU seconds of the server in one round: the sum of the masked vectors, and the masks removed from it.

    Flower's functions are called in the order of its workflow's stages ``collect_masked_vectors`` and ``unmask``, with
    every share that the survivors would send, as the workflow does. Extrapolated: the masks of at most 3 survivors
    and of at most 1 dropped client are removed, and the mean of each kind counted for the others; the rest is
    measured whole.

    Raises:
        UsageError: There is no such round.
        ImportError: The installed flwr has no SecAgg+.
    """
    _check(members, size, threshold, dropped)
    from flwr.common import ndarray_to_bytes
    from flwr.common.secure_aggregation.crypto.shamir import create_shares
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    survivors = members - dropped
    masked = [ndarray_to_bytes(a) for a in pseudo_rand_gen(os.urandom(32), MODULUS_RANGE, [(1,), (size,)])]
    clients = [FlowerClient(nid, members, threshold) for nid in range(1, members + 1)]
    public_keys = {client.nid: client.set_up() for client in clients}
    total, vector = _timed(lambda: sum_masked([masked] * survivors))

    def shares_of(secret: bytes) -> list[bytes]:
        return create_shares(secret, threshold, members)[:survivors]

    sampled = min(survivors, _SURVIVORS_MEASURED)
    for _ in range(sampled):
        shares = shares_of(os.urandom(32))
        seconds, vector = _timed(lambda s=shares, v=vector: remove_private_mask(v, s))  # type: ignore[misc]
        total += seconds * survivors / sampled
    sampled = min(dropped, _DROPPED_MEASURED)
    for client in clients[members - sampled :]:
        shares = shares_of(client.first_private_key)
        seconds, vector = _timed(
            lambda s=shares, v=vector, n=client.nid: remove_pairwise_masks(v, s, n, public_keys)  # type: ignore[misc]
        )
        total += seconds * dropped / sampled
    return total + _timed(lambda: dequantised_mean(vector, survivors))[0]


class FlowerClient:
    """One client in a complete graph, by the stage functions of Flower's client mod.

    Args:
        nid: Its node id, from 1.
        members: Clients, each of which gets a share.
        threshold: Shares that recover a secret.
    """

    def __init__(self, nid: int, members: int, threshold: int) -> None:
        from flwr.client.mod.secure_aggregation.secaggplus_mod import SecAggPlusState

        self.nid = nid
        self._members, self._threshold = members, threshold
        self._state = SecAggPlusState(nid=nid)

    @property
    def first_private_key(self) -> bytes:
        """PEM; what the server recovers if this client sends no masked vector."""
        return self._state.sk1

    def set_up(self) -> tuple[bytes, bytes]:
        """Make both key pairs; their public halves, PEM."""
        from flwr.app import ConfigRecord
        from flwr.client.mod.secure_aggregation.secaggplus_mod import _setup
        from flwr.common.secure_aggregation.secaggplus_constants import Key

        configs = ConfigRecord(
            {
                Key.SAMPLE_NUMBER: self._members,
                Key.SHARE_NUMBER: self._members,
                Key.THRESHOLD: self._threshold,
                Key.CLIPPING_RANGE: CLIPPING_RANGE,
                Key.TARGET_RANGE: QUANTIZATION_RANGE,
                Key.MOD_RANGE: MODULUS_RANGE,
                Key.MAX_WEIGHT: MAX_WEIGHT,
            }
        )
        reply = cast(dict[str, bytes], _setup(self._state, configs))
        return reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]

    def share_keys(self, public_keys: Mapping[int, tuple[bytes, bytes]]) -> dict[int, bytes]:
        """Share the seed and the first private key; a ciphertext for every other node id."""
        from flwr.app import ConfigRecord
        from flwr.client.mod.secure_aggregation.secaggplus_mod import _share_keys
        from flwr.common.secure_aggregation.secaggplus_constants import Key

        reply = _share_keys(self._state, ConfigRecord({str(nid): list(keys) for nid, keys in public_keys.items()}))
        return dict(
            zip(
                cast(list[int], reply[Key.DESTINATION_LIST]), cast(list[bytes], reply[Key.CIPHERTEXT_LIST]), strict=True
            )
        )

    def sent_back(self, nid: int, ciphertext: bytes) -> bytes:
        """A ciphertext as ``nid`` would send it, with the shares that this client made for ``nid``."""
        from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
        from flwr.common.secure_aggregation.secaggplus_utils import (
            share_keys_plaintext_concat,
            share_keys_plaintext_separate,
        )

        key = self._state.ss2_dict[nid]
        _, _, seed_share, key_share = share_keys_plaintext_separate(decrypt(key, ciphertext))
        return encrypt(key, share_keys_plaintext_concat(nid, self.nid, seed_share, key_share))

    def mask(self, ciphertexts: Mapping[int, bytes], update: Parameters) -> list[bytes]:
        """Open every other client's shares, quantise the update and mask it; int64[1] and int64[d], each as bytes."""
        from flwr.app import ConfigRecord
        from flwr.client.mod.secure_aggregation.secaggplus_mod import _collect_masked_vectors
        from flwr.common.secure_aggregation.secaggplus_constants import Key

        configs = ConfigRecord({Key.CIPHERTEXT_LIST: [*ciphertexts.values()], Key.SOURCE_LIST: [*ciphertexts]})
        reply = _collect_masked_vectors(self._state, configs, int(MAX_WEIGHT), update)
        return cast(list[bytes], reply[Key.MASKED_PARAMETERS])

    def unmask(self, survivors: list[int], dropped: list[int]) -> dict[int, bytes]:
        """This client's share of each survivor's seed and of each dropped client's first private key."""
        from flwr.app import ConfigRecord
        from flwr.client.mod.secure_aggregation.secaggplus_mod import _unmask
        from flwr.common.secure_aggregation.secaggplus_constants import Key

        configs = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: survivors, Key.DEAD_NODE_ID_LIST: dropped})
        reply = _unmask(self._state, configs)
        return dict(
            zip(cast(list[int], reply[Key.NODE_ID_LIST]), cast(list[bytes], reply[Key.SHARE_LIST]), strict=True)
        )


def sum_masked(replies: Iterable[list[bytes]]) -> Arrays:
    """The survivors' masked vectors summed, int64[1] and int64[d], as the stage ``collect_masked_vectors`` does."""
    from flwr.common import bytes_to_ndarray
    from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod

    total: Arrays | None = None
    for reply in replies:
        vector = [bytes_to_ndarray(array) for array in reply]
        total = vector if total is None else parameters_addition(total, vector)
    assert total is not None, "somebody survives"
    return parameters_mod(total, MODULUS_RANGE)


def remove_private_mask(vector: Arrays, shares: list[bytes]) -> Arrays:
    """``vector`` without the mask of the survivor whose seed has these shares, as the stage ``unmask`` does."""
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares
    from flwr.common.secure_aggregation.ndarrays_arithmetic import get_parameters_shape, parameters_subtraction
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    mask = pseudo_rand_gen(combine_shares(shares), MODULUS_RANGE, get_parameters_shape(vector))
    return parameters_subtraction(vector, mask)


def remove_pairwise_masks(
    vector: Arrays, shares: list[bytes], nid: int, public_keys: Mapping[int, tuple[bytes, bytes]]
) -> Arrays:
    """``vector`` without the masks that all others share with dropped client ``nid``, as the stage ``unmask`` does.

    Those that it shares with other dropped clients are removed too: they cancel when those clients' turn comes.
    """
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        get_parameters_shape,
        parameters_addition,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

    secret = combine_shares(shares)
    for neighbour, (first_public_key, _) in public_keys.items():
        if neighbour == nid:
            continue
        # The workflow parses the private key anew for every neighbour; so does this.
        key = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(first_public_key))
        mask = pseudo_rand_gen(key, MODULUS_RANGE, get_parameters_shape(vector))
        change = parameters_addition if nid > neighbour else parameters_subtraction
        vector = change(vector, mask)
    return vector


def dequantised_mean(vector: Arrays, survivors: int) -> NDArray[np.float64]:
    """float64[d]: the weighted mean of the survivors' clipped updates, from the unmasked sum, as ``unmask`` ends."""
    from flwr.common.secure_aggregation.ndarrays_arithmetic import factor_extract, parameters_mod
    from flwr.common.secure_aggregation.quantization import dequantize

    weight, quantised = factor_extract(parameters_mod(vector, MODULUS_RANGE))
    (mean,) = dequantize(quantised, CLIPPING_RANGE, QUANTIZATION_RANGE)
    mean += -(survivors - 1) * CLIPPING_RANGE
    mean *= QUANTIZATION_RANGE / weight
    return mean


def _check(members: int, size: int, threshold: int, dropped: int) -> None:
    if members < 3 or size < 1 or dropped < 0 or not 2 <= threshold <= members - dropped:
        raise UsageError(
            f"no round of {members} members, {dropped} of them dropped, at threshold {threshold} and size {size}",
            remedy="take 3 members or more, a size from 1, and a threshold from 2 to those that are not dropped",
        )


def _timed(work: Callable[[], _T]) -> tuple[float, _T]:
    """CPU seconds of all threads of this process, and the result: Flower splits and combines shares in threads."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result
