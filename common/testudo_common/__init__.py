"""What both sides of a federation must agree on: plans, vectors, messages, learning and privacy accounting."""
