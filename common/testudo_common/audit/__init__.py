"""The audit log: what the server says it did, in a Merkle tree that every data owner mirrors, replays and cosigns.

merkle.py is the tree, notes.py signs texts, checkpoints.py says how large a log is and who saw it so, entries.py and
statements.py say what can stand in it. It proves what was said, not that it is true.
"""
