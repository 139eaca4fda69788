"""A data owner's node on a real machine: Flower's SuperNode, and the executor that answers with installed code."""
