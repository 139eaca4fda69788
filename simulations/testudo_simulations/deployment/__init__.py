"""A server and data owners as separate processes on this machine, for rehearsals, tests and benchmarks."""
