"""The operator's side of joining: the federation's folder, its certificates, who was admitted. Runs nothing."""
