"""Watching an own model in use: whether what it is asked, answers and gets wrong is still what it learnt from."""
