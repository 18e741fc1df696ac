"""The newest rows, read from the journal while the writer writes it.

Promises: disturbs nobody; shows whole rows only.
Leaves to others: the journal's form (writer/journal.py).
"""

from __future__ import annotations
