"""Secure aggregation: the server learns sums over groups of clients, and no single client's vector.

Two rules. **No input or output here**: clients and servers are functions of a state and a message that give back
the next state and a reply; whoever calls them carries the bytes, keeps deadlines and keeps the state, and a step
that is refused leaves the old state as it was. **Nothing but cryptography and numpy** is imported.

The protocol is that of Bonawitz et al. 2017 (eprint 2017/281) with the sparse graphs of Bell et al. 2020 (eprint
2020/704), a consistency check before anything is unmasked, and groups drawn by a public coin. One round of it:

=== ===================== ============================================ ==========================================
    client's step          client -> server                             server -> client
=== ===================== ============================================ ==========================================
0   ``commit``             Commitment: to a nonce of the coin           CommitmentList: of the whole cohort
1   ``advertise``          Advertisement: keys, nonce, signature        Directory: all of them; gives the groups
2   ``share_keys``         SharedKeys: a ciphertext a neighbour         Deliveries: those addressed to you
3   ``mask``               MaskedInput: ``uint32[size]``                SurvivorSet: whose inputs arrived
4   ``confirm``            Confirmation: a tag a neighbour              Confirmations: those addressed to you
5   ``unmask``             UnmaskingShares: one share a neighbour       (the group's sum is open)
=== ===================== ============================================ ==========================================

client.py and server.py hold the two sides, messages.py what travels between them. What may be summed, and within
which bounds, is quantize.py's; who is grouped with whom groups.py's; who holds shares of whose secrets graph.py's.
"""
