"""Languages of what people read: messages by key, in each language.

    {"late": {"en": "... {seconds:.1f} s ...", "ko": "..."}} ──Texts("ko", messages)──> texts("late", seconds=2.9)

Guarantees:
    * The language of a home is `ui.language`, else that of the environment's locale, else English.

Not handled here:
    * JSON, logs and events are English.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


class Count(int):
    """A number of things; in an English message `{n:time|times}` is the noun that goes with it."""

    def __format__(self, form: str) -> str:
        one, bar, many = form.partition("|")
        return format(int(self), form) if not bar else one if self == 1 else many


class Texts:
    """The messages of one language."""

    def __init__(self, language: Language, messages: Mapping[str, Mapping[Language, str]]) -> None:
        self.language = language
        self._messages = messages

    def __call__(self, key: str, /, **values: Any) -> str:
        """The message of a key with its values."""
        return self._messages[key][self.language].format(**values)


def choose_language(setting: str, environ: Mapping[str, str] = os.environ) -> Language:
    """The language that is set; without one that of the locale, as POSIX ranks its variables."""
    locale = next(filter(None, (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return next((one for one in LANGUAGES if one == (setting or re.split("[_.@]", locale)[0])), "en")
