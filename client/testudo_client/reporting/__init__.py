"""A data owner's report: what its own model is worth, what left its computer, what was spent, and what it may rely on.

One ``report.json``, made of what lies in the owner's folder, and views of it that measure nothing of their own. In none
of them is a row of data, a value of one row, or a key.
"""
