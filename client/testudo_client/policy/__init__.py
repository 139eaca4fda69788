"""A data owner's policy: its sections, its file, and its verdict on a plan. Fail closed: no policy, no training."""
