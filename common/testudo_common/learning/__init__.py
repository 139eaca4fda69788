"""Models, tasks, the inner loop and metrics; torch lives here, and only here in common."""
