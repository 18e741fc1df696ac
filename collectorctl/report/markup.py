"""Builder of HTML in which every text is escaped (pure).

    el("td", "a < b", class_="name")  -->  <td class="name">a &lt; b</td>

Guarantees:
    * A text that is not Html is escaped, in content and attributes; control and bidirectional characters are shown as escapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from conf.text.escape import escape_controls

_VOID = frozenset({"meta", "br", "path", "rect"})


class Html(str):
    """Markup that is complete as it is."""


Content = str | Iterable["Content"]


def el(name: str, /, *content: Content, **attributes: object) -> Html:
    """An element; `class_` is the attribute class, `aria_label` aria-label; None leaves an attribute out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return Html(f"<{name}{pairs}>" if name in ("meta", "br") else f"<{name}{pairs}/>")
    return Html(f"<{name}{pairs}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Html:
    """Pieces one after another."""
    return Html("".join(_render(piece) for piece in content))


def prose(text: str) -> Html:
    """Text in which `backticks` mark code."""
    pieces = text.split("`")
    return join(el("code", piece) if number % 2 else piece for number, piece in enumerate(pieces))


def _render(piece: Content) -> str:
    if isinstance(piece, Html):
        return piece
    return _escape(piece) if isinstance(piece, str) else join(piece)


def _escape(text: str) -> str:
    return escape(escape_controls(text))
