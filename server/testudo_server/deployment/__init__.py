"""A federation on real machines: Flower's SuperLink, the door in front of it, and what is shown of a run."""
