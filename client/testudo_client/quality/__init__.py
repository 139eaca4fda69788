"""What an owner's table is like before anything is trained on it: findings, a profile, and a data card."""
