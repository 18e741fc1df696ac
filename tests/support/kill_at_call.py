"""A process that ends before one of its calls, counted over several functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

EXIT_KILLED = 9


def run_killed_at(count: int, calls: Iterable[tuple[Any, str]], run: Callable[[], object]) -> int:
    """Run in a fork that ends before the count-th of all `calls` (owner, name); EXIT_KILLED, or 0 if there were fewer."""
    if (pid := os.fork()) == 0:
        left = count

        def end_at(call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(EXIT_KILLED)
                return call(*arguments, **options)

            return made

        for owner, name in calls:
            setattr(owner, name, end_at(getattr(owner, name)))
        run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
