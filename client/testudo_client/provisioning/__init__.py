"""A data owner's side of joining: request, answer, renewal. Runs nothing."""
