"""Which half an example falls into, and which queries count first: fixed by the example and a secret, nothing else.

Knows no model, no plan and no other example. So adding or removing one example moves no other one to the other half,
which a shuffle does, and with it the whole of a client's scores. The secret keeps others from making examples, or a
server from making a data set, of which it knows the half.
Source: HMAC-SHA256 (RFC 2104) as a keyed hash to sort records by.
"""

from __future__ import annotations

import hmac

import numpy as np

from testudo_common.learning.tasks import Examples

KEY_BYTES = 32
_QUERY_BIT = 1  # of the first byte


def support_and_query(examples: Examples, key: bytes, most_queries: int) -> tuple[Examples, Examples]:
    """The support half, and the queries: of the other half those ``most_queries`` with the smallest HMAC.

    Equal examples have equal HMACs: they are in the same half, and which of them counts makes no difference. So the
    queries of a data set with one example more differ by that example, and by one that it displaces, at the most.

    Args:
        examples: Of one client.
        key: Secret bytes of its owner; the same for all rounds, so that no example is ever in both halves.
        most_queries: 1 or more.
    """
    hashes = [_hash_of(examples, row, key) for row in range(len(examples))]
    order = sorted(range(len(examples)), key=hashes.__getitem__)
    in_query = [bool(hashes[row][0] & _QUERY_BIT) for row in order]
    support = [row for row, query in zip(order, in_query, strict=True) if not query]
    queries = [row for row, query in zip(order, in_query, strict=True) if query][:most_queries]
    return examples.take(np.array(support, dtype=np.intp)), examples.take(np.array(queries, dtype=np.intp))


def _hash_of(examples: Examples, row: int, key: bytes) -> bytes:
    """All examples of a client have one shape and type, so that no two different ones are the same bytes."""
    record = examples.inputs[row].tobytes() + examples.targets[row].tobytes()
    return hmac.digest(key, record, "sha256")
