"""Arrow without pandas, for processes that never make a data frame.

pyarrow loads pandas when it makes its first array, unless there is no pandas: 0.15 s and 30 MB.

Guarantees:
    * A process that imports pandas itself, before or after, has it; nothing else is kept from being imported.

Not handled here:
    * Values of timestamps in nanoseconds are pandas' in Python: whoever uses this casts them to integers or microseconds first.
"""

from __future__ import annotations

import sys


class _WithoutPandas:
    """A finder of modules, by which there is no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not loaded for pyarrow", name=name)


def load_arrow_without_pandas() -> None:
    """Let pyarrow look for pandas now, and find none; once pandas is loaded, it changes nothing."""
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _WithoutPandas)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(_WithoutPandas)
