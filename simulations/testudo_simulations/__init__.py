"""Many clients on one machine: federations, evaluation on unseen clients, reports and benchmarks."""
