"""Charts as inline SVG over a time axis (pure).

Guarantees:
    * A chart has its width from the page: lines keep their width, and what is one minute wide stays visible.
    * Each has a title for screen readers; where a value is not known a line breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from collectorctl.report.markup import Html, el, join
from collectorctl.report.series import AUCTIONS, Axis, runs
from conf.calendar import PhaseSpan
from conf.clock import HOUR_NS, to_kst

HEIGHT = 100
"""Of a chart's own coordinates."""


def strip(axis: Axis, lanes: Sequence[Iterable[Html]], title: str) -> Html:
    """Lanes of coloured minutes, one below the other; `lanes` from `lane_paths`."""
    return _svg(axis, join(lanes), title, 12, "strip")


def lane_paths(values: np.ndarray, names: dict[int, tuple[str, str]], top: float, bottom: float) -> list[Html]:
    """One path for each value that has a name: class and words, of which a hovering pointer shows the tooltip."""
    parts: dict[int, list[str]] = {}
    for begin, end, value in runs(values):
        if value in names:
            parts.setdefault(value, []).append(f"M{begin} {top:g}H{end}V{bottom:g}H{begin}z")
    return [
        el("path", el("title", names[value][1]), class_=names[value][0], d="".join(found))
        for value, found in sorted(parts.items())
    ]


def chart(axis: Axis, layers: Iterable[Html], title: str, top: str, bottom: str, phases: Iterable[PhaseSpan]) -> Html:
    """A figure: layers over the auctions of the day, the labels of its upper and lower edge, and hours below."""
    shades = [
        rect(axis.position(span.begin_ns), axis.position(span.end_ns), 0, HEIGHT, "phase")
        for span in phases
        if span.phase in AUCTIONS
    ]
    body = _svg(axis, join([*shades, *_grid(axis), *layers]), title, HEIGHT, "plot")
    labels = [el("span", top, class_="top"), el("span", bottom, class_="bottom")]
    return el("figure", el("figcaption", title), el("div", body, labels, class_="frame"), time_axis(axis))


def time_axis(axis: Axis) -> Html:
    """The hours, at their places."""
    marks = []
    for number in range(axis.minutes // 60 + 1):
        hour = f"{to_kst(axis.begin_ns + number * HOUR_NS):%H}"
        left = f"left:{100 * number * 60 / axis.minutes:.3f}%"
        marks.append(el("span", hour if number < axis.minutes // 60 else "", style=left))
    return el("div", marks, class_="hours", aria_hidden="true")


def line(values: np.ndarray, low: float, high: float, name: str) -> Html:
    """A line through the minutes' values."""
    return el("path", class_=f"line {name}", d=_line_path(_scale(values, low, high)))


def band(lower: np.ndarray, upper: np.ndarray, low: float, high: float, name: str) -> Html:
    """The area between two values of each minute."""
    bottom, top, parts = _scale(lower, low, high), _scale(upper, low, high), []
    for begin, end, is_known in runs(~(np.isnan(bottom) | np.isnan(top))):
        if is_known:
            there = (f"V{top[x]:.1f}H{x + 1}" for x in range(begin, end))
            back = (f"V{bottom[x]:.1f}H{x}" for x in range(end - 1, begin - 1, -1))
            parts += [f"M{begin} {top[begin]:.1f}", *there, *back, "z"]
    return el("path", class_=f"area {name}", d="".join(parts))


def rect(begin: float, end: float, top: float, bottom: float, name: str, title: str = "") -> Html:
    """A rectangle, one hundredth of a minute wide at least; its outline keeps it visible."""
    content = [el("title", title)] if title else []
    position = {"x": f"{begin:.2f}", "y": f"{top:g}"}
    size = {"width": f"{max(end - begin, 0.01):.2f}", "height": f"{bottom - top:g}"}
    return el("rect", *content, class_=name, **position, **size)


def _svg(axis: Axis, body: Html, title: str, height: int, name: str) -> Html:
    box = f"0 0 {axis.minutes} {height}"
    return el(
        "svg",
        el("title", title),
        body,
        class_=name,
        viewBox=box,
        preserveAspectRatio="none",
        role="img",
        aria_label=title,
    )


def _grid(axis: Axis) -> list[Html]:
    hours = "".join(f"M{x} 0V{HEIGHT}" for x in range(0, axis.minutes + 1, 60))
    return [el("path", class_="grid", d=hours)]


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as heights from the top."""
    return (HEIGHT - 2) - (values - low) / ((high - low) or 1) * (HEIGHT - 4)


def _line_path(heights: np.ndarray) -> str:
    parts = []
    for begin, end, is_known in runs(~np.isnan(heights)):
        if is_known:
            points = [f"{x + 0.5:g} {heights[x]:.1f}" for x in range(begin, end)]
            parts.append("M" + "L".join(points) + ("h.01" if len(points) == 1 else ""))
    return "".join(parts)
