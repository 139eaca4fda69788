"""The evaluation harness on all unseen clients of a federation, which only a simulation ever sees together."""
