"""Number of key pairs of each broker, for the allocation.

Guarantees:
    * A key that is configured twice is refused, and no message shows a key.
"""

from __future__ import annotations

from brokers.registry import BROKERS
from conf.home import Home
from conf.loader import count_keys, reject_duplicate_keys


def key_counts(home: Home) -> dict[str, int]:
    """Enabled broker -> number of key pairs. SettingsError for a key that is configured twice."""
    enabled = [name for name in BROKERS if getattr(home.settings, name).enabled]
    reject_duplicate_keys(home.root, enabled)
    return {name: count_keys(home.root, name) for name in enabled}
