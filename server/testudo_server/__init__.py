"""The coordinator of a federation: cohorts, aggregation, the outer step, its Flower ServerApp."""
